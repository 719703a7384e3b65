"""What nothing vouches for, in a cache and beside it: found, and removed if that is wanted.

Who is at work is known by locks, as ``staging.sweep`` knows it: a lock ends with its process, however that ends. Of
other machines, whose locks may not be seen here, the age of what they staged has to tell. In an object store it is
known by leases (``stores.writers``), which end a minute after their process. What is in use, or may be, is left
alone. What is not ours is named and left.
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
from textdiff.cache.staging import STAGED, staged, unused, used_elsewhere
from textdiff.cache.stores.leases import Lease
from textdiff.cache.stores.remote import ROOT, UNFINISHED, RemoteStore
from textdiff.cache.stores.writers import removing
from textdiff.cache.update import leftovers, updates
from textdiff.cache.verify import metadata
from textdiff.errors import UserError
from textdiff.places import Location, Url, located

_STAGED = re.compile(r"\.row\.[0-9a-f]+\.partial")
_FOREIGN = "not of a cache"
_AT_ONCE = 1000
"""Objects that are removed by one request."""
_Found = tuple[str, Location]
"""What something is, and where."""


class Leftover(NamedTuple):
    """Something that nothing vouches for."""

    what: str
    path: str
    """A file or a directory; of chunks of rows, that of the cache."""
    files: int | None
    """None if it is left where it is; 0 of a directory that holds no file."""
    nbytes: int
    """What its removal frees: a file that has another name frees nothing."""

    def __str__(self) -> str:
        size = "left where it is" if self.files is None else _amount([self])
        return f"{self.path}: {self.what}, {size}"


def _amount(found: Sequence[Leftover]) -> str:
    """Files, bytes and empty directories of what is removed, in words."""
    files, empty = sum(one.files or 0 for one in found), sum(one.files == 0 for one in found)
    parts = [f"{console.counted(files, 'file')}, {console.size(sum(one.nbytes for one in found))}"] if files else []
    return " and ".join(parts + ([console.counted(empty, "empty directory", "empty directories")] if empty else []))


_Collected = tuple[list[Leftover], list[_Found]]
"""What nothing vouches for, and what is left where it is."""


def collect(path: str | os.PathLike[str], delete: bool = False) -> list[Leftover]:
    """Finds what nothing vouches for in the cache at ``path`` and beside it, and says how much it is.

    Args:
        path: of the cache.
        delete: remove it.

    Returns:
        It, the chunks row by row; then what is left where it is, because it is in use or not ours.

    Raises:
        CacheError: no cache, or one whose root or table is damaged, so that nobody knows what belongs to it.
        UserError: it is in an object store, and another process took this one for dead; some of it may be removed.
    """
    path = located(path)
    cache = FeatureCache.open(path)
    if isinstance(path, Url):
        result, left = _collect_remote(cache, path, delete)
    else:
        result, left = _collect_local(cache, path, delete)
    if not result:
        console.info(f"{path}: there is nothing to remove")
    else:
        total = _amount(result)
        console.info(f"{path}: removed {total}" if delete else f"{path}: --delete removes {total}")
    return result + [Leftover(what, str(shown), None, 0) for what, shown in left]


def _collect_local(cache: FeatureCache, path: Path, delete: bool) -> _Collected:
    found, left = dict[tuple[str, Path], list[Path]](), list[_Found]()
    with ExitStack() as locks:
        if theirs := _elsewhere(path):
            left += theirs
        elif all(locks.enter_context(unused(directory)) for directory in (path, path / STAGED)):
            cache.check_same()
            for what, shown, place, ours in _inside(cache):
                if ours:
                    found.setdefault((what, shown), []).append(place)
                else:
                    left.append((what, shown))
        else:
            left.append(("in use, or on a file system without locks", path))
        for what, place in _beside(path):
            if theirs := _elsewhere(place):
                left += theirs
            elif locks.enter_context(unused(place)):
                found[what, place] = [place]
            else:
                left.append((f"{what}, in use", place))
        result = [Leftover(what, str(shown), *_weight(places)) for (what, shown), places in found.items()]
        if delete:
            for place in itertools.chain(*found.values()):
                chunks.remove(place)
    return result, left


def _collect_remote(cache: FeatureCache, url: Url, delete: bool) -> _Collected:
    found, left = dict[_Found, list[str]](), list[_Found]()
    store = cache.store
    assert isinstance(store, RemoteStore)
    with removing(store) as lease:
        if lease is not None:
            cache.check_same()
            judge, sizes = _Judge(cache), store.everything()
            for key in sorted(sizes):
                name, _, entry = key.rpartition("/")
                if key == UNFINISHED:
                    found["left by a killed process", url / key] = [key]
                elif name == STAGED and entry.startswith((".lease-", ".writing-", ".removing")):
                    continue  # who works on what, and this process itself
                elif (judged := judge(name, entry) if name in judge.known else (_FOREIGN, False, False)) is not None:
                    what, of_rows, ours = judged
                    if ours:
                        found.setdefault((what, url if of_rows else url / key), []).append(key)
                    else:
                        left.append((what, url / key))
            result = [
                Leftover(what, str(shown), len(keys), sum(sizes[key] for key in keys))
                for (what, shown), keys in found.items()
            ]
            if delete:
                _remove_held(store, lease, [*itertools.chain(*found.values())])
        else:
            result = []
            left.append(("in use", url))
    for what, place in _updates(url):
        assert isinstance(place, Url)
        update = RemoteStore(place)
        with removing(update) as lease:
            if lease is None:
                left.append((f"{what}, in use", place))
                continue
            sizes = {key: size for key, size in update.everything().items() if key != lease.key}
            if sizes:
                result.append(Leftover(what, str(place), len(sizes), sum(sizes.values())))
                if delete:
                    _remove_held(update, lease, sorted(sizes, key=lambda key: key != ROOT))
    return result, left


def _remove_held(store: RemoteStore, lease: Lease, keys: Sequence[str]) -> None:
    """Removes objects as long as the lease is held, so that none of them can be a writer's."""
    for batch in (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE)):
        if not lease.held:
            raise UserError(f"{store.url}: another process writes by now; run textdiff cache gc again later")
        store.remove(batch)


def _inside(cache: FeatureCache) -> Iterator[tuple[str, Path, Path, bool]]:
    """(what it is, where to say that it is, where it is, whether it is ours) of what nothing in a cache vouches for."""
    root, judge = Path(cache.path), _Judge(cache)
    for name in judge.known:
        directory = root / name
        for place in sorted(directory.iterdir()) if directory.is_dir() else ():
            if (judged := judge(name, place.name)) is not None:
                what, of_rows, ours = judged
                yield what, root if of_rows else place, place, ours


class _Judge:
    """Says of an object what it is, unless the cache vouches for it."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache, self._done, self.known = cache, cache.done(), metadata(cache)

    def __call__(self, name: str, entry: str) -> tuple[str, bool, bool] | None:
        """(what it is, whether it is one of a row's many, whether it is ours) of an entry of a group or array."""
        cache = self._cache
        if entry == "zarr.json" or f"{name}/{entry}".lstrip("/") in self.known:
            return None
        if name == STAGED and _STAGED.fullmatch(entry):
            return "left by a killed process", False, True
        if name in ("", "features", "text") or not re.fullmatch(r"c(\.\d{1,18})+", entry):
            return _FOREIGN, False, False
        number = int(entry.split(".")[1])
        if name == "table" or name.startswith("text/"):
            beyond = number >= (1 if name == "table" else len(cache.texts))
            return ("a chunk beyond the array", False, True) if beyond else None
        if number >= len(self._done):
            return "chunks of rows that the table does not have", True, True
        if not self._done[number]:
            return f"row {number} ({cache.rows[number]}), not in the ledger", True, True
        if name != "ledger" and not _has(cache, number, name, f"{name}/{entry}"):
            return "a chunk that its row does not have", False, True
        return None


def _has(cache: FeatureCache, row: int, name: str, key: str) -> bool:
    """Whether a chunk is one of a row's."""
    return any(one == key for array, _, one in cache.layout.row_chunks(row, cache.rows[row]) if array == name)


def _beside(path: Path) -> Iterator[tuple[str, Path]]:
    """What is beside a cache: what was to become one, and updates that were begun."""
    for place in leftovers(path):
        yield "left by a killed process", place
    for what, update in _updates(path):
        assert isinstance(update, Path)
        yield what, update


def _elsewhere(directory: Path) -> list[_Found]:
    """What another machine may be at of a cache, or of a directory that is to become one: locks do not tell of it."""
    found = list[_Found]()
    for place in (directory, *staged(directory / STAGED, "row")):
        if changed := used_elsewhere(place):
            what = f"staged by another machine, which may be at it (changed at {changed}; gc takes it a day later)"
            found.append((what, place))
    return found


def _updates(path: Location) -> Iterator[_Found]:
    for place in updates(path):
        try:
            done = FeatureCache.open(place).done()
            rows = f"{int(done.sum())} of {console.counted(len(done), 'row')}"
            what = f"an update that was begun, {rows}; extract --update goes on with it"
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
