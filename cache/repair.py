"""A damaged cache put right without losing a row: what belongs to no row is known from the plan."""

__all__ = ["repair"]

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from textdiff import console
from textdiff.cache import chunks, ledger
from textdiff.cache.create import fill_cache, read_attributes, read_table
from textdiff.cache.feature_cache import FeatureCache
from textdiff.cache.rows import CacheError, DamagedError
from textdiff.cache.stores import Store
from textdiff.cache.verify import bad_metadata
from textdiff.places import located

SHOWN = 5
_ROOT = Path("zarr.json")

Embed = Callable[[Sequence[str]], tuple[np.ndarray | None, np.ndarray | None]]
"""Makes the embeddings of texts, as ``FeatureCache.create`` takes them."""


def repair(path: str | os.PathLike[str], plan: Mapping[str, Any], embed: Embed) -> None:
    """Makes anew what is damaged or missing of metadata, table and texts, and says so; does nothing where nothing is.

    If anything was, all rows are checked as they are when they are first read, and bad ones leave the ledger.

    Args:
        path: of the cache.
        plan: the arguments of ``FeatureCache.plan`` for the cache that would be made there now.
        embed: is asked only where embeddings are damaged.

    Raises:
        CacheError: no cache; or the root or the table is damaged, and the plan is not the one it was made by.
    """
    path, planned = located(path), FeatureCache.plan(path, **plan)
    try:
        here: FeatureCache | None = FeatureCache.open(path)
    except DamagedError:
        _check_plan(planned)
        here = None
    if here is None:
        texts_bad = True
    else:
        texts_bad = ledger.text_checksums(here) is None
        if not texts_bad and not bad_metadata(here):
            return
        if here.fingerprint_hash != planned.fingerprint_hash:
            return  # other options: refused by whoever asked
    store = planned.store
    with store.locked(), store.workplace() as directory:
        new = directory / "new"
        if texts_bad:
            asked = (
                dict(plan)
                if here is None
                else dict(plan) | {"rows": here.rows, "texts": here.texts, "about": here.about}
            )
            tokens, token_mask = embed(asked["texts"])
            FeatureCache.create(new, **asked, tokens=tokens, token_mask=token_mask)
        elif here is not None:
            fill_cache(new, here.layout, read_table(path, here.table_hash), here.attributes, None, None)
        mended = _put_over(new, store)
    console.warn(
        f"{path}: was damaged, and is repaired: {', '.join(mended[:SHOWN])}" + (", ..." * (len(mended) > SHOWN))
    )
    cache = FeatureCache.open(path, writable=True)
    vouched = ledger.vouched_rows(cache)
    if bad := [row for row, sound in vouched.items() if not sound]:
        cache.forget(bad)
        console.warn(f"{path}: {len(bad)} of {len(vouched)} rows lack chunks or have others than their own; made anew")


def _check_plan(planned: FeatureCache) -> None:
    """Checks that a cache without its root or its table was made by this plan: by the other of both, and by its rows.

    Raises:
        CacheError: it was not, as far as can be told.
    """
    what = "zarr.json"
    try:
        attributes = read_attributes(planned.path)
        what = "table/c.0"
        ours = (attributes["fingerprint_hash"], attributes["table_sha256"]) == (
            planned.fingerprint_hash,
            planned.table_hash,
        )
    except DamagedError:
        vouched = ledger.vouched_rows(planned)
        ours = not vouched or any(vouched.values())
        try:
            read_table(planned.path, planned.table_hash)
        except chunks.ChunkError:
            ours = False
    if not ours:
        raise CacheError(
            f"{planned.path}: its {what} is damaged, and it was not made by this very command of these very images, so "
            f"it cannot be repaired by it; repeat the command that made it, restore {what} from a copy, or make all "
            "rows anew with --overwrite"
        )


def _put_over(new: Path, store: Store) -> list[str]:
    """Moves the files of ``new`` to where others are in the store or none, the root last."""
    files = sorted((file.relative_to(new) for file in new.rglob("*") if file.is_file()), key=lambda f: (f == _ROOT, f))
    moved = []
    for file in files:
        key = file.as_posix()
        with suppress(chunks.ChunkError):
            if store.get(key) == (new / file).read_bytes():
                continue
        store.adopt(new / file, key)
        moved.append(key)
    return moved
