"""Which images to annotate first, before there is a run: a few that stand for all."""

__all__ = ["most_different"]

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.errors import UserError

_MOST = 512
"""Images that are looked at, at most: evenly chosen, they show what there is."""
_TILES = 8
"""Tiles of an image that are read, at most."""


def most_different(cache: FeatureCache, count: int) -> list[str]:
    """The ids of ``count`` images without a mask, the most typical first, then each as far from those before as can be.

    An image is described by the mean and the standard deviation of each channel, at the step with the least noise.
    Choosing the farthest from those chosen covers the images to within twice the least distance that can be had:
    Gonzalez, Clustering to minimize the maximum intercluster distance, 1985.

    Raises:
        UserError: no image without a mask is in the cache.
    """
    done = cache.done()
    rows: dict[str, list[int]] = {}
    for row, entry in enumerate(cache.rows):
        if entry.view == 0 and not entry.has_mask and done[row]:
            rows.setdefault(entry.id, []).append(row)
    if not rows:
        raise UserError(f"{cache.path}: holds no image without a mask, so there is none to choose")
    names = sorted(rows)
    names = [names[index] for index in np.linspace(0, len(names) - 1, min(len(names), _MOST)).round().astype(int)]
    seen = np.stack([np.mean([_described(cache, row) for row in rows[name][:_TILES]], axis=0) for name in names])
    spread = seen.std(0)
    seen = (seen - seen.mean(0)) / np.where(spread > 0, spread, 1)
    chosen = [int(np.square(seen).sum(1).argmin())]
    far = np.full(len(names), np.inf)
    while len(chosen) < min(count, len(names)):
        far = np.minimum(far, np.square(seen - seen[chosen[-1]]).sum(1))
        far[chosen] = -1  # of images that are all the same, each is named once
        chosen.append(int(far.argmax()))
    return [names[index] for index in chosen]


def _described(cache: FeatureCache, row: int) -> NDArray[np.float64]:
    step = [min(cache.steps)]
    levels = [cache.features(row, block, None, step)[0].astype(np.float64) for block in cache.blocks]
    return np.concatenate([statistic for level in levels for statistic in (level.mean((1, 2)), level.std((1, 2)))])
