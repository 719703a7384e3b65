"""How much each of several runs counts: the convex weights of the best Dice on the validation images."""

__all__ = ["chosen_weights", "convex_grid"]

from contextlib import closing
from itertools import combinations, groupby, pairwise
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.metrics.pixels import Confusion
from textdiff.pipeline.evaluation.class_scores import class_confusions, scores_of_counts
from textdiff.pipeline.mixture import Mixture, mixed
from textdiff.pipeline.predictions import cached_predictions, mean_of_views
from textdiff.pipeline.score import scored_rows

STEPS = 10
"""Weights are multiples of one over this, for three runs 66 of them."""
MOST = 500
"""Points of the grid at most: of many runs the steps are wider."""


def convex_grid(count: int) -> list[tuple[float, ...]]:
    """Weights that add up to 1, in even steps: equal ones first, and then those that are nearest to these.

    Args:
        count: of runs, two or more.
    """
    steps = next((steps for steps in range(STEPS, 1, -1) if comb(steps + count - 1, count - 1) <= MOST), 1)
    points = []
    for bars in combinations(range(steps + count - 1), count - 1):
        ends = (-1, *bars, steps + count - 1)
        points.append(tuple(right - left - 1 for left, right in pairwise(ends)))
    # Whole numbers, so that no rounding decides on the order.
    points.sort(key=lambda point: (sum(share**2 for share in point), point))
    equal = (1 / count,) * count
    return [equal, *(tuple(share / steps for share in point) for point in points if len(set(point)) > 1)]


def chosen_weights(fitted: Mixture, cache: FeatureCache) -> tuple[list[float], dict[str, Any]]:
    """The weights on ``convex_grid`` with the best mean Dice over the validation images, and how they were found.

    Of weights that do equally well the first are taken. Dice is that of the mask at the cache's image size, per image;
    of an image in tiles that of all pixels of its tiles, so that those in two tiles count twice.

    Args:
        fitted: the runs.
        cache: the first one's.

    Raises:
        UserError: no validation mask says anything, or another run's cache has not the same images.
    """
    grid, classes = convex_grid(fitted.member_count), cache.classes
    counts: dict[str, NDArray[np.int64]] = {}
    with closing(cached_predictions(fitted, cache, scored_rows(cache, "val"), "weigh", each=True)) as predicted:
        for _, views in groupby(predicted, lambda found: cache.rows[found[0]].key[:-1]):
            pairs = list(views)
            members = mean_of_views((cache.rows[row].view, found) for row, found in pairs)
            entry, mask = cache.rows[pairs[0][0]], cache.mask(pairs[0][0])
            assert mask is not None
            found = [class_confusions(mixed(members, weights).argmax(0), mask, len(classes)) for weights in grid]
            counts[entry.id] = counts.get(entry.id, np.int64(0)) + np.array(found, np.int64)
    ids = sorted(counts)
    dice = [float(np.mean([_dice(counts[name][point], classes) for name in ids])) for point in range(len(grid))]
    best = int(np.argmax(np.round(dice, 9)))
    facts = {"images": len(ids), "ids": ids, "grid": len(grid), "dice": dice[best], "dice_equal": dice[0]}
    return list(grid[best]), facts


def _dice(counts: NDArray[np.int64], classes: list[str] | tuple[str, ...]) -> float:
    """The mean over classes of an image's pixels, counted (classes, 4)."""
    dice = scores_of_counts([Confusion(*map(int, count)) for count in counts], classes, "clean")["dice_clean"]
    assert dice is not None
    return dice
