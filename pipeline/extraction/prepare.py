"""From the sample table to what the UNet sees: a row's image, mask and truth, cut out, turned and resized."""

__all__ = ["Prepared", "preparation"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.pipeline.datasets import Facts
from textdiff.pipeline.imaging import images
from textdiff.pipeline.imaging.colour import jitter_view
from textdiff.pipeline.imaging.tiles import cut
from textdiff.readers.load import load_image, load_mask
from textdiff.readers.parts import read_image_rows, read_mask_rows

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Prepared:
    """A row that is ready for the UNet."""

    row: int
    image: NDArray[np.uint8]
    """RGB (S, S, 3), S the cache's image size."""
    mask: NDArray[np.uint8] | None
    """(S, S) class numbers; None where the image has no mask."""
    truth: NDArray[np.uint8] | None
    """(h, w), the same at the original size; None for turned views, too."""
    instances: NDArray[np.uint32] | None
    """(h, w) object numbers, where they are told apart."""


@dataclass(frozen=True)
class _Shown:
    """The part of an image and of its mask that a row is cut out of: whole, or as many rows as a tile has."""

    first: int
    """The image's row that it starts with."""
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    instances: NDArray[np.uint32] | None


def preparation(
    cache: FeatureCache, facts: Mapping[str, Facts], rule: str, varied: str | None, seed: int
) -> Callable[[int], Prepared]:
    """Gives the function that makes a row of ``cache`` ready, which is to be called from one thread.

    Views and tiles of an image follow one another, so what was decoded last is kept: an image and its mask, or of files
    too large for that the rows that a row of tiles shows.

    Args:
        cache: whose table says what each row is.
        facts: of every sample, by its id.
        rule: how images and masks are brought to the cache's size; see ``resize_image``.
        varied: the modality after which the colours of training images are varied in all views but the first; None
            leaves them.
        seed: of that.
    """
    whole = lru_cache(1)(_whole)
    rows = lru_cache(1)(_rows)

    def prepare(row: int) -> Prepared:
        entry = cache.rows[row]
        fact = facts[entry.id]
        shown = rows(fact, entry.y, min(entry.y + entry.tile, entry.height)) if fact.in_parts else whole(fact)

        def seen(pixels: NDArray[_T]) -> NDArray[_T]:
            piece = cut(pixels, entry.y - shown.first, entry.x, entry.tile) if entry.tile else pixels
            return images.symmetry(piece, entry.view % images.SYMMETRIES)

        size = cache.image_size
        image = images.resize_image(seen(shown.image), size, rule)
        if entry.split == "train":
            image = jitter_view(image, varied, entry.view, entry.image_sha256, seed)
        if shown.labels is None:
            return Prepared(row, image, None, None, None)
        truth = seen(shown.labels)
        mask = images.resize_mask(truth, size, rule, classes=len(cache.classes) + 1)
        if not entry.has_truth:
            return Prepared(row, image, mask, None, None)
        h, w = entry.truth_shape
        objects = None if shown.instances is None else seen(shown.instances)[:h, :w]
        return Prepared(row, image, mask, truth[:h, :w], objects)

    return prepare


def _whole(fact: Facts) -> _Shown:
    sample = fact.sample
    image = load_image(sample.image).pixels
    if sample.mask is None:
        return _Shown(0, image, None, None)
    mask = load_mask(sample, fact.height, fact.width)
    return _Shown(0, image, mask.labels, mask.instances)


def _rows(fact: Facts, first: int, end: int) -> _Shown:
    sample = fact.sample
    assert isinstance(sample.image, Path)
    image = read_image_rows(sample.image, first, end)
    if sample.mask is None:
        return _Shown(first, image, None, None)
    return _Shown(first, image, *read_mask_rows(sample, fact.threshold, first, end))
