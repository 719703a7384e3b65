"""Means over draws of training images, seeds and test images, and how far they can be trusted."""

__all__ = ["LEVEL", "Estimate", "nested_bootstrap"]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.metrics.intervals import group_numbers, percentile_interval

LEVEL = 0.95
_BATCH = 1 << 22  # numbers held at once: 32 MB, whatever the number of images


class Estimate(NamedTuple):
    """A mean over runs and images with its confidence interval."""

    mean: float
    low: float | None
    """Lower end, ``None`` where nothing can be resampled: one run on one image, or on one group of images."""
    high: float | None
    """Upper end, likewise."""
    draws: int
    runs: int
    images: int

    @property
    def verdict(self) -> str:
        """What the interval of a difference says: ``higher``, ``lower``, or that none was seen where it holds zero.

        With one draw of training images, or one run, it adds that it holds for these only. Without an interval nothing
        could have been seen.
        """
        if self.low is None or self.high is None:
            return f"{self.alone} tells nothing"
        if self.low <= 0 <= self.high:
            return "no difference seen"
        only = "" if self.draws > 1 else " for this draw" if self.runs > 1 else " in this run"
        return ("higher" if self.mean > 0 else "lower") + only

    @property
    def alone(self) -> str:
        """What it is of, where it has no interval, in words."""
        return "one image" if self.images == 1 else "one group"


def nested_bootstrap(
    draws: Sequence[NDArray[np.float64]],
    *,
    groups: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 10_000,
    level: float = LEVEL,
) -> Estimate:
    """The mean over draws of the mean over seeds of the mean over images, with a percentile bootstrap interval.

    A replicate takes draws with replacement, within each of them its seeds with replacement, and one set of images
    with replacement for all of them, because all runs are scored on the same images. Images of one group, such as a
    patient's, are taken together, as in ``bootstrap_mean``. Of D draws D - 1 are taken: with
    so few of them, taking D would make the variance between draws too small by the factor (D - 1) / D (Rao and Wu,
    J. Am. Stat. Assoc. 83, 1988, section 2.2). With one draw and one seed it is the plain bootstrap over images.

    For a difference between two methods, give the differences image by image: runs of one draw and seed are pairs.

    Args:
        draws: for every draw of training images an array (seeds, images); the numbers of seeds may differ.
        groups: (images,) names, or nothing; an image whose name is empty is a group by itself.
        seed: of the resampling: the same values and seed give the same interval.
        resamples: number of bootstrap samples.
        level: confidence level between 0 and 1.

    Raises:
        ValueError: there is nothing to average, the numbers of images or of their groups differ, or a value is not
            finite.
    """
    values = [np.asarray(draw, dtype=np.float64) for draw in draws]
    if not values or any(draw.ndim != 2 or not draw.size or draw.shape[1] != values[0].shape[1] for draw in values):
        raise ValueError(f"shapes {[draw.shape for draw in values]}: expected (seeds, images) for every draw")
    runs = np.concatenate(values)  # (runs, n)
    if not np.isfinite(runs).all():
        raise ValueError("a score is NaN or infinite")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must be between 0 and 1 and resamples {resamples} at least 1")
    D, n = len(values), runs.shape[1]
    mean = float(np.mean([draw.mean() for draw in values]))
    number = group_numbers(groups or [""] * n)
    if number.size != n:
        raise ValueError(f"{number.size} groups for {n} images")
    if len(runs) == 1 and not number.any():
        return Estimate(mean, None, None, D, 1, n)
    rng = np.random.default_rng(seed)
    seeds = np.array([len(draw) for draw in values])
    rows = max(1, _BATCH // max(n, len(runs)))
    means = np.concatenate(
        [_replicates(rng, runs, seeds, number, min(rows, resamples - start)) for start in range(0, resamples, rows)]
    )
    return Estimate(mean, *percentile_interval(means, level), D, len(runs), n)


def _replicates(
    rng: np.random.Generator,
    runs: NDArray[np.float64],
    seeds: NDArray[np.int_],
    number: NDArray[np.int_],
    count: int,
) -> NDArray[np.float64]:
    """``count`` bootstrap means of ``runs`` (runs, images), whose draws have ``seeds`` runs each, in this order.

    ``number`` (images,) is the group of each image.
    """
    D, G = len(seeds), int(number.max()) + 1
    taken = max(1, D - 1)
    first = np.cumsum(seeds) - seeds
    chosen = rng.integers(D, size=(count, taken))
    weights = np.zeros((count, len(runs)))
    replicate = np.arange(count)
    for k in range(taken):
        size = seeds[chosen[:, k]]
        for s in range(seeds.max()):
            # A draw with fewer seeds than others takes part in fewer rounds, with more weight in each.
            active = s < size
            run = first[chosen[:, k]] + np.floor(rng.random(count) * size).astype(np.int_)
            np.add.at(weights, (replicate[active], run[active]), 1 / (taken * size[active]))
    images = rng.multinomial(G, np.full(G, 1 / G), size=count)[:, number]
    means: NDArray[np.float64] = ((weights @ runs) * images).sum(axis=1) / images.sum(axis=1)
    return means
