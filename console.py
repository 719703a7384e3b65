"""What a person sees while a command works: messages and progress, all on standard error.

Standard output is kept for results, so ``textdiff score --json | jq`` works whatever is said meanwhile.

Names and texts come from others, and a terminal obeys escape codes in them: whatever is printed passes ``printable``.
"""

__all__ = [
    "Progress",
    "SafeOutput",
    "counted",
    "duration",
    "form",
    "info",
    "printable",
    "shares",
    "size",
    "some",
    "warn",
]

import json
import re
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TextIO

# Control characters, line separators, marks that turn the direction of what follows or show nothing, and halves of
# characters that no encoding has. Joiners stay: Persian words and emoji are made with them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with what a terminal would obey, or nobody would see, as in JSON: ``\u001b``, ``\n``.

    Args:
        text: anything, file names that are not UTF-8 included.
        keep: control characters that stay.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found), text)


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


class SafeOutput:
    """A text stream of which every line is ``printable``, and JSON still the same JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes ``text``, in ASCII where the stream's encoding does not have all of it."""
        shown = printable(text, keep="\n")
        try:
            shown.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:
            shown = re.sub(r"[^\x00-\x7f]", _escape, shown)
        self._stream.write(shown)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def info(message: str) -> None:
    """Prints one line of information."""
    print(printable(message), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Prints one line that the user should read before trusting the result."""
    info(f"warning: {message}")


def counted(count: int, what: str, many: str = "") -> str:
    """A number of things: ``1 image``, ``2 images``; ``many`` is the plural where it is no ``s`` more."""
    return f"{count} {form(count, what, many or f'{what}s')}"


def form(count: int, one: str, many: str) -> str:
    """The word that goes with a number of things: ``has`` or ``have``."""
    return one if count == 1 else many


def some(count: int, total: int, what: str, one: str, many: str) -> str:
    """A part of a number of things, and the verb: ``1 of 9 images has``, ``2 of 9 images have``."""
    return f"{count} of {counted(total, what)} {form(count, one, many)}"


def shares(parts: Sequence[float]) -> list[int]:
    """What each part is of their sum in whole percent, so rounded that these add up to 100.

    The largest remainders are rounded up; zeros where there is nothing to share.
    """
    whole = sum(parts)
    if whole <= 0:
        return [0] * len(parts)
    exact = [100 * part / whole for part in parts]
    found = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: found[index] - exact[index])
    for index in by_remainder[: 100 - sum(found)]:
        found[index] += 1
    return found


def size(count: float) -> str:
    """A number of bytes for people: ``141.6 MB``. Decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A time span for people: ``14 ms``, ``4.5 s``, ``45 s``, ``12 min 05 s``, ``3 h 20 min``."""
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Progress of ``total`` equal units with rate and time left.

    On a terminal one line is redrawn in place. Elsewhere (a log file, CI) a plain line is printed at the first unit,
    then at most every ``every`` seconds, and at the end.
    """

    def __init__(self, total: int, what: str, unit: str = "images", *, done: int = 0, every: float = 15.0) -> None:
        self.total, self.what, self.unit, self.every = total, what, unit, every
        self.done = self._initial = done
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._note = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            print(file=sys.stderr, flush=True)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts ``count`` more units as done; ``note`` is shown at the end of the line."""
        self.done += count
        self._note = note or self._note
        now = time.monotonic()
        first = self.done - count == self._initial
        if self._terminal:
            # Redrawing costs more than counting: bytes of a download arrive thousands of times a second.
            if first or now - self._last >= 0.1 or self.done >= self.total:
                self._last = now
                print(f"\r\x1b[2K{printable(self.line())}", end="", file=sys.stderr, flush=True)
        elif first or now - self._last >= self.every or self.done >= self.total:
            self._last = now
            print(printable(self.line()), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state as one line of text."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._initial) / elapsed
        left = duration((self.total - self.done) / rate) if rate else "unknown"
        if self.unit == "bytes":
            counts, speed = f"{size(self.done)} of {size(self.total)}", f"{size(rate)}/s"
        else:
            counts, speed = f"{self.done}/{self.total} {self.unit}", f"{rate:.2f} {self.unit}/s"
        end = f"in {duration(elapsed)}" if self.done >= self.total else f"{left} left"
        return f"{self.what}: {counts}, {speed}, {end}" + (f", {self._note}" if self._note else "")
