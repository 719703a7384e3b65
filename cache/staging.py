"""Directories for what is not finished, the removal of those whose process has died, and locks on directories."""

__all__ = ["STAGED", "locked", "mark_in_use", "staged", "staging", "sweep", "unused", "used_elsewhere"]

import glob
import os
import re
import shutil
import sys
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from textdiff.files import HOST

# Rows are staged inside an array, because who lists the group meanwhile should not come across an unknown directory.
STAGED = "table"
_MARKED = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})[0-9a-f]{32}\.partial")
_RECENT = 24 * 3600
"""Seconds in which another machine may be at what it staged: a row takes minutes, the texts of a new cache hours."""


def sweep(parent: Path, name: str) -> None:
    """Removes the directories of ``staging`` that killed processes of this machine left, and none that is in use.

    Those of other machines stay: on NFS a lock on a directory is seen on its own machine alone.

    Args:
        parent: where they are.
        name: as it was given to ``staging``, with ``*`` for any characters.
    """
    for leftover in _found(parent, name, f"{HOST}[0-9a-f]*"):
        with unused(leftover) as ours:
            if ours:
                shutil.rmtree(leftover, ignore_errors=True)


def staged(parent: Path, name: str) -> list[Path]:
    """The directories of ``staging`` that are there, in use or not; the arguments are those of ``sweep``."""
    return _found(parent, name, "*")


def used_elsewhere(directory: Path) -> str:
    """When another machine changed a directory of ``staging``, if it may be at it still, in local time; else empty."""
    if not (mark := _MARKED.fullmatch(directory.name)) or mark["host"] == HOST:
        return ""
    try:
        changed = directory.stat().st_mtime
    except FileNotFoundError:  # it has just been at it
        changed = time.time()
    return f"{datetime.fromtimestamp(changed):%Y-%m-%d %H:%M}" if time.time() - changed < _RECENT else ""


def _found(parent: Path, name: str, mark: str) -> list[Path]:
    return sorted(parent.glob(f".{glob.escape(name).replace('[*]', '*')}.{mark}.partial"))


@contextmanager
def staging(parent: Path, name: str) -> Iterator[Path]:
    """Gives a fresh directory ``.{name}.{machine, random}.partial`` in ``parent``, removed with its content at the end.

    Its owner holds a lock on it that ends with the process, however it ends: ``sweep`` goes by that.
    """
    lock = None
    while lock is None:
        path = parent / f".{name}.{HOST}{uuid.uuid4().hex}.partial"
        path.mkdir()
        if sys.platform == "win32":
            break
        # Another process may have taken it for a leftover before it was locked; then there is none, and we go again.
        lock = _lock(path, wait=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def locked(directory: Path, *, shared: bool = False) -> Iterator[bool]:
    """Holds a lock on a directory, waiting for it; gives whether the directory is there.

    Where there are no locks (Windows, some network file systems), nothing is waited for.
    """
    lock = _lock(directory, wait=True, shared=shared)
    try:
        yield directory.exists()
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def unused(directory: Path) -> Iterator[bool]:
    """Holds a lock on a directory if nobody else does, and gives whether it is so.

    Where there are no locks it is never so: then nobody knows what is in use.
    """
    lock = _lock(directory, wait=False)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def mark_in_use(directory: Path, owner: object) -> None:
    """Has ``unused`` say no of a directory as long as ``owner`` lives, and not longer than this process."""
    if (lock := _lock(directory, wait=True, shared=True)) is not None:
        weakref.finalize(owner, os.close, lock)


if sys.platform == "win32":

    def _lock(path: Path, *, wait: bool, shared: bool = False) -> int | None:
        return None  # directories cannot be locked, so leftovers stay

else:
    import fcntl

    def _lock(path: Path, *, wait: bool, shared: bool = False) -> int | None:
        """Locks a directory; None if it is gone or, without ``wait``, if it cannot be had."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
            if path.exists():
                return descriptor
        except OSError:
            # Some network file systems have no locks. Without them, nothing can be known to be left over.
            if wait:
                return descriptor
        os.close(descriptor)
        return None
