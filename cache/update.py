"""From the cache that is there to the one that is wanted: which of its rows there are, and how it comes to its place.

A row is known by what determines it. A cache of the samples that are wanted is continued where it is, so all its rows
stay. One of other samples stays in its place too, usable, while the new one grows beside it and takes over its rows as
far as they are wanted; then they are exchanged. Beside ``monuseg.zarr`` the new one is
``.monuseg.update-<digest>.zarr``, with a digest of what it is to hold: the same command finds it again, and one after
yet another change of the samples takes over what this one holds already.
"""

__all__ = ["can_link", "clear_updates", "find_rows", "leftovers", "put_in_place", "restore", "update_path", "updates"]

import glob
import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from textdiff.cache.rows import CacheError
from textdiff.cache.staging import STAGED, locked, staged, staging, sweep
from textdiff.cache.stores import exchange, store_at
from textdiff.places import Location, Url

if TYPE_CHECKING:
    from textdiff.cache.feature_cache import FeatureCache

DIGITS = 16


def find_rows(
    wanted: "FeatureCache", others: Sequence["FeatureCache"], shard: tuple[int, int] = (0, 1)
) -> tuple[dict[int, tuple["FeatureCache", int]], list[int]]:
    """Where the rows are that a cache does not have, by what determines them.

    Args:
        wanted: a cache, or the plan of one.
        others: caches of the same features, of which the first one that has a row counts; none to continue ``wanted``.
        shard: (k, n) is about every n-th row only, from k on.

    Returns:
        By the rows whose activations another cache holds, that cache and the row there; and the rows that are nowhere,
        so that they have to be made. All that are in neither are there.
    """
    places: dict[tuple[object, ...], tuple[FeatureCache, int]] = {}
    for other in others:
        for index in np.flatnonzero(other.done()).tolist():
            places.setdefault(_activations_by(other, index), (other, index))
    keys = {row: _activations_by(wanted, row) for row in wanted.pending() if row % shard[1] == shard[0]}
    return (
        {row: places[key] for row, key in keys.items() if key in places},
        [row for row, key in keys.items() if key not in places],
    )


def _activations_by(cache: "FeatureCache", index: int) -> tuple[object, ...]:
    """What a row's activations depend on beside the fingerprint: neither the id nor the mask.

    On the text only where the fingerprint says that the backbone reads it (``reads_text``), and on the split only where
    colours are varied (``jitter``), which they are in turned views of training images.
    """
    row = cache.rows[index]
    varied = "jitter" in cache.fingerprint and row.view > 0 and row.split == "train"
    read = cache.text_of(row) if cache.fingerprint.get("reads_text") else None
    return row.image_sha256, row.height, row.width, row.tile, row.y, row.x, row.view, varied, read


def update_path(path: Location, fingerprint_hash: str, table_hash: str) -> Location:
    """Where the cache grows that is to replace the one at ``path``."""
    final = path.resolve()
    digest = hashlib.sha256(f"{fingerprint_hash} {table_hash}".encode()).hexdigest()[:DIGITS]
    return final.with_name(_beside(final, f"update-{digest}"))


def updates(path: Location) -> Sequence[Location]:
    """The caches that were begun to replace the one at ``path``, and not finished."""
    final = path.resolve()
    pattern = glob.escape(f".{final.stem}.update-") + "?" * DIGITS + glob.escape(final.suffix)
    if isinstance(final, Url):
        return exchange.updates(final, pattern)
    return sorted(final.parent.glob(pattern))


def leftovers(path: Path) -> list[Path]:
    """What processes that make or replace the cache at ``path`` keep beside it, or left there when they were killed."""
    final = path.resolve()
    kept = [*staged(final.parent, final.name), *staged(final.parent, _beside(final, "update-*"))]
    return kept + [place for place in [final.with_name(_beside(final, "replaced"))] if place.exists()]


def clear_updates(path: Location) -> None:
    """Removes them, and what killed processes left of making them."""
    for place in updates(path):
        store_at(place).clear()
    final = path.resolve()
    if isinstance(final, Path):
        sweep(final.parent, _beside(final, "update-*"))


def restore(path: Location) -> None:
    """Ends what a process killed in ``put_in_place`` left: the old cache goes if the new one is there, else is back."""
    final = path.resolve()
    if isinstance(final, Url):
        return exchange.complete(final, final.with_name(_beside(final, "exchange")))
    replaced = final.with_name(_beside(final, "replaced"))
    if not replaced.exists():
        return
    with locked(final.parent):
        if not final.exists():
            with suppress(FileNotFoundError):
                replaced.rename(final)
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)


def put_in_place(new: Location, path: Location) -> None:
    """Puts the complete cache ``new`` in the place of the one at ``path``, which is removed with all other updates.

    Directories cannot be exchanged in one step: a process killed between two leaves neither in the place, and
    ``restore`` brings the old one back. Of processes that come at the same time, one does it.

    Raises:
        CacheError: it cannot be replaced; it stays as it was.
    """
    final = path.resolve()
    if isinstance(final, Url):
        assert isinstance(new, Url)
        exchange.exchange(new, final, final.with_name(_beside(final, "exchange")))
        return clear_updates(path)
    assert isinstance(new, Path)
    replaced = final.with_name(_beside(final, "replaced"))
    # The last copy of what the new cache holds too must not go before that is on the disk.
    if hasattr(os, "sync"):
        os.sync()
    # Who writes a row to one of them finishes it first.
    with locked(final.parent), locked(final / STAGED), locked(new / STAGED):
        if not new.exists():
            return
        try:
            if final.exists():
                final.rename(replaced)
            new.rename(final)
        except OSError as error:
            if replaced.exists() and not final.exists():
                replaced.rename(final)
            raise CacheError(
                f"{path}: cannot be replaced by the new cache ({error.strerror}), which is complete: {new}; run the "
                "same command again, or move it by hand"
            ) from error
    shutil.rmtree(replaced, ignore_errors=True)
    clear_updates(path)


def can_link(path: Location) -> bool:
    """Whether two caches beside each other can have the same file, so that rows taken over take no room."""
    final = path.resolve()
    if isinstance(final, Url):
        return False
    with staging(final.parent, final.name) as directory:
        try:
            os.link(final / "zarr.json", directory / "zarr.json")
        except OSError:
            return False
    return True


def _beside(final: PurePath, what: str) -> str:
    # The suffix stays last, as what ignores caches goes by it.
    return f".{final.stem}.{what}{final.suffix}"
