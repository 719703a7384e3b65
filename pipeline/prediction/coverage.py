"""Which images to annotate: a few that stand for all, where those that are annotated stand for some already."""

__all__ = ["Cover", "candidate_rows", "cover", "cover_order", "described", "evenly"]

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError, quoted
from textdiff.pipeline.training.labelled import silent_images

_MOST = 512
"""Images without a mask, and with one, that are looked at, at most: evenly chosen, they show what there is."""
_TILES = 8
"""Tiles of an image that are read, at most."""


class Cover(NamedTuple):
    """An image to annotate."""

    id: str
    coverage: float
    """How well all images are stood for once this one and those before it are annotated, in [0, 1]."""


def cover(cache: FeatureCache, count: int | None = None) -> list[Cover]:
    """The first ``count`` images to annotate, all by default; each is the one that most of the others are like.

    Any number of the first is a set to annotate together: an image that is like one before it comes later. Images to
    learn from that have a mask stand for what is like them from the beginning.

    Raises:
        UserError: no image without a mask is in the cache.
    """
    done = cache.done()
    rows: dict[str, list[int]] = {}
    for row in candidate_rows(cache):
        rows.setdefault(cache.rows[row].id, []).append(row)
    if len(rows) > _MOST:
        console.warn(f"{len(rows)} images have no mask; {_MOST} of them, evenly chosen, are looked at")
    labelled: dict[str, list[int]] = {}
    for row, entry in enumerate(cache.rows):
        if entry.view == 0 and entry.split == "train" and entry.id not in rows and done[row]:
            labelled.setdefault(entry.id, []).append(row)
    names, known = evenly(rows), evenly(labelled)
    parts = [rows[name] for name in names] + [labelled[name] for name in known]
    points = np.stack([np.mean([described(cache, row) for row in part[:_TILES]], axis=0) for part in parts])
    order = cover_order(points, range(len(names), len(parts)))
    return [Cover(names[index], coverage) for index, coverage in order[:count]]


def cover_order(points: NDArray[np.float64], known: range) -> list[tuple[int, float]]:
    """All points (n, channels) but those of ``known``, each being the one that raises the coverage the most, with it.

    The coverage is 1 less the mean distance of a point to the nearest one that was chosen or is known, over the largest
    distance there is; channels count alike. To choose the best next point reaches 1 - 1/e of the best set's coverage at
    least: Nemhauser, Wolsey and Fisher 1978, https://doi.org/10.1007/BF01588971, section 4.
    """
    spread = points.std(0)
    scaled = points / np.where(spread > 0, spread, 1)
    apart = cdist(scaled, scaled)
    largest = float(apart.max()) or 1.0
    near = np.full(len(points), largest)
    for index in known:
        near = np.minimum(near, apart[index])
    left = [index for index in range(len(points)) if index not in known]
    found = []
    while left:
        best = left.pop(int(np.minimum(near, apart[left]).sum(1).argmin()))
        near = np.minimum(near, apart[best])
        found.append((best, 1 - float(near.mean()) / largest))
    return found


def described(cache: FeatureCache, row: int) -> NDArray[np.float64]:
    """The mean and the standard deviation of each channel of a row (2 x channels), at the step with the least noise."""
    step = [min(cache.steps)]
    levels = [cache.features(row, block, None, step)[0].astype(np.float64) for block in cache.blocks]
    return np.concatenate([statistic for level in levels for statistic in (level.mean((1, 2)), level.std((1, 2)))])


def candidate_rows(cache: FeatureCache) -> list[int]:
    """The unturned rows of the images without a mask, or with one that says nothing, whatever their split.

    Raises:
        UserError: there is none, or none has been extracted.
    """
    done = cache.done()
    unturned = [row for row, entry in enumerate(cache.rows) if entry.view == 0]
    # A mask that says nothing is a page that was opened and not written on.
    silent = silent_images(cache, (row for row in unturned if done[row]), cache.mask)
    rows = [row for row in unturned if not cache.rows[row].has_mask or cache.rows[row].id in silent]
    lacking = {cache.rows[row].id for row in rows if not done[row]}
    there = [row for row in rows if cache.rows[row].id not in lacking]
    if not rows:
        raise UserError(
            f"{cache.path}: no image is left to annotate, all have a mask; add images to the data set, then "
            f"textdiff extract --cache {quoted(cache.path)} --update"
        )
    if not there:
        raise UserError(f"{cache.path}: no candidate has been extracted yet; run the same `textdiff extract` again")
    if lacking:
        are = console.form(len(lacking), "is", "are")
        console.warn(f"{console.counted(len(lacking), 'candidate')} {are} not extracted yet and not ranked")
    return there


def evenly(names: Iterable[str]) -> list[str]:
    """The names of the images that are looked at: all, or 512 of more, evenly over their order."""
    there = sorted(names)
    return [there[index] for index in np.linspace(0, len(there) - 1, min(len(there), _MOST)).round().astype(int)]
