"""Predictions of cached rows put together to images, tiles stitched and all at their own size, beside the truths."""

__all__ = ["PRIMARY", "TRUTHS", "ImagePrediction", "image_instances", "image_predictions", "panels", "truth_scores"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Row
from textdiff.images import formats
from textdiff.images.images import BandedMask, axis_weights, resize_mask
from textdiff.images.labels import UNSAID
from textdiff.images.tiles import Grid, stitch
from textdiff.metrics.pixels import Confusion
from textdiff.pipeline.evaluation.class_scores import Scores, class_confusions, class_scores, scores_of_counts
from textdiff.pipeline.predictions import Predicted, enlarge, mean_of_rows, most_likely

TRUTHS = {
    "clean": "mask by area",
    "paper": "paper's mask",
    "original": "original size",
}
"""What a prediction is compared with: DESIGN, section 4."""
PRIMARY = {False: "clean", True: "original"}
"""The truth that comes first and that cases are chosen by, without and with tiles."""
PANEL_PIXELS = 1000
"""Height and width of a picture in a figure, at most: what is shown of an image cut into tiles is thinned to it."""


@dataclass(frozen=True)
class FullSize:
    """The prediction and the truth at the image's own size."""

    labels: NDArray[np.uint8]
    """(H, W), the predicted class."""
    likelihood: NDArray[np.float32]
    """(H, W), the probability of each pixel's label."""
    truth: NDArray[np.uint8]
    """(H, W) class numbers, and ``UNSAID``."""


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image, and the truth. S is the cache's image size."""

    row: int
    """The image's first row in the cache."""
    probability: NDArray[np.float32]
    """(classes, S, S); of tiles it is the stitched one, averaged by area."""
    clean: NDArray[np.uint8]
    """(S, S), the truth resized by area."""
    paper: NDArray[np.uint8]
    """(S, S), the truth resized as in the paper's code."""
    counts: tuple[Confusion, ...]
    """How labels and truth agree, for each class but the background, at the image's own size."""
    preview: NDArray[np.uint8]
    """(h, w), the predicted classes at the size of ``panels``."""
    full_size: FullSize | None
    """None of an image of more than ``MAX_MEGAPIXELS``, of which nothing is held that grows with both its sides."""


def image_predictions(
    cache: FeatureCache,
    predicted: Iterable[Predicted],
    seen: Callable[[int, NDArray[np.float32]], None] | None = None,
) -> Iterator[ImagePrediction]:
    """Joins rows to images, one at a time.

    Args:
        cache: the rows' cache.
        predicted: rows that have a mask, in the order of the cache, and what was predicted of each; of every image all
            its tiles, and of each the unturned view, which may be followed by others: what counts is their mean.
        seen: is shown each unturned row with that mean (classes, S, S), before its image is complete.
    """

    def shown() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for row, probability in mean_of_rows(cache, predicted):
            if seen is not None:
                seen(row, probability)
            yield row, probability

    for _, tiles in groupby(shown(), lambda found: cache.rows[found[0]].id):
        yield _joined(cache, tiles)


def truth_scores(image: ImagePrediction, cache: FeatureCache) -> Scores:
    """``class_scores`` of an image of ``cache`` under each of ``TRUTHS``.

    Where masks may be sparse, ``said_<truth>`` is the number of pixels that count, and ``pixels_<truth>`` that of all.
    """
    predicted, classes, entry = image.probability.argmax(0), cache.classes, cache.rows[image.row]
    scores = {
        **class_scores(predicted, image.clean, classes, "clean"),
        **class_scores(predicted, image.paper, classes, "paper"),
        **scores_of_counts(image.counts, classes, "original"),
    }
    if cache.sparse:
        for truth, labels in (("clean", image.clean), ("paper", image.paper)):
            scores |= {f"said_{truth}": int(np.count_nonzero(labels != UNSAID)), f"pixels_{truth}": labels.size}
        scores |= {"said_original": sum(image.counts[0]), "pixels_original": entry.height * entry.width}
    return scores


def panels(cache: FeatureCache, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a figure shows of the image that ``row`` is the first row of: image (h, w, 3) and truth (h, w), uint8.

    The truth is ``UNSAID`` where nothing is said.

    An image in one row is shown at the cache's image size; one in tiles at its own, thinned where it is large.
    """
    entry = cache.rows[row]
    if not entry.tile:
        mask = cache.mask(row)
        assert mask is not None
        return cache.image(row), mask
    rows = [r for r, other in enumerate(cache.rows) if other.id == entry.id and other.view == 0]
    step = _thinning(entry)
    picture = np.full((-(-entry.height // step), -(-entry.width // step), 3), 255, np.uint8)
    truth = np.zeros(picture.shape[:2], np.uint8)
    for r in rows:
        tile, size = cache.rows[r], cache.image_size
        y, x = (
            np.arange(-(-start // step) * step, min(start + tile.tile, end), step)
            for start, end in ((tile.y, tile.height), (tile.x, tile.width))
        )
        place, (y_in, x_in) = np.ix_(y // step, x // step), (y - tile.y, x - tile.x)
        picture[place] = cache.image(r)[np.ix_(y_in * size // tile.tile, x_in * size // tile.tile)]
        truth[place] = _truth(cache, r)[np.ix_(y_in, x_in)]
    return picture, truth


def image_instances(cache: FeatureCache, row: int) -> NDArray[Any] | None:
    """The object numbers of the image that ``row`` is the first row of, (H, W) unsigned at its own size.

    None where the cache holds none.
    """
    entry = cache.rows[row]
    numbers: NDArray[Any] | None = None
    for r, tile in enumerate(cache.rows):
        if tile.id == entry.id and tile.view == 0 and (piece := cache.instances(r)) is not None:
            numbers = np.zeros((entry.height, entry.width), piece.dtype) if numbers is None else numbers
            numbers[tile.y : tile.y + piece.shape[0], tile.x : tile.x + piece.shape[1]] = piece
    return numbers


def _joined(cache: FeatureCache, tiles: Iterator[tuple[int, NDArray[np.float32]]]) -> ImagePrediction:
    """Joins the tiles of one image, or takes the only row of it."""
    row, probability = next(tiles)
    if cache.rows[row].tile:
        return _stitched(cache, row, chain([(row, probability)], tiles))
    truth = _truth(cache, row)
    full = enlarge(probability, *truth.shape)
    labels = full.argmax(0).astype(np.uint8)
    classes, size = len(probability), cache.image_size
    return ImagePrediction(
        row,
        probability,
        resize_mask(truth, size, "area", classes),
        resize_mask(truth, size, "bilinear", classes),
        tuple(class_confusions(labels, truth, classes - 1)),
        probability.argmax(0).astype(np.uint8),
        FullSize(labels, full.max(0), truth),
    )


def _stitched(cache: FeatureCache, first: int, tiles: Iterator[tuple[int, NDArray[np.float32]]]) -> ImagePrediction:
    """Joins the tiles of one image: everything is added up as bands of the stitched probabilities come."""
    entry, size, classes = cache.rows[first], cache.image_size, len(cache.classes) + 1
    grid = Grid(entry.height, entry.width, entry.tile, cache.fingerprint["overlap"])
    rows: list[int] = []

    def predicted() -> Iterator[NDArray[np.float32]]:
        for row, probability in tiles:
            rows.append(row)
            yield enlarge(probability, entry.tile, entry.tile)

    down, across = (axis_weights(length, size, "area") for length in (entry.height, entry.width))
    reduced = np.zeros((classes, size, size), np.float32)
    clean, paper = (BandedMask(entry.height, size, rule, classes) for rule in ("area", "bilinear"))
    counts = np.zeros((classes - 1, len(Confusion._fields)), np.int64)
    step = _thinning(entry)
    preview = []
    full_size = None if formats.too_many_pixels(entry.height, entry.width) else _empty(entry)
    # Of a slide tiles without tissue have no row.
    own = takewhile(lambda row: row.id == entry.id, islice(cache.rows, first, None))
    places = [(row.y, row.x) for row in own if row.view == 0]
    for stitched in stitch(grid, predicted(), places):
        y, band = stitched.y, stitched.within(0, entry.width)
        end = y + band.shape[1]
        labels, likelihood = most_likely(band)
        truth = _truth_band(cache, entry, rows, y, band.shape[1])
        rows[:] = [row for row in rows if cache.rows[row].y + entry.tile > end]
        counts += class_confusions(labels, truth, classes - 1)
        clean.add(y, truth)
        paper.add(y, truth)
        touched = np.flatnonzero(down[:, y:end].any(axis=1))
        part = slice(touched[0], touched[-1] + 1)
        reduced[:, part] += down[part, y:end] @ band @ across.T
        preview.append(labels[-y % step :: step, ::step].copy())
        if full_size is not None:
            full_size.labels[y:end], full_size.likelihood[y:end], full_size.truth[y:end] = labels, likelihood, truth
    return ImagePrediction(
        first,
        reduced,
        clean.result(),
        paper.result(),
        tuple(Confusion(*map(int, count)) for count in counts),
        np.concatenate(preview),
        full_size,
    )


def _empty(entry: Row) -> FullSize:
    shape = (entry.height, entry.width)
    return FullSize(np.empty(shape, np.uint8), np.empty(shape, np.float32), np.empty(shape, np.uint8))


def _truth_band(cache: FeatureCache, entry: Row, rows: Sequence[int], y: int, height: int) -> NDArray[np.uint8]:
    """The rows of the mask from ``y`` on, (height, W) uint8, as far as tiles show them; background elsewhere."""
    band = np.full((height, entry.width), UNSAID if cache.sparse else 0, np.uint8)
    for row in rows:
        truth, tile = _truth(cache, row), cache.rows[row]
        part = truth[max(0, y - tile.y) : y + height - tile.y]
        top = max(0, tile.y - y)
        band[top : top + len(part), tile.x : tile.x + truth.shape[1]] = part
    return band


def _truth(cache: FeatureCache, row: int) -> NDArray[np.uint8]:
    """The mask (h, w) uint8 at the original size of what a row shows that has one."""
    truth = cache.truth(row)
    assert truth is not None
    return truth


def _thinning(entry: Row) -> int:
    return -(-max(entry.height, entry.width) // PANEL_PIXELS)
