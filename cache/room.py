"""Whether the disk can hold what is about to be written."""

__all__ = ["check_room", "tree_nbytes"]

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from textdiff import console
from textdiff.errors import UserError


def check_room(path: Path, rows: int, row_nbytes: int) -> None:
    """Checks, before a cache is made, that its disk has room for so many rows; what it replaces is going to be free.

    Args:
        path: of the cache, which need not be there yet.
        rows: how many are to be written.
        row_nbytes: what each takes.

    Raises:
        UserError: there is less room than that.
    """
    place = path.resolve()
    replaced = tree_nbytes(place) if place.is_dir() else 0
    while not place.exists():
        place = place.parent
    needed, free = rows * row_nbytes, shutil.disk_usage(place).free + replaced
    if needed > free:
        raise UserError(
            f"{path}: the {rows} rows need {console.size(needed)} and the disk has {console.size(free)} free; free "
            "some, choose another --cache, fewer --blocks or --steps. Nothing was written"
        )


def tree_nbytes(directory: Path) -> int:
    """What the files below a directory hold, in bytes."""
    return sum(_sizes(str(directory)))


def _sizes(directory: str) -> Iterator[int]:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(entry.path)
        else:
            yield entry.stat().st_size
