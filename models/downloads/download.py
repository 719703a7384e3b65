"""Files from the web that are whole and verified, or not there.

A download is resumed where it broke off, as long as the server vouches that the file is still the same one (HTTP range
requests, RFC 9110 sections 13 and 14: https://www.rfc-editor.org/rfc/rfc9110).
"""

__all__ = ["OfflineError", "download", "offline_variable"]

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from textdiff import console
from textdiff.errors import UserError
from textdiff.files import sha256_file
from textdiff.models.downloads.transfer import OfflineError, Transfer


def offline_variable() -> str | None:
    """The environment variable that forbids downloads, if one is set."""
    names = ("TEXTDIFF_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), None)


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: bool = True,
    timeout: float = 30.0,
    retries: int = 5,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetches ``url`` to ``path``, which appears only once it is complete and verified.

    Until then the bytes are in ``<path>.part``, with what the server said about them in ``<path>.part.json``; both
    survive a break, a kill or Ctrl-C, and the next call goes on from there. A file already at ``path`` is kept if it
    has the ``sha256`` and the ``size`` asked for. Of several processes that fetch one file, one does and the others
    wait for it. Proxies are taken from the environment.

    Args:
        url: an ``http`` or ``https`` address.
        path: the file to make; its directory is created.
        sha256: of the whole file, in hexadecimal. Without it the server's ``Content-MD5`` is used where it gives one.
        size: of the whole file in bytes, where it is known beforehand.
        progress: whether to show it.
        timeout: seconds without a byte after which a connection counts as broken.
        retries: tries without any headway before giving up.
        pause: called with the seconds to wait between tries.

    Returns:
        ``path``.

    Raises:
        OfflineError: nobody answers, or an environment variable forbids it.
        UserError: the address is wrong; the server breaks off again and again; the bytes are not the expected ones; the
            disk cannot hold the file.
    """
    final = Path(path)
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: not an address that can be downloaded; it must begin with https:// or http://")
    if _fits(final, sha256, size):
        return final
    if variable := offline_variable():
        raise OfflineError(f"{url}: not downloaded, because {variable} is set; unset it to download")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        opened = _locked(final.with_name(final.name + ".part"))
    except OSError as error:
        raise UserError(f"{final}: cannot be written ({error.strerror}); choose another place") from error
    with opened as part:
        if _fits(final, sha256, size):  # another process was faster
            Path(part.name).unlink()
            return final
        transfer = Transfer(url, final, part, sha256, size, timeout)
        try:
            transfer.run(progress, retries, pause)
        except KeyboardInterrupt:
            kept = console.size(part.tell())
            console.info(f"{final.name}: stopped; {kept} are kept in {part.name}, the same command goes on from there")
            raise
        except UserError:
            if not part.tell():
                transfer.forget()
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{final}: the disk is full; free some space and run the same command to go on, "
                f"or delete {part.name} to give up"
            ) from error
        transfer.finish()
    return final


def _locked(path: Path) -> IO[bytes]:
    """The partial file, opened for writing and locked against other processes until it is closed."""
    while True:
        path.touch()
        try:
            part = path.open("r+b")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.info(f"{path.name}: another process is downloading it; waiting")
            fcntl.flock(part, fcntl.LOCK_EX)
        # The process we waited for has renamed or deleted the file it locked: ours must be the one at ``path``.
        try:
            if os.path.samestat(os.fstat(part.fileno()), path.stat()):
                return part
        except FileNotFoundError:
            pass
        part.close()


def _fits(path: Path, sha256: str | None, size: int | None) -> bool:
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    return sha256 is None or sha256_file(path) == sha256.lower()
