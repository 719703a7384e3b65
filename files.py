"""Files that are either whole or absent, and the space there is for them."""

__all__ = [
    "HOST",
    "alive",
    "atomic_directory",
    "atomic_path",
    "check_free_space",
    "check_ours",
    "directory_nbytes",
    "free_space",
    "sha256_file",
    "stamp",
    "write_json",
    "write_text",
]

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from textdiff.console import printable, size
from textdiff.errors import UserError, os_error
from textdiff.places import Url, located

# Parts of the names of temporary files, so that those of a process that is dead can be told from one's own, and both
# from those of other machines, of whose processes nothing is known.
HOST, _TOKEN = f"{zlib.crc32(platform.node().encode()):08x}", uuid.uuid4().hex[:8]
_LEFTOVER = re.compile(rf"\..*\.{HOST}-(?P<pid>\d+)-(?P<token>[0-9a-f]{{8}})-[0-9a-f]{{8}}\.partial(\.[^.]*)?")
os.umask(_UMASK := os.umask(0o077))


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to; on success it becomes ``path`` in one step.

    The content is flushed to the disk before the rename, so a crash leaves the old file, the new file or nothing,
    never a part. On an exception the temporary file and directories that were made for it are removed, and the
    exception goes on. Temporary files that killed processes left in that directory are removed, too.

    Raises:
        OSError: the file cannot be written. It names ``path``, also where a library that wrote says it in another way.
    """
    final = Path(path)
    new = list(takewhile(lambda parent: not parent.exists(), final.parents))
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent.absolute())
    # The suffix stays last, because writers such as Pillow and numpy choose the format by it. Both are cut, because the
    # temporary name must not be too long where the final one is not.
    partial = final.with_name(f".{final.stem[:40]}.{_mark()}.partial{final.suffix[:20]}")
    try:
        yield partial
        with partial.open("rb") as f:
            os.fsync(f.fileno())
            mode = stat.S_IMODE(os.fstat(f.fileno()).st_mode)
        # Some writers make a private temporary file of their own.
        if mode == 0o600:
            with contextlib.suppress(OSError):
                partial.chmod(0o666 & ~_UMASK)
        partial.replace(final)
    except UserError:
        raise
    except Exception as error:
        reason = os_error(error) or _refusal(error, partial)
        if reason is None or str(reason.filename or partial) != str(partial):
            raise
        assert reason.errno is not None
        raise OSError(reason.errno, os.strerror(reason.errno), str(final)) from error
    finally:
        partial.unlink(missing_ok=True)
        if not final.exists():
            with contextlib.suppress(OSError):  # one that is not empty stays, and those above it
                for parent in new:
                    parent.rmdir()


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary directory beside ``path`` to fill; on success it becomes ``path``, replacing what is there.

    No reader sees a part of it under the final name. On an exception it is removed and what was there stays.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent.absolute())
    partial = final.with_name(f".{final.name[:40]}.{_mark()}.partial")
    replaced = partial.with_suffix(".replaced")
    partial.mkdir()
    try:
        yield partial
        # Directories cannot be exchanged in one step: for an instant there is neither, never a mixture.
        if final.exists():
            final.replace(replaced)
        partial.replace(final)
    finally:
        if replaced.exists() and not final.exists():
            replaced.replace(final)
        for leftover in (partial, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def _mark() -> str:
    return f"{HOST}-{os.getpid()}-{_TOKEN}-{uuid.uuid4().hex[:8]}"


@cache
def _sweep(directory: Path) -> None:
    """Removes what processes of this machine that are dead left half written in a directory, once for each."""
    with os.scandir(directory) as entries:
        found = [(entry, match) for entry in entries if (match := _LEFTOVER.fullmatch(entry.name))]
    for entry, match in found:
        if match["token"] == _TOKEN or alive(int(match["pid"])):
            continue
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()


def alive(pid: int) -> bool:
    """Whether a process of this machine has not ended, as far as that can be told."""
    if os.name != "posix":  # elsewhere a signal of 0 is none
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _refusal(error: Exception, partial: Path) -> OSError | None:
    """Why a file cannot be written on, where a writer (numpy's) says only that it could not."""
    if isinstance(error, OSError) and partial.exists():
        try:
            with partial.open("ab") as f:
                f.write(bytes(1 << 20))
        except OSError as found:
            return found
    return None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Writes ``text`` in UTF-8, atomically; half a character, which UTF-8 has not, becomes ``\udc80``."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented, ``printable`` JSON, atomically. Non-finite floats are refused, as JSON has none."""
    write_text(path, printable(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), keep="\n") + "\n")


def free_space(path: str | os.PathLike[str]) -> int:
    """Bytes that are free on the disk where ``path`` is, or is going to be."""
    place = Path(path).resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def check_free_space(path: str | os.PathLike[str], needed: int, what: str, fix: str, replaced: int = 0) -> None:
    """Checks, before anything is written, that the disk of ``path`` holds it.

    Args:
        path: what is going to be written, which need not be there yet.
        needed: bytes.
        what: needs them, with its verb: ``the 8 rows need``.
        fix: what the user can do.
        replaced: bytes that are there and are going to be free.

    Raises:
        UserError: there is less free space than that.
    """
    if isinstance(located(path), Url):
        return  # an object store has no end that could be asked for
    free = free_space(path) + replaced
    if needed > free:
        raise UserError(f"{path}: {what} {size(needed)} and the disk has {size(free)} free; {fix}")


def check_ours(path: str | os.PathLike[str], what: str, ours: Callable[[Path], bool]) -> None:
    """Checks, before a result takes the place of a file, that this is a result of the same kind, or that there is none.

    Args:
        path: what is going to be written.
        what: it is: ``export of a cache``.
        ours: whether a file is one, by what we write into it.

    Raises:
        UserError: there is a file that may be somebody's data.
    """
    if Path(path).is_file() and not ours(Path(path)):
        raise UserError(f"{path}: is there already, and is no {what}; name another file, or remove it")


def directory_nbytes(directory: str | os.PathLike[str]) -> int:
    """What the files below a directory hold, in bytes."""
    with os.scandir(directory) as entries:
        return sum(
            directory_nbytes(entry.path) if entry.is_dir(follow_symlinks=False) else entry.stat().st_size
            for entry in entries
        )


def sha256_file(path: str | os.PathLike[str], advance: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; ``advance`` is told the size of each piece read."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as f:
        while piece := f.read(1 << 22):
            digest.update(piece)
            if advance is not None:
                advance(len(piece))
    return digest.hexdigest()


def stamp(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """What changes when a file is written to or another takes its place: its size, times in ns, and inode.

    Programs that keep the time of the last modification, such as ``cp -p`` and ``rsync -t``, cannot keep that of the
    last change of the inode. Between two looks nothing else may be concluded from it: a disk that fails changes none.
    """
    facts = Path(path).stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino
