"""Finding everything in a cache that is not as it was written."""

__all__ = ["Fault", "verify_cache", "verify_rows"]

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
import zarr
from zarr.abc.metadata import Metadata
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import MemoryStore

from textdiff import console
from textdiff.cache import chunks
from textdiff.cache.layout import Layout
from textdiff.cache.ledger import entry_of, read_entry
from textdiff.cache.rows import Row

THREADS = 4


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
    """Verifies the cache at ``path`` with progress; ``drop`` also forgets bad rows, so that ``extract`` redoes them.

    Raises:
        CacheError: it cannot be opened at all.
    """
    from textdiff.cache.feature_cache import FeatureCache

    cache = FeatureCache.open(path, writable=drop)
    with console.Progress(max(1, int(cache.done().sum())), "verify", "rows") as progress:
        faults = cache.verify(progress.advance)
    bad = sorted({fault.row for fault in faults if fault.row is not None})
    if drop and bad:
        cache.forget(bad)
        console.info(f"{path}: dropped {len(bad)} bad rows; run the same textdiff extract again to make them anew")
    elif bad:
        console.info(f"{path}: {len(bad)} bad rows; --drop forgets them, and the same textdiff extract makes them anew")
    if any(fault.row is None for fault in faults):
        console.info(f"{path}: what belongs to no row is mended by textdiff extract --overwrite")
    return faults


def verify_rows(
    path: Path, layout: Layout, rows: Sequence[Row], progress: Callable[[], object] | None = None
) -> list[Fault]:
    """See ``FeatureCache.verify``."""

    def check(row: int) -> list[Fault] | None:
        return _row_faults(path, layout, row, rows[row])

    faults = [*_metadata_faults(path, layout), *_shared_faults(path, layout)]
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(check, range(len(rows))):
            if found is not None:
                faults += found
                if progress is not None:
                    progress()
    return faults


def _row_faults(path: Path, layout: Layout, row: int, entry: Row) -> list[Fault] | None:
    """None if the row does not exist."""
    try:
        stored = read_entry(path / "ledger" / f"c.{row}.0")
    except chunks.ChunkError as error:
        return [Fault(row, entry.id, entry.view, "ledger", str(error))]
    if stored is None:
        return None
    faults, digest = [], xxhash.xxh3_128()
    for name, step, file in layout.row_chunks(path, row, entry):
        try:
            digest.update(chunks.checked(file))
        except chunks.ChunkError as error:
            what = str(error) if step is None else f"step {layout.steps[step]}: {error}"
            faults.append(Fault(row, entry.id, entry.view, name, what))
    if not faults and entry_of(digest) != stored:
        faults.append(
            Fault(row, entry.id, entry.view, "ledger", "the chunks are sound but not those that were written")
        )
    return faults


def _shared_faults(path: Path, layout: Layout) -> Iterator[Fault]:
    """Of the table and the texts."""
    files = [("table", path / "table/c.0")]
    for text in range(0 if layout.tokens is None else layout.tokens[0]):
        files.append((f"text/tokens of text {text}", path / f"text/tokens/c.{text}.0.0"))
        files.append((f"text/mask of text {text}", path / f"text/mask/c.{text}.0"))
    for name, file in files:
        try:
            chunks.checked(file)
        except chunks.ChunkError as error:
            yield Fault(None, None, None, name, str(error))


def _metadata_faults(path: Path, layout: Layout) -> Iterator[Fault]:
    """Of every ``zarr.json`` but the root's, which has a checksum of its own: what other readers go by."""
    group = zarr.create_group(MemoryStore())
    layout.build(group)
    for name, member in sorted(group.members(max_depth=None)):
        try:
            stored = json.loads((path / name / "zarr.json").read_bytes())
            if isinstance(member, zarr.Array):
                # Parsed and written again by this Zarr, since versions differ in what they leave out.
                sound = _plain(ArrayV3Metadata.from_dict(stored)) == _plain(member.metadata)
            else:
                sound = (stored["node_type"], stored["zarr_format"]) == ("group", 3)
        except Exception:  # whatever a parser makes of damaged metadata, it is damaged
            sound = False
        if not sound:
            yield Fault(None, None, None, name, "zarr.json is missing or damaged")


def _plain(metadata: Metadata) -> Any:
    """As JSON has it: there NaN is a name and equal to itself."""
    return json.loads(json.dumps(metadata.to_dict()))
