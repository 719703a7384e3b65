"""Finding everything in a cache that is not as it was written."""

__all__ = ["Fault", "bad_metadata", "count", "find_faults", "metadata", "row_faults", "verify_cache", "verify_rows"]

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import zarr
from zarr.storage import MemoryStore

from textdiff import console
from textdiff.cache import chunks, ledger
from textdiff.cache.create import read_table
from textdiff.errors import quoted

if TYPE_CHECKING:
    from textdiff.cache.feature_cache import FeatureCache
    from textdiff.cache.reader import CacheReader

LEAST_THREADS = 4
"""Disks and networks answer several questions at once, however few cores there are."""
AHEAD = 4
"""Rows a thread that are asked for and not yet taken, so that ten million of them are no list of futures."""
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


def verify_cache(path: str | os.PathLike[str]) -> list[Fault]:
    """Verifies the cache at ``path`` with progress, and says what puts right what is wrong.

    Raises:
        CacheError: it cannot be opened at all.
    """
    from textdiff.cache.feature_cache import FeatureCache

    cache = FeatureCache.open(path)
    faults = find_faults(cache)
    if faults:
        console.info(f"{path}: {count(faults)}; textdiff cache repair {quoted(path)} puts it right")
    else:
        made = len(cache.rows) - len(cache.pending())
        console.info(
            f"{path}: {console.some(made, len(cache.rows), 'row', 'is', 'are')} there, and what is there is sound"
        )
    return faults


def find_faults(cache: "FeatureCache") -> list[Fault]:
    """Verifies an open cache with progress."""
    entries = len([key for key in cache.store.list("ledger") if key.startswith("ledger/c.")])
    with console.Progress(max(1, entries), "verify", "rows") as progress:
        return cache.verify(progress.advance)


def count(faults: Sequence[Fault]) -> str:
    """How much is wrong, in words."""
    bad = len({fault.row for fault in faults if fault.row is not None})
    others = sum(fault.row is None for fault in faults)
    said = console.counted(bad, "bad row")
    return said + (f" and {console.counted(others, 'fault')} of what belongs to no row" if others else "")


def verify_rows(cache: "CacheReader", progress: Callable[[], object] | None = None) -> list[Fault]:
    """See ``FeatureCache.verify``."""
    faults = [Fault(None, None, None, name, "zarr.json is missing or damaged") for name in bad_metadata(cache)]
    faults += _shared_faults(cache)
    # Closed at once when an exception ends the loop; else its threads would go on until the exception is forgotten.
    with closing(_in_order(cache, max(LEAST_THREADS, os.cpu_count() or 1))) as rows:
        for found in rows:
            if found is not None:
                faults += found
                if progress is not None:
                    progress()
    return faults


def _in_order(cache: "CacheReader", threads: int) -> Generator[list[Fault] | None, None, None]:
    """What is wrong with each row, in their order. Who stops early waits for one chunk of each thread and no more."""
    stopped = threading.Event()

    def verified(key: str) -> bytes:
        if stopped.is_set():
            raise chunks.ChunkError("nobody waits for it")
        return cache.store.verified(key)

    with ThreadPoolExecutor(threads) as pool:
        try:
            asked = deque[Future[list[Fault] | None]]()
            for row in range(len(cache.rows)):
                asked.append(pool.submit(row_faults, cache, row, verified))
                if len(asked) == threads * AHEAD:
                    yield asked.popleft().result()
            while asked:
                yield asked.popleft().result()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


def metadata(cache: "CacheReader") -> dict[str, Any]:
    """What the ``zarr.json`` of each group and array has to say, by its name; the root's is empty."""
    group = zarr.create_group(MemoryStore(), attributes=dict(cache.attributes))
    cache.layout.build(group)
    return {name: member.metadata.to_dict() for name, member in [("", group), *sorted(group.members(max_depth=None))]}


def bad_metadata(cache: "CacheReader") -> list[str]:
    """The arrays and groups, and ``root``, whose ``zarr.json`` does not say what it has to: other readers go by it."""
    wanted = metadata(cache).items()
    return [name or "root" for name, stated in wanted if _said(cache, name) != _stated(stated)]


def row_faults(cache: "CacheReader", row: int, verified: Callable[[str], bytes] | None = None) -> list[Fault] | None:
    """What is wrong with a row, each chunk of it read by ``verified``, by its key; None if the row does not exist."""
    entry = cache.rows[row]
    while True:
        try:
            if (stored := ledger.read_entry(cache.store, row)) is None:
                return None
        except chunks.ChunkError as error:
            return [Fault(row, entry.id, entry.view, "ledger", str(error))]
        bad = ledger.bad_chunks(cache, row, stored, verified)
        with suppress(chunks.ChunkError):
            # Another process may have begun to write the row again, or have ended it.
            if bad and ledger.read_entry(cache.store, row) != stored:
                continue
        return [
            Fault(row, entry.id, entry.view, name, what if step is None else f"step {cache.steps[step]}: {what}")
            for name, step, what in bad
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
