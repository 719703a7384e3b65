"""A damaged cache put right without losing a sound row.

With the plan of the cache, as ``extract`` has it, all that belongs to no row is made anew. Without, as ``cache repair``
is, the metadata are: the root says what they have to be. Neither the root nor the table follows from anything else.
"""

__all__ = ["repair", "repair_cache"]

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from textdiff import console
from textdiff.cache import chunks, ledger
from textdiff.cache.create import CachePlan, Contents, fill_cache, read_attributes, read_table
from textdiff.cache.feature_cache import FeatureCache
from textdiff.cache.rows import CacheError, DamagedError
from textdiff.cache.stores import Store
from textdiff.cache.verify import Fault, bad_metadata, count, find_faults, row_faults
from textdiff.errors import few, quoted
from textdiff.places import located

SHOWN = 5
_ROOT = Path("zarr.json")

Embed = Callable[[Sequence[str]], tuple[np.ndarray | None, np.ndarray | None]]
"""Makes the embeddings of texts, as ``FeatureCache.create`` takes them."""


def repair_cache(path: str | os.PathLike[str]) -> list[Fault]:
    """Puts right what can be without the data set, with progress, and says which command does the rest.

    Metadata are made anew. Bad rows leave the ledger, and damaged embeddings go, so that ``extract`` makes them. What
    killed writers left is removed. Sound rows stay, and so do those that another process writes meanwhile.

    Returns:
        What was found, in the order of the rows.

    Raises:
        CacheError: no cache, or one whose root or table is damaged, which nothing but the data set can make anew.
    """
    cache = FeatureCache.open(path, writable=True)
    faults = find_faults(cache)
    if not faults:
        console.info(f"{path}: all is as it was written; there is nothing to repair")
        return faults
    with cache.store.locked():
        cache.check_same()
        if bad_metadata(cache):
            _remake_metadata(cache)
        bad = sorted({fault.row for fault in faults if fault.row is not None})
        dropped = [row for row in bad if row_faults(cache, row)]
        cache.forget(dropped)
        texts = ledger.bad_texts(cache)
        for _, key, _ in texts:
            if key is not None:
                cache.store.delete(key)
    console.info(f"{path}: {count(faults)} found; {_said_of(cache, len(dropped), bool(texts))}")
    return faults


def _said_of(cache: FeatureCache, rows: int, texts: bool) -> str:
    """What was dropped, and how it comes again."""
    what = " and ".join([console.counted(rows, "row")] * (rows > 0) + ["embeddings of texts"] * texts)
    if not what:
        return "all is as it was written again"
    known = "options" in cache.about
    again = f"textdiff extract --cache {quoted(cache.path)}" if known else "the textdiff extract of before"
    return f"dropped {what}; {again} makes them anew, and nothing else"


def repair(path: str | os.PathLike[str], plan: CachePlan, embed: Embed) -> None:
    """Makes anew what is damaged or missing of metadata, table and texts, and says so; does nothing where nothing is.

    If anything was, all rows are checked as they are when they are first read, and bad ones leave the ledger.

    Args:
        path: of the cache.
        plan: of the cache that would be made there now.
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
    texts_bad = here is None or ledger.text_checksums(here) is None
    if here is not None:
        if not texts_bad and not bad_metadata(here):
            return
        if here.fingerprint_hash != planned.fingerprint_hash:
            return  # other options: refused by whoever asked
    store = planned.store
    with store.locked():
        if here is None or texts_bad:
            asked = plan.copy()
            if here is not None:
                asked["rows"], asked["texts"], asked["about"] = here.rows, here.texts, here.about
            tokens, token_mask = embed(asked["texts"])
            with store.workplace() as directory:
                FeatureCache.create(directory / "new", **asked, tokens=tokens, token_mask=token_mask)
                mended = _put_over(directory / "new", store)
        else:
            mended = _remake_metadata(here)
    console.warn(f"{path}: was damaged, and is repaired: {few(mended, SHOWN)}")
    cache = FeatureCache.open(path, writable=True)
    vouched = ledger.vouched_rows(cache)
    if bad := [row for row, sound in vouched.items() if not sound]:
        cache.forget(bad)
        lacking = console.some(len(bad), len(vouched), "row", "lacks", "lack")
        own = console.form(len(bad), "has others than its own", "have others than their own")
        console.warn(f"{path}: {lacking} chunks or {own}; made anew")


def _remake_metadata(cache: FeatureCache) -> list[str]:
    """Puts metadata in their places as the root's attributes say that they are; gives those that were not so."""
    table = read_table(cache.path, cache.table_hash)
    with cache.store.workplace() as directory:
        fill_cache(directory / "new", Contents(cache.layout, table, cache.attributes))
        return _put_over(directory / "new", cache.store)


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
        store.move_in(new / file, key)
        moved.append(key)
    return moved
