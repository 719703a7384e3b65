"""How far the mean over a handful of test images can be trusted."""

__all__ = ["Interval", "bootstrap_mean", "group_numbers", "percentile_interval", "resampled"]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.console import counted

_BATCH = 1 << 22  # indices drawn at once: 32 MB, whatever the number of images


class Interval(NamedTuple):
    """A mean over images with its confidence interval."""

    mean: float
    low: float | None
    """Lower end, ``None`` from a single image, or a single group: one says nothing about how they vary."""
    high: float | None
    """Upper end, likewise."""
    n: int
    """Number of images."""


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """The mean of per-image scores with its percentile bootstrap interval, images being what is resampled.

    Where images have ``groups``, such as patients, these are resampled, each with all its images: images of one patient
    are alike, and resampled one by one they would make the interval too narrow (Davison and Hinkley, Bootstrap Methods
    and their Application, 1997, section 3.8).

    The same values, seed and NumPy give the same interval. It describes the draw of test images, not that of training
    images. With few images percentile intervals are too narrow: measured on 14 skewed scores, nominal 95% intervals
    cover the true mean in 91 of 100 cases. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        values: (n,) finite scores, one per image.
        groups: (n,) names, one per image, or nothing; an image whose name is empty is a group by itself.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        level: confidence level between 0 and 1.

    Raises:
        ValueError: there are no values, one is not finite, there is not a group for each, or an option is out of range.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"values of shape {x.shape}: expected one score per image, (n,) with n of at least 1")
    if not np.isfinite(x).all():
        raise ValueError("a score is NaN or infinite")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must be between 0 and 1 and resamples {resamples} at least 1")
    mean = float(x.mean())
    number = group_numbers(groups or [""] * x.size)
    if number.size != x.size:
        raise ValueError(f"{number.size} groups for {x.size} values")
    count = int(number.max()) + 1
    if count == 1:
        return Interval(mean, None, None, x.size)
    sums, sizes = np.bincount(number, x), np.bincount(number)
    rng = np.random.default_rng(seed)
    rows = max(1, _BATCH // count)
    means = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(count, size=(min(rows, resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return Interval(mean, *percentile_interval(np.concatenate(means), level), x.size)


def group_numbers(groups: Sequence[str]) -> NDArray[np.int_]:
    """For each image the number of its group, from 0 on; one without a name is a group by itself."""
    own: dict[str | int, int] = {}
    return np.array([own.setdefault(name or image, len(own)) for image, name in enumerate(groups)], dtype=np.int_)


def resampled(groups: Sequence[str]) -> str:
    """What a bootstrap takes with replacement, in words: ``images``, or ``the 14 groups of the 19 images``."""
    count = len(set(group_numbers(groups).tolist()))
    return "images" if count == len(groups) else f"the {counted(count, 'group')} of the {counted(len(groups), 'image')}"


def percentile_interval(replicates: np.ndarray, level: float) -> tuple[float, float]:
    """The ends of the interval that holds the middle ``level`` of bootstrap replicates (n,)."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
