"""What nothing vouches for, in a cache and beside it: found, and removed if that is wanted.

Who is at work is known by locks, as ``staging.sweep`` knows it: a lock ends with its process, however that ends. What
is in use, or may be, is left alone. What is not ours is named and left.
"""

__all__ = ["Leftover", "collect"]

import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from textdiff import console
from textdiff.cache import chunks
from textdiff.cache.feature_cache import FeatureCache
from textdiff.cache.rows import CacheError
from textdiff.cache.staging import STAGED, unused
from textdiff.cache.update import leftovers, updates
from textdiff.cache.verify import metadata
from textdiff.errors import UserError
from textdiff.places import Url, located

_STAGED = re.compile(r"\.row\.[0-9a-f]+\.partial")
_Found = tuple[str, Path]
"""What something is, and where."""


class Leftover(NamedTuple):
    """Something that nothing vouches for."""

    what: str
    path: str
    """A file or a directory; of chunks of rows, that of the cache."""
    files: int
    """None of what is left where it is."""
    nbytes: int
    """What its removal frees: a file that has another name frees nothing."""

    def __str__(self) -> str:
        size = f"{self.files} files, {console.size(self.nbytes)}" if self.files else "left where it is"
        return f"{self.path}: {self.what}, {size}"


def collect(path: str | os.PathLike[str], delete: bool = False) -> list[Leftover]:
    """Finds what nothing vouches for in the cache at ``path`` and beside it, and says how much it is.

    Args:
        path: of the cache.
        delete: remove it.

    Returns:
        It, the chunks row by row; then what is left where it is, because it is in use or not ours.

    Raises:
        CacheError: no cache, or one whose root or table is damaged, so that nobody knows what belongs to it.
        UserError: it is in an object store.
    """
    path = located(path)
    if isinstance(path, Url):
        raise UserError(
            f"{path}: in an object store nobody knows which chunks are just being written, so none is removed; what "
            "killed writers left is written again by the next textdiff extract"
        )
    cache = FeatureCache.open(path)
    found, left = dict[_Found, list[Path]](), list[_Found]()
    with ExitStack() as locks:
        if all(locks.enter_context(unused(directory)) for directory in (path, path / STAGED)):
            cache.check_same()
            for what, shown, place, ours in _inside(cache):
                if ours:
                    found.setdefault((what, shown), []).append(place)
                else:
                    left.append((what, shown))
        else:
            left.append(("in use, or on a file system without locks", path))
        for what, place in _beside(path):
            if locks.enter_context(unused(place)):
                found[what, place] = [place]
            else:
                left.append((f"{what}, in use", place))
        result = [Leftover(what, str(shown), *_weight(places)) for (what, shown), places in found.items()]
        if delete:
            for place in itertools.chain(*found.values()):
                chunks.remove(place)
    total = f"{sum(one.files for one in result)} files, {console.size(sum(one.nbytes for one in result))}"
    if not result:
        console.info(f"{path}: there is nothing to remove")
    else:
        console.info(f"{path}: removed {total}" if delete else f"{path}: --delete removes {total}")
    return result + [Leftover(what, str(shown), 0, 0) for what, shown in left]


def _inside(cache: FeatureCache) -> Iterator[tuple[str, Path, Path, bool]]:
    """(what it is, where to say that it is, where it is, whether it is ours) of what nothing in a cache vouches for."""
    root, done, known = Path(cache.path), cache.done(), metadata(cache)
    for name in known:
        directory = root / name
        for place in sorted(directory.iterdir()) if directory.is_dir() else ():
            entry = place.name
            if entry == "zarr.json" or f"{name}/{entry}".lstrip("/") in known:
                continue
            if name == STAGED and _STAGED.fullmatch(entry):
                yield "left by a killed process", place, place, True
                continue
            if name in ("", "features", "text") or not re.fullmatch(r"c(\.\d{1,18})+", entry):
                yield "not of a cache", place, place, False
                continue
            number = int(entry.split(".")[1])
            if name == "table" or name.startswith("text/"):
                if number >= (1 if name == "table" else len(cache.texts)):
                    yield "a chunk beyond the array", place, place, True
            elif number >= len(done):
                yield "chunks of rows that the table does not have", root, place, True
            elif not done[number]:
                yield f"row {number} ({cache.rows[number]}), not in the ledger", root, place, True
            elif name != "ledger" and not _has(cache, number, name, f"{name}/{entry}"):
                yield "a chunk that its row does not have", place, place, True


def _has(cache: FeatureCache, row: int, name: str, key: str) -> bool:
    """Whether a chunk is one of a row's."""
    return any(one == key for array, _, one in cache.layout.row_chunks(row, cache.rows[row]) if array == name)


def _beside(path: Path) -> Iterator[_Found]:
    """What is beside a cache: what was to become one, and updates that were begun."""
    for place in leftovers(path):
        yield "left by a killed process", place
    for place in map(Path, updates(path)):
        try:
            done = FeatureCache.open(place).done()
            what = f"an update that was begun, {int(done.sum())} of {len(done)} rows; extract --update goes on with it"
        except CacheError:
            what = "an update that was begun, damaged"
        yield what, place


def _weight(places: Sequence[Path]) -> tuple[int, int]:
    """Files below these places, and the bytes of those that have no name elsewhere."""
    count, links = 0, dict[tuple[int, int], list[int]]()
    for place in places:
        for file in [place, *(place.rglob("*") if place.is_dir() and not place.is_symlink() else ())]:
            status = file.lstat()
            if not stat.S_ISDIR(status.st_mode):
                count += 1
                links.setdefault((status.st_dev, status.st_ino), [status.st_nlink, status.st_size])[0] -= 1
    return count, sum(size for elsewhere, size in links.values() if elsewhere == 0)
