"""Damaged files into every reader: each may be read or refused in one line, and nothing else.

    python tests/fuzz.py [READER ...] [--mutations 3000] [--seed 0]

A worker, limited in memory, reads one mutation after the other; one that says nothing for ten seconds is ended, and
the next one goes on behind it. Prints a table; the status is 1 if a reader raised anything but ``UserError``, hung or
took more than 2 GB.
"""

import argparse
import io
import json
import os
import random
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from textdiff.tests.fuzz_readers import READERS

SECONDS = 10.0
BYTES = 2 << 30
HUGE = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**31, 2**40, 2**63, 2**64 - 1)
WORDS = (
    b'"',
    b"'",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    "\u2028".encode(),
    b"\xed\xa0\x80",
    b"[" * 9000,
    b"&#0;",
    b"\r",
)


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """A file with one to three faults, mostly behind what would give them away: a zip's and a PNG's checksums."""
    if data[:2] == b"PK" and draw.random() < 0.8:
        return in_zip(data, draw)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = with_fault(data, other, draw)
    return with_checksums(data) if data[:4] == b"\x89PNG" and draw.random() < 0.7 else data


def with_fault(data: bytes, other: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    # Half of all faults hit the first bytes, where headers are.
    at = draw.randrange(min(len(out), 600) if draw.random() < 0.5 else len(out)) if out else 0
    kind = 8 if b"\0" not in data and draw.random() < 0.4 else draw.randrange(9)
    if not out or kind == 0:
        return data[: draw.randrange(len(data) + 1)]
    if kind == 1:
        for _ in range(draw.choice((1, 1, 2, 8))):
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    elif kind == 2:
        out[at] = draw.choice((0, 1, 127, 128, 254, 255))
    elif kind == 3:
        out[at] ^= 1 << draw.randrange(8)
    elif kind in (4, 5):
        code = draw.choice("<>") + draw.choice("HIQ")
        size = struct.calcsize(code)
        out[at : at + size] = struct.pack(code, draw.choice((*HUGE, draw.getrandbits(64))) & (2 ** (8 * size) - 1))
    elif kind == 6:
        del out[at : at + draw.choice((1, 4, 16, 200))]
    elif kind == 7:
        start = draw.randrange(len(other))
        out[at:at] = other[start : start + draw.choice((1, 8, 100, 1000))]
    else:
        numbers = list(re.finditer(rb"\d+(\.\d+)?", data))
        if numbers and draw.random() < 0.7:
            found = draw.choice(numbers)
            new = draw.choice((b"-1", b"0", b"1e999", b"nan", b"10000000", b"9" * 30, b"1.5", b"null"))
            out[found.start() : found.end()] = new
        else:
            out[at:at] = draw.choice(WORDS)
    return bytes(out)


def in_zip(data: bytes, draw: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = draw.choice([name for name in names if "sheet" in name or "shared" in name or "workbook" in name])
        for name in names:
            content = old.read(name)
            new.writestr(name, with_fault(content, content, draw) if name == chosen else content)
    return out.getvalue()


def with_checksums(data: bytes) -> bytes:
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


# The worker and who watches it


def work(name: str, seed: int, first: int, count: int) -> None:
    from textdiff.errors import UserError

    suffix, make, read = READERS[name]
    files = list(make())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(files[0])
        read(path)  # imports what it needs, and the first file must be sound
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))
        print("ready", flush=True)
        for number in range(first, first + count):
            draw = random.Random(f"{name} {seed} {number}")
            path.write_bytes(mutated(draw.choice(files), draw.choice(files), draw))
            start = time.perf_counter()
            said, detail = "accepted", ""
            try:
                read(path)
            except UserError as error:
                said = "refused" if "\n" not in str(error) else "traceback"
                detail = str(error) if said == "traceback" else ""
            except BaseException as error:
                said, detail = "traceback", f"{type(error).__name__}: {error}"
            seconds = time.perf_counter() - start
            peak = _peak()
            print(json.dumps([number, said, seconds, peak, detail[:300]]), flush=True)


def _peak() -> int:
    """The most memory that this process had, in bytes; ``ru_maxrss`` begins with that of the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


@dataclass
class Outcome:
    """What came of the mutations of one reader."""

    name: str
    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0
    peak: int = 0
    faults: list[str] = field(default_factory=list)
    """One line for each mutation that raised, hung, crashed, or printed something."""

    @property
    def row(self) -> str:
        """The reader's line of the table, in Markdown."""
        total = self.refused + self.accepted + len(self.faults)
        return (
            f"| {self.name} | {total} | {self.refused} | {self.accepted} | {len(self.faults)} | {self.slowest:.2f} s | "
            f"{self.peak / 2**20:.0f} MiB |"
        )


HEAD = """| reader | mutations | refused | accepted | faults | slowest | peak memory |
| :-- | --: | --: | --: | --: | --: | --: |"""


def fuzz(name: str, mutations: int, seed: int = 0) -> Outcome:
    """Reads ``mutations`` damaged files with one reader."""
    outcome, done, tried = Outcome(name), 0, -1
    while done < mutations:
        command = [sys.executable, __file__, "--worker", name, str(seed), str(done), str(mutations - done)]
        with tempfile.TemporaryFile() as errors:
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
            assert worker.stdout is not None
            waiting = 120.0  # for imports and the files
            buffer, began = b"", False
            while True:
                ready, _, _ = select.select([worker.stdout], [], [], waiting)
                piece = os.read(worker.stdout.fileno(), 1 << 16) if ready else b""
                buffer += piece
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    waiting = SECONDS
                    if line == b"ready":
                        began = True
                        continue
                    number, said, seconds, peak, detail = json.loads(line)
                    done = number + 1
                    outcome.slowest, outcome.peak = max(outcome.slowest, seconds), max(outcome.peak, peak)
                    outcome.refused += said == "refused"
                    outcome.accepted += said == "accepted"
                    if said == "traceback" or seconds > SECONDS or peak > BYTES:
                        outcome.faults.append(f"{name} {number}: {detail or f'{seconds:.0f} s, {peak >> 20} MiB'}")
                if not piece:
                    break
            if not began:
                worker.kill()
                errors.seek(0)
                raise RuntimeError(f"{name}: a sound file is not read: {errors.read().decode()}")
            if worker.poll() is None and not ready:
                worker.send_signal(signal.SIGKILL)
                # The machine may have been busy with something else: what hangs does so again.
                if tried == done:
                    outcome.faults.append(f"{name} {done}: nothing for {waiting:.0f} s")
                    outcome.slowest = max(outcome.slowest, waiting)
                    done += 1
                else:
                    tried = done
            elif worker.wait() != 0:
                errors.seek(0)
                outcome.faults.append(f"{name} {done}: ended with {worker.returncode}: {errors.read()[-300:]!r}")
                done += 1
            worker.wait()
            errors.seek(0)
            if printed := errors.read().strip():
                outcome.faults.append(f"{name}: printed {printed[:300]!r}")
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", default=list(READERS))
    parser.add_argument("--mutations", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, *numbers = options.worker
        work(name, *map(int, numbers))
        return 0
    outcomes = []
    for name in options.readers:
        outcomes.append(fuzz(name, options.mutations, options.seed))
        print(outcomes[-1].row, *outcomes[-1].faults, sep="\n", flush=True)
    print(HEAD, *(outcome.row for outcome in outcomes), sep="\n")
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
