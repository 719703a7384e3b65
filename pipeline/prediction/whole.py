"""From cached rows back to whole images: tiles of one image are stitched, and an image in one row is enlarged."""

__all__ = ["Whole", "panels", "whole_images", "whole_instances"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Item, Row
from textdiff.pipeline.imaging.images import axis_weights
from textdiff.pipeline.imaging.tiles import Grid, stitch
from textdiff.pipeline.predict import enlarge

PANEL_PIXELS = 1000
"""Height and width of a picture in a figure, at most: what is shown of an image cut into tiles is thinned to it."""


@dataclass(frozen=True)
class Whole:
    """The prediction for one image, and the truth.

    ``probability`` is (classes, S, S) float32 at the cache's image size; of tiles it is the stitched one, averaged by
    area. ``labels`` and ``truth`` are (H, W) uint8 at the image's own size, and ``likelihood`` (H, W) float32 is the
    probability of each pixel's label. ``shown``, (h, w) uint8, is the prediction
    at the size of ``panels``.
    """

    row: int
    """The image's first row in the cache."""
    probability: NDArray[np.float32]
    labels: NDArray[np.uint8]
    likelihood: NDArray[np.float32]
    truth: NDArray[np.uint8]
    shown: NDArray[np.uint8]


def whole_images(
    cache: FeatureCache, items: Iterable[Item], predict: Callable[[Item], NDArray[np.float32]]
) -> Iterator[Whole]:
    """Joins rows to images, one at a time.

    Args:
        cache: the rows' cache.
        items: unturned rows that have a mask, in the order of the cache; of every image all its tiles.
        predict: gives the class probabilities (classes, S, S) of a row.
    """
    for _, tiles in groupby(items, lambda item: cache.rows[item.row].id):
        yield _whole(cache, tiles, predict)


def panels(cache: FeatureCache, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a figure shows of the image that ``row`` is the first row of: image (h, w, 3) and truth (h, w), uint8.

    An image in one row is shown at the cache's image size; one in tiles at its own, thinned where it is large.
    """
    entry = cache.rows[row]
    if not entry.tile:
        mask = cache.mask(row)
        assert mask is not None
        return cache.image(row), mask
    rows = [r for r, other in enumerate(cache.rows) if other.id == entry.id and other.view == 0]
    step = _thinning(entry)
    picture = np.empty((-(-entry.height // step), -(-entry.width // step), 3), np.uint8)
    for r in rows:
        tile, size = cache.rows[r], cache.image_size
        y, x = (
            np.arange(-(-start // step) * step, min(start + tile.tile, end), step)
            for start, end in ((tile.y, tile.height), (tile.x, tile.width))
        )
        at = np.ix_((y - tile.y) * size // tile.tile, (x - tile.x) * size // tile.tile)
        picture[np.ix_(y // step, x // step)] = cache.image(r)[at]
    return picture, _truth(cache, rows)[::step, ::step]


def whole_instances(cache: FeatureCache, row: int) -> NDArray[Any] | None:
    """The object numbers of the image that ``row`` is the first row of, (H, W) unsigned at its own size.

    None where the cache holds none.
    """
    entry = cache.rows[row]
    whole: NDArray[Any] | None = None
    for r, tile in enumerate(cache.rows):
        if tile.id == entry.id and tile.view == 0 and (piece := cache.instances(r)) is not None:
            whole = np.zeros((entry.height, entry.width), piece.dtype) if whole is None else whole
            whole[tile.y : tile.y + piece.shape[0], tile.x : tile.x + piece.shape[1]] = piece
    return whole


def _whole(cache: FeatureCache, items: Iterator[Item], predict: Callable[[Item], NDArray[np.float32]]) -> Whole:
    """Of the rows of one image."""
    first = next(items)
    entry, size = cache.rows[first.row], cache.image_size
    if not entry.tile:
        probability, truth = predict(first), _truth(cache, [first.row])
        full = enlarge(probability, *truth.shape)
        shown = probability.argmax(0).astype(np.uint8)
        return Whole(first.row, probability, full.argmax(0).astype(np.uint8), full.max(0), truth, shown)
    grid = Grid(entry.height, entry.width, entry.tile, cache.fingerprint["overlap"])
    rows: list[int] = []

    def predicted() -> Iterator[NDArray[np.float32]]:
        for item in chain([first], items):
            rows.append(item.row)
            yield enlarge(predict(item), entry.tile, entry.tile)

    down, across = (axis_weights(length, size, "area") for length in (entry.height, entry.width))
    labels = np.empty((entry.height, entry.width), np.uint8)
    likelihood = np.empty(labels.shape, np.float32)
    reduced: NDArray[Any] | float = 0.0
    for y, band in stitch(grid, predicted()):
        end = y + band.shape[1]
        labels[y:end], likelihood[y:end] = band.argmax(0), band.max(0)
        reduced = reduced + down[:, y:end] @ band @ across.T
    step = _thinning(entry)
    reduced = np.asarray(reduced, np.float32)
    return Whole(first.row, reduced, labels, likelihood, _truth(cache, rows), labels[::step, ::step])


def _truth(cache: FeatureCache, rows: Sequence[int]) -> NDArray[np.uint8]:
    """The mask of the image that these are all unturned rows of, (H, W) uint8 at its own size."""
    entry = cache.rows[rows[0]]
    whole = np.zeros((entry.height, entry.width), np.uint8)
    for row in rows:
        tile, truth = cache.rows[row], cache.truth(row)
        assert truth is not None
        whole[tile.y : tile.y + truth.shape[0], tile.x : tile.x + truth.shape[1]] = truth
    return whole


def _thinning(entry: Row) -> int:
    return -(-max(entry.height, entry.width) // PANEL_PIXELS)
