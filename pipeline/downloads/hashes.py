"""Hashes of large files, noted beside them so that they are computed once."""

__all__ = ["noted_sha256", "remembered_sha256"]

import contextlib
from pathlib import Path

from textdiff import console
from textdiff.files import sha256_file, write_text

_LARGE = 1 << 26  # bytes; hashing fewer takes less than a fifth of a second and needs no note


def remembered_sha256(path: Path) -> str:
    """The SHA-256 of a file, from the note beside it where the file has kept its size and modification time.

    The note ``<path>.sha256`` is written for large files only, in the form that ``sha256sum --check`` reads.
    """
    noted = noted_sha256(path)
    if noted is not None:
        return noted
    stamp = _stamp(path)  # taken before reading, so that a change meanwhile makes the note stale
    if path.stat().st_size < _LARGE:
        return sha256_file(path)
    with console.Progress(path.stat().st_size, f"hash {path.name}", "bytes") as progress:
        found = sha256_file(path, progress.advance)
    note = _note(path)
    if not note.exists() or note.read_bytes().startswith(b"# textdiff "):  # somebody else's note is theirs
        with contextlib.suppress(OSError):  # a directory that cannot be written to only costs time
            write_text(note, f"{stamp}\n{found}  {path.name}\n")
    return found


def noted_sha256(path: Path) -> str | None:
    """The hash in the note beside a file, or ``None`` without a note or if the file was changed since."""
    try:
        stamp, line = _note(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return line.split()[0] if stamp == _stamp(path) and line.split() else None


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _stamp(path: Path) -> str:
    """What changes when a file is replaced, as a comment line."""
    facts = path.stat()
    return f"# textdiff {facts.st_size} {facts.st_mtime_ns}"
