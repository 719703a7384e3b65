"""Finding everything in a cache that is not as it was written."""

__all__ = ["Fault", "bad_metadata", "verify_cache", "verify_rows"]

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import zarr
from zarr.storage import MemoryStore

from textdiff import console
from textdiff.cache import chunks, ledger
from textdiff.cache.create import read_table

if TYPE_CHECKING:
    from textdiff.cache.reader import CacheReader

THREADS = 4
_SILENT: dict[str, Any] = {
    "attributes": {},
    "consolidated_metadata": None,
    "dimension_names": None,
    "storage_transformers": [],
}
"""Members of ``zarr.json`` that may be left out, with what they are then."""


class Fault(NamedTuple):
    """One thing that is wrong; the first three are None where it is not a row's."""

    row: int | None
    id: str | None
    view: int | None
    array: str
    what: str

    def __str__(self) -> str:
        where = self.array if self.row is None else f"row {self.row} ({self.id}, view {self.view}): {self.array}"
        return f"{where}: {self.what}"


def verify_cache(path: str | os.PathLike[str], drop: bool = False) -> list[Fault]:
    """Verifies the cache at ``path`` with progress; ``drop`` also forgets what is bad, so that ``extract`` redoes it.

    Raises:
        CacheError: it cannot be opened at all.
    """
    from textdiff.cache.feature_cache import FeatureCache

    cache = FeatureCache.open(path, writable=drop)
    with console.Progress(max(1, int(cache.done().sum())), "verify", "rows") as progress:
        faults = cache.verify(progress.advance)
    bad = sorted({fault.row for fault in faults if fault.row is not None})
    if drop:
        cache.forget(bad)
        for _, key, _ in ledger.bad_texts(cache):
            if key is not None:
                cache.store.delete(key)
    if faults:
        others = sum(fault.row is None for fault in faults)
        what = f"{len(bad)} bad rows" + (f" and {others} faults of what belongs to no row" if others else "")
        what = f"dropped {what};" if drop else f"{what}; --drop forgets them, and"
        console.info(f"{path}: {what} the same textdiff extract makes anew what is bad, and nothing else")
    return faults


def verify_rows(cache: "CacheReader", progress: Callable[[], object] | None = None) -> list[Fault]:
    """See ``FeatureCache.verify``."""

    def check(row: int) -> list[Fault] | None:
        return _row_faults(cache, row)

    faults = [Fault(None, None, None, name, "zarr.json is missing or damaged") for name in bad_metadata(cache)]
    faults += _shared_faults(cache)
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(check, range(len(cache.rows))):
            if found is not None:
                faults += found
                if progress is not None:
                    progress()
    return faults


def bad_metadata(cache: "CacheReader") -> list[str]:
    """The arrays and groups, and ``root``, whose ``zarr.json`` does not say what it has to: other readers go by it."""
    group = zarr.create_group(MemoryStore(), attributes=dict(cache.attributes))
    cache.layout.build(group)
    wanted = [("", group), *sorted(group.members(max_depth=None))]
    bad = [name for name, member in wanted if _said(cache, name) != _stated(member.metadata.to_dict())]
    return [name or "root" for name in bad]


def _row_faults(cache: "CacheReader", row: int) -> list[Fault] | None:
    """None if the row does not exist."""
    entry = cache.rows[row]
    try:
        stored = ledger.read_entry(cache.store, row)
    except chunks.ChunkError as error:
        return [Fault(row, entry.id, entry.view, "ledger", str(error))]
    if stored is None:
        return None
    return [
        Fault(row, entry.id, entry.view, name, what if step is None else f"step {cache.steps[step]}: {what}")
        for name, step, what in ledger.bad_chunks(cache, row, stored)
    ]


def _shared_faults(cache: "CacheReader") -> Iterator[Fault]:
    """What is wrong with the table and the texts."""
    try:
        read_table(cache.path, cache.table_hash)
    except chunks.ChunkError as error:
        yield Fault(None, None, None, "table", str(error))
    for name, _, what in ledger.bad_texts(cache):
        yield Fault(None, None, None, name, what)


def _said(cache: "CacheReader", name: str) -> Any:
    """The metadata of an array or a group; None where it cannot be read."""
    try:
        return _stated(json.loads(cache.store.get(f"{name}/zarr.json".lstrip("/"))))
    except (chunks.ChunkError, ValueError):
        return None


def _stated(metadata: Any) -> Any:
    """Metadata as JSON has them, without what says nothing: releases of Zarr differ in whether they write it."""
    plain = json.loads(json.dumps(metadata))
    if not isinstance(plain, dict):
        return None
    return {name: value for name, value in plain.items() if name not in _SILENT or value != _SILENT[name]}
