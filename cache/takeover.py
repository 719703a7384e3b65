"""Rows of one cache taken over into another: their activations as they are, their masks anew."""

__all__ = ["find_rows", "take_row"]

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdiff.cache import chunks
from textdiff.cache.ledger import entry_of, read_entry
from textdiff.cache.rows import Row
from textdiff.cache.writer import checked_pixels, commit_row, pixel_chunk, put_chunk

if TYPE_CHECKING:
    from textdiff.cache.feature_cache import FeatureCache

_Kept = Mapping[tuple[str, int | None], tuple[Path, bytes]]


def find_rows(rows: Sequence[Row], sources: Sequence["FeatureCache"]) -> dict[int, tuple["FeatureCache", int]]:
    """For the rows whose activations one of the caches holds, by their indices: that cache, and the row there.

    Activations depend on the image, the part and the view of it that a row shows, and on the fingerprint; neither on
    the id, nor on the mask and the text. On the split only as colours are varied in views of training images. Nothing
    is taken over where the fingerprint says that the backbone read the texts.

    Args:
        rows: of the new sample table.
        sources: caches of one fingerprint; the first one that has a row is named.
    """
    if any("reads_text" in source.fingerprint for source in sources):
        return {}
    jittered = any("jitter" in source.fingerprint for source in sources)
    places: dict[tuple[object, ...], tuple[FeatureCache, int]] = {}
    for source in sources:
        for index in np.flatnonzero(source.done()).tolist():
            places.setdefault(_shown(source.rows[index], jittered), (source, index))
    wanted = [_shown(row, jittered) for row in rows]
    return {index: places[shown] for index, shown in enumerate(wanted) if shown in places}


def _shown(row: Row, jittered: bool) -> tuple[object, ...]:
    varied = jittered and row.view > 0 and row.split == "train"
    return row.image_sha256, row.view, varied, row.tile, row.y, row.x, row.height, row.width


def take_row(
    cache: "FeatureCache",
    row: int,
    source: "FeatureCache",
    source_row: int,
    image: np.ndarray,
    mask: np.ndarray | None,
    truth: np.ndarray | None,
    instances: np.ndarray | None,
) -> None:
    """See ``FeatureCache.take_over``."""
    layout, entry = cache.layout, cache.rows[row]
    pixels = checked_pixels(layout, entry, image, mask, truth, instances)
    kept = _sound_chunks(source, source_row)
    if kept["image", None][1][: -chunks.CRC_BYTES] != np.ascontiguousarray(image).tobytes():
        raise chunks.ChunkError("the image is read otherwise now")

    def put(name: str, step: int | None, file: Path) -> bytes:
        if (name, step) not in kept:
            return put_chunk(file, pixel_chunk(layout, entry, name, pixels[name]))
        origin, data = kept[name, step]
        try:
            # Chunks are replaced and never changed, so both caches can have the same file: it takes no room.
            os.link(origin, file)
        except OSError:
            chunks.write(file, [data])
        return data[-chunks.CRC_BYTES :]

    commit_row(cache, row, put)


def _sound_chunks(source: "FeatureCache", row: int) -> _Kept:
    """The file and the bytes of the features' chunks and of the image's, once the whole row has been found right.

    Raises:
        ChunkError: the row does not exist, or is not as it was written.
    """
    checksums, kept = [], {}
    for name, step, file in source.layout.row_chunks(source.path, row, source.rows[row]):
        try:
            data = chunks.checked(file)
        except chunks.ChunkError as error:
            raise chunks.ChunkError(f"{source.layout.named(name, step)}: {error}") from error
        checksums.append(data[-chunks.CRC_BYTES :])
        if step is not None or name == "image":
            kept[name, step] = (file, data)
    wanted = entry_of(source.fingerprint_hash, source.rows[row], checksums)
    if read_entry(source.path / "ledger" / f"c.{row}.0") != wanted:
        raise chunks.ChunkError("the chunks are not those that were written")
    return kept
