"""Files that are either whole or absent."""

__all__ = ["atomic_directory", "atomic_path", "sha256_file", "stamp", "write_json", "write_text"]

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textdiff.console import printable


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to; on success it becomes ``path`` in one step.

    The content is flushed to the disk before the rename, so a crash leaves the old file, the new file or nothing,
    never a part. On an exception the temporary file is removed and the exception goes on.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, because writers such as Pillow and numpy choose the format by it.
    partial = final.with_name(f".{final.stem}.{uuid.uuid4().hex[:8]}.partial{final.suffix}")
    try:
        yield partial
        with partial.open("rb") as f:
            os.fsync(f.fileno())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary directory beside ``path`` to fill; on success it becomes ``path``, replacing what is there.

    No reader sees a part of it under the final name. On an exception it is removed and what was there stays.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.partial")
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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Writes ``text`` in UTF-8, atomically; half a character, which UTF-8 has not, becomes ``\udc80``."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented, ``printable`` JSON, atomically. Non-finite floats are refused, as JSON has none."""
    write_text(path, printable(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), keep="\n") + "\n")


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
