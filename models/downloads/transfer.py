"""One file on its way from an HTTP server: asked for piece by piece, resumed after breaks, checked at the end."""

__all__ = ["OfflineError", "Transfer"]

import base64
import errno
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from textdiff import console
from textdiff.errors import UserError
from textdiff.files import check_free_space, sha256_file, write_json

_PIECE = 1 << 18  # bytes read at once: small enough for a lively progress line
_LONGEST_PAUSE = 30.0  # seconds
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that a later try may not meet
_UNREACHABLE = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


class OfflineError(UserError):
    """There is no network, or it was ruled out by an environment variable."""


class _ChangedError(Exception):
    """What lies in the partial file is not the beginning of what the server now has."""


class Transfer:
    """One file under way: the open partial file and what the server said about the whole."""

    def __init__(
        self, url: str, final: Path, part: IO[bytes], sha256: str | None, size: int | None, timeout: float
    ) -> None:
        self.url, self.final, self.part, self.timeout = url, final, part, timeout
        self.sha256, self.size = sha256, size
        self.notes = final.with_name(final.name + ".part.json")
        self.said: dict[str, Any] = {}
        try:
            said = json.loads(self.notes.read_text(encoding="utf-8"))
            if said["url"] == url:
                self.said = said
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if not self.said.get("validator"):
            self._restart()  # nothing could tell whether the server's file is still the one we have a part of
        part.seek(0, os.SEEK_END)

    def run(self, progress: bool, retries: int, pause: Callable[[float], None]) -> None:
        """Fetches until the last byte is here."""
        furthest, failures = self.part.tell(), 0
        while not self._complete():
            trouble: Exception
            try:
                self._attempt(progress)
                trouble = ConnectionError(f"the connection ended at byte {self.part.tell()} of {self.said['total']}")
            except _ChangedError as error:
                self._restart()
                trouble = error
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in _PASSING:
                    raise UserError(f"{self.url}: the server answers {error.code} {error.reason}") from error
                trouble = error
            except urllib.error.URLError as error:
                self._give_up_if_hopeless(error.reason if isinstance(error.reason, Exception) else error)
                trouble = error
            except (ValueError, http.client.InvalidURL) as error:
                raise UserError(f"{self.url}: not a valid address ({_words(error)})") from error
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                trouble = error
            if self._complete():
                return
            # A slow line may break off a hundred times; only tries that bring nothing new are counted.
            failures = 0 if self.part.tell() > furthest else failures + 1
            furthest = max(furthest, self.part.tell())
            if failures >= retries:
                silent = (
                    not furthest and isinstance(trouble, OSError) and not isinstance(trouble, urllib.error.HTTPError)
                )
                raise (OfflineError if silent else UserError)(
                    f"{self.url}: gave up after {failures} tries ({_words(trouble)}); "
                    f"{console.size(self.part.tell())} are kept, the same command goes on from there"
                ) from trouble
            if isinstance(trouble, _ChangedError):
                console.info(f"{self.final.name}: {trouble}; starting again")
                continue
            wait = min(2.0**failures, _LONGEST_PAUSE)
            console.info(f"{self.final.name}: {_words(trouble)}; going on in {console.duration(wait)}")
            pause(wait)

    def finish(self) -> None:
        """Checks the whole file and gives it its name."""
        self.part.flush()
        os.fsync(self.part.fileno())
        part = Path(self.part.name)
        wrong = ""
        if self.sha256 is not None:
            found = sha256_file(part)
            if found != self.sha256.lower():
                wrong = f"sha256 is {found}, expected {self.sha256.lower()}"
        elif md5 := self.said.get("md5"):
            with part.open("rb") as f:
                found = hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != md5:
                wrong = f"MD5 is {found}, the server says {md5}"
        if wrong:
            self.forget()
            raise UserError(f"{self.url}: wrong content: {wrong}; it was deleted. Try again or another address")
        part.replace(self.final)
        self.notes.unlink(missing_ok=True)

    def forget(self) -> None:
        """Deletes what has come so far."""
        Path(self.part.name).unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _attempt(self, progress: bool) -> None:
        """One request: from the end of the partial file to the end of the answer."""
        have = self.part.tell()
        request = urllib.request.Request(self.url, headers={"User-Agent": "textdiff", "Accept-Encoding": "identity"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if not self.said["validator"].startswith("W/"):  # a weak ETag is not allowed here
                request.add_header("If-Range", self.said["validator"])
        try:
            answer = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # our part is no shorter than the server's file
                error.close()
                raise _ChangedError("the file on the server has changed") from error
            raise
        with answer:
            self._read_headers(answer)
            have, total = self.part.tell(), self.said["total"]
            if total is not None:
                check_free_space(self.final, total - have, "still needs", "free some, or choose another place")
            known = progress and total is not None
            with console.Progress(total or 0, self.final.name, "bytes", done=have) if known else nullcontext() as shown:
                # read1 hands over what has come; read would lose it if the connection breaks within the piece.
                while piece := answer.read1(_PIECE):
                    self.part.write(piece)
                    if shown is not None:
                        shown.advance(len(piece))
            self.part.flush()
            if total is None:  # sent in chunks: http.client has seen the end mark, or raised
                self.said["total"] = self.part.tell()

    def _read_headers(self, answer: Any) -> None:
        headers = answer.headers
        validator = headers.get("ETag") or headers.get("Last-Modified") or ""
        if answer.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            total = self.said["total"]
            same = span and int(span[1]) == self.part.tell() and (total is None or span[2] in (str(total), "*"))
            if span is None or not same or validator not in ("", self.said["validator"]):
                raise _ChangedError("the file on the server has changed")
            if total is None and span[2] != "*":
                self.said["total"] = int(span[2])
            return
        if headers.get("Content-Encoding", "identity") != "identity":
            raise UserError(f"{self.url}: the server sends it compressed, though asked not to; use another address")
        self._restart()  # the whole file from its first byte: a new file, or a server that knows no ranges
        length = headers.get("Content-Length")
        total = int(length) if length is not None and length.isdigit() else None
        if total is None and not answer.chunked:
            total = self.size
            if total is None:
                raise UserError(f"{self.url}: the server doesn't say how long the file is; use another address")
        if self.size is not None and total not in (None, self.size):
            self.forget()
            raise UserError(f"{self.url}: the server announces {total} bytes, expected {self.size}; not the right file")
        md5 = headers.get("Content-MD5")
        self.said = {"url": self.url, "validator": validator, "total": total, "md5": md5 and _hex(md5)}
        write_json(self.notes, self.said)

    def _complete(self) -> bool:
        have, total = self.part.tell(), self.said.get("total")
        if self.size is not None and total is not None and total != self.size:
            self.forget()
            raise UserError(f"{self.url}: the server sent {total} bytes, expected {self.size}; not the right file")
        return total is not None and have == total

    def _restart(self) -> None:
        self.part.seek(0)
        self.part.truncate()
        self.notes.unlink(missing_ok=True)
        self.said = {}

    def _give_up_if_hopeless(self, reason: Exception) -> None:
        """Raises where another try would only cost time. Once bytes have come, a break is just a break."""
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(f"{self.url}: the server's certificate is not trusted ({_words(reason)})") from reason
        nobody = isinstance(reason, OSError) and reason.errno in _UNREACHABLE
        if not self.part.tell() and (nobody or isinstance(reason, socket.gaierror | TimeoutError)):
            raise OfflineError(
                f"{self.url}: cannot be reached ({_words(reason)}); is this machine offline?"
            ) from reason


def _hex(md5: str) -> str | None:
    try:
        return base64.b64decode(md5, validate=True).hex()
    except ValueError:
        return None


def _words(error: Exception) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
