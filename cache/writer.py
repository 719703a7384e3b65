"""Writing one row, computed or taken over from another cache: checked, given its checksums, and in the ledger last."""

__all__ = ["checked_pixels", "take_over_row", "write_row"]

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from textdiff.cache import chunks
from textdiff.cache.cast import Cast, cast_pieces
from textdiff.cache.layout import Layout, features_name
from textdiff.cache.ledger import NOT_THEIRS, bad_chunks, entry_key, entry_of, read_entry, row_checksums
from textdiff.cache.rows import Row
from textdiff.cache.stores import Batch

if TYPE_CHECKING:
    from textdiff.cache.reader import CacheReader

_Put = Callable[[Batch, str, int | None, str], bytes]
"""Given a batch, an array's name, the index of the step and a key: adds that chunk, and returns its checksum."""


def write_row(
    cache: "CacheReader", row: int, features: Mapping[int, npt.ArrayLike | Cast], pixels: Mapping[str, np.ndarray]
) -> None:
    """See ``FeatureCache.write``."""
    layout, entry = cache.layout, cache.rows[row]
    grids = _checked_features(layout, features)

    def put(batch: Batch, name: str, step: int | None, key: str) -> bytes:
        if step is None:
            return _put_chunk(batch, key, [_pixel_chunk(layout, entry, name, pixels[name])])
        what = f"{cache.path}: {entry}: {layout.named(name, step)}"
        return _put_chunk(batch, key, cast_pieces(grids[name], step, layout.dtype, what))

    _commit_row(cache, row, put)


def take_over_row(
    cache: "CacheReader", row: int, source: "CacheReader", source_row: int, pixels: Mapping[str, np.ndarray]
) -> None:
    """See ``FeatureCache.take_over``."""
    layout, entry = cache.layout, cache.rows[row]
    stored = read_entry(source.store, source_row) or b""
    for name, step, what in bad_chunks(source, source_row, stored):
        raise chunks.ChunkError(f"{source.layout.named(name, step)}: {what}")
    if (checksums := row_checksums(source, source_row, stored)) is None:
        raise chunks.ChunkError(NOT_THEIRS)
    kept = source.layout.chunk(source_row, "image", None)
    if source.store.checked(kept)[: -chunks.CRC_BYTES] != pixels["image"].tobytes():
        raise chunks.ChunkError("the image is read otherwise now")

    def put(batch: Batch, name: str, step: int | None, key: str) -> bytes:
        if step is None and name != "image":
            return _put_chunk(batch, key, [_pixel_chunk(layout, entry, name, pixels[name])])
        batch.copy(key, source.store, source.layout.chunk(source_row, name, step))
        at = source.layout.number(name, step)
        return checksums[at * chunks.CRC_BYTES :][: chunks.CRC_BYTES]

    _commit_row(cache, row, put)


def _commit_row(cache: "CacheReader", row: int, put: _Put) -> None:
    """Has ``put`` add every chunk of a row to a batch, and the ledger's entry last."""
    entry = cache.rows[row]
    with cache.store.replacing(entry_key(row)) as batch:
        checksums = [put(batch, name, step, key) for name, step, key in cache.layout.row_chunks(row, entry)]
        _put_chunk(batch, entry_key(row), [entry_of(cache.fingerprint_hash, entry, checksums)])


def _put_chunk(batch: Batch, key: str, parts: Iterable[np.ndarray | bytes]) -> bytes:
    """Adds a chunk that comes in parts, with its checksum; returns that."""
    hashed = chunks.Hashed(parts)
    batch.put(key, hashed)
    return hashed.checksum


def _pixel_chunk(layout: Layout, entry: Row, name: str, values: np.ndarray) -> np.ndarray | bytes:
    """``image``, ``mask``, ``truth`` or ``instances`` as its chunk holds it."""
    if name not in ("truth", "instances"):
        return np.ascontiguousarray(values)
    padded = np.zeros(layout.truth, values.dtype)
    padded[: entry.truth_shape[0], : entry.truth_shape[1]] = values
    return chunks.compress(padded)


def checked_pixels(
    layout: Layout,
    entry: Row,
    image: np.ndarray,
    mask: np.ndarray | None,
    truth: np.ndarray | None,
    instances: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """What a row has besides features, by the array's name; empty where it has none.

    Raises:
        ValueError: not what the table says, or another shape or dtype than the cache's.
    """
    size = layout.image_size
    pixels = {"image": _checked_pixels("image", image, (size, size, 3), True)}
    pixels["mask"] = _checked_pixels("mask", mask, (size, size), entry.has_mask)
    pixels["truth"] = _checked_pixels("truth", truth, entry.truth_shape, entry.has_truth)
    if layout.instances is not None or instances is not None:
        needed = layout.instances is not None and entry.has_truth
        pixels["instances"] = _checked_instances(layout, instances, entry.truth_shape, needed)
    return pixels


def _checked_features(layout: Layout, features: Mapping[int, npt.ArrayLike | Cast]) -> dict[str, np.ndarray | Cast]:
    if features.keys() != layout.blocks.keys():
        raise ValueError(f"features of blocks {sorted(features)}, and the cache has {sorted(layout.blocks)}")
    grids: dict[str, np.ndarray | Cast] = {}
    for block, shape in layout.blocks.items():
        given = features[block]
        grid = given.values if isinstance(given, Cast) else np.asarray(given)
        if isinstance(given, Cast) and grid.dtype != layout.dtype:
            raise ValueError(f"block {block}: cast to {grid.dtype}, and the cache has {layout.dtype}")
        packed = layout.dtype == "int8" and grid.dtype == np.int8
        wanted = layout.stored(block)[0] if packed else shape
        if grid.shape != (len(layout.steps), *wanted) or not (packed or grid.dtype.kind == "f"):
            raise ValueError(f"block {block}: {grid.dtype} {grid.shape}, needs float {(len(layout.steps), *shape)}")
        grids[features_name(block)] = given if isinstance(given, Cast) else grid
    return grids


def _checked_pixels(
    name: str, values: np.ndarray | None, shape: tuple[int, ...], needed: bool, dtype: npt.DTypeLike = np.uint8
) -> np.ndarray:
    if (values is not None) != needed:
        raise ValueError(f"{name}: {'missing' if needed else 'given'}, and by the table the row has {'one' * needed}")
    if values is None:
        return np.empty(0, np.uint8)
    if values.shape != shape or values.dtype != dtype:
        raise ValueError(f"{name}: {values.dtype} {values.shape}, needs {np.dtype(dtype)} {shape}")
    return values


def _checked_instances(layout: Layout, values: np.ndarray | None, shape: tuple[int, ...], needed: bool) -> np.ndarray:
    """The object numbers in the cache's type."""
    if values is not None and values.dtype.kind == "u":
        # Unlike uint8 pixels they come from files of any width; the cache's is chosen to hold the largest.
        dtype = np.dtype(layout.instances).newbyteorder("<")
        if values.size and int(values.max()) > np.iinfo(dtype).max:
            raise ValueError(f"instances: the number {values.max()} does not fit {layout.instances}")
        return _checked_pixels("instances", values.astype(dtype), shape, needed, dtype)
    return _checked_pixels("instances", values, shape, needed)
