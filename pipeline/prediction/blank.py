"""Pictures that hold nothing, such as tiles of empty glass: background, whatever a network would say of them."""

__all__ = ["BLANK_BELOW", "HOLDS_NOTHING", "SQUARE", "blank_limit", "contrast", "is_blank"]

from collections.abc import Iterable
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.images.labels import UNSAID

BLANK_BELOW = 10.0
"""The contrast in 8-bit levels below which a picture is blank; docs/tiles.md has the measurements it was chosen by."""
HOLDS_NOTHING = "holds nothing (docs/tiles.md), so it is background and the network was not asked"
"""What to say of an image all of which is blank: it may be a picture whose numbers were read too small."""
MANY = 2000
"""Rows that are looked at without a word: a few seconds."""
SQUARE = 8
"""Side in pixels of the squares that contrast is taken between."""


def contrast(picture: NDArray[np.uint8]) -> float:
    """By how many levels the brightest and the darkest square of a picture differ, in the channel where it is most.

    The squares of ``SQUARE`` pixels tile the picture; those at its end may be smaller. Their means leave out grain: of
    noise with a deviation of 2 levels, 2 remain. And they do not thin out what is small, as the deviation of the whole
    picture does: a dark disc of 8 pixels in 256x256 adds less than grain to that, but a fifth of its depth or more to
    the contrast.

    Args:
        picture: (H, W, C) uint8.
    """
    starts = [np.arange(0, length, SQUARE) for length in picture.shape[:2]]
    sums = np.add.reduceat(np.add.reduceat(picture, starts[0], 0, np.int64), starts[1], 1)
    rows, columns = (np.diff(start, append=length) for start, length in zip(starts, picture.shape[:2], strict=True))
    means = sums / (rows[:, None] * columns)[..., None]
    return float(np.ptp(means, axis=(0, 1)).max())


def is_blank(picture: NDArray[np.uint8], below: float | None) -> bool:
    """Whether the contrast of a picture (H, W, C) uint8 is less than ``below`` levels; never if that is None."""
    return below is not None and contrast(picture) < below


def blank_limit(cache: FeatureCache, ids: Iterable[str]) -> float | None:
    """The limit for a run that is fitted on the images ``ids``: ``BLANK_BELOW``, or None if it would be wrong there.

    It would if one of their pictures is blank by it and has foreground: then what is looked for has no contrast.
    """
    wanted = set(ids)
    rows = [row for row, entry in enumerate(cache.rows) if entry.id in wanted and entry.view == 0]
    many = len(rows) > MANY
    with console.Progress(len(rows), "contrast", "rows") if many else nullcontext() as progress:
        for row in rows:
            if is_blank(cache.image(row), BLANK_BELOW):
                mask = cache.mask(row)
                if mask is not None and np.any((mask != 0) & (mask != UNSAID)):
                    name = cache.rows[row].id
                    console.info(
                        f"{name}: has foreground where there is no contrast, so no picture will count as blank"
                    )
                    return None
            if progress is not None:
                progress.advance()
    return BLANK_BELOW
