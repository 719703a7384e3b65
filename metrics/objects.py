"""How well found objects agree with true ones, per image, as pure functions on maps of numbered objects.

Pixels of one number are one object, 0 is the background; which numbers does not matter, but for ties of ``aji``.
Empty images have one stated rule: without true and without found objects an image scores 1 in everything; where only
one of the two has objects it scores 0.
"""

__all__ = ["PanopticQuality", "aji", "panoptic_quality"]

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Objects = NDArray[np.integer[Any]]


class PanopticQuality(NamedTuple):
    """PQ = DQ x SQ, each in [0, 1]."""

    pq: float
    dq: float
    """Detection quality: the F1 score of found objects, matched where their IoU exceeds one half."""
    sq: float
    """Segmentation quality: the mean IoU of the matched pairs; 0 where there is none but there are objects."""


class _Overlaps(NamedTuple):
    """Areas of true objects (t,) and of found ones (p,), ascending by number, and of all overlaps as triples (o,)."""

    true_areas: NDArray[np.int64]
    found_areas: NDArray[np.int64]
    true: NDArray[np.int64]
    found: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """The intersection over union of every overlapping pair, (o,)."""
        union = self.true_areas[self.true] + self.found_areas[self.found] - self.pixels
        quotient: NDArray[np.float64] = self.pixels / union
        return quotient


def aji(prediction: Objects, truth: Objects) -> float:
    """Aggregated Jaccard index, Algorithm 1 of Kumar et al. (2017, https://doi.org/10.1109/TMI.2017.2677499).

    Every true object takes the found object of largest IoU. Their intersections, added up, are divided by their unions,
    added up, with the areas of all found objects that nobody took. As in the paper several true objects may take the
    same found object. Ties, which the paper leaves open: of equal IoU the lowest number is taken, as in the authors'
    code; a true object that nothing overlaps takes nothing and adds its own area to the unions.

    Args:
        prediction: (H, W) integers, not negative.
        truth: (H, W), the same.

    Raises:
        ValueError: other shapes or values.
    """
    overlaps = _overlaps(prediction, truth)
    if not len(overlaps.true_areas) and not len(overlaps.found_areas):
        return 1.0
    # By true object, then falling IoU, then rising number: the first of each true object is the one that it takes.
    order = np.lexsort((overlaps.found, -overlaps.iou, overlaps.true))
    first = np.unique(overlaps.true[order], return_index=True)[1]
    taken = order[first]
    pixels, found = overlaps.pixels[taken], overlaps.found[taken]
    # Every true object adds its own area to the unions, whether it takes something or not.
    unions = overlaps.true_areas.sum() + (overlaps.found_areas[found] - pixels).sum()
    left = overlaps.found_areas.sum() - overlaps.found_areas[np.unique(found)].sum()
    return float(pixels.sum() / (unions + left))


def panoptic_quality(prediction: Objects, truth: Objects) -> PanopticQuality:
    """Panoptic quality of one class, Kirillov et al. (2019, https://arxiv.org/abs/1801.00868), equation 1.

    Pairs match where IoU > 0.5, which leaves each object at most one partner: no ties. Arguments as for ``aji``.
    """
    overlaps = _overlaps(prediction, truth)
    count = len(overlaps.true_areas) + len(overlaps.found_areas)
    if not count:
        return PanopticQuality(1.0, 1.0, 1.0)
    matched = overlaps.iou[overlaps.iou > 0.5]
    dq = 2 * len(matched) / count
    sq = float(matched.mean()) if len(matched) else 0.0
    return PanopticQuality(dq * sq, dq, sq)


def _overlaps(prediction: Objects, truth: Objects) -> _Overlaps:
    found, found_areas = _renumbered("prediction", prediction)
    true, true_areas = _renumbered("truth", truth)
    if found.shape != true.shape or true.ndim != 2:
        raise ValueError(f"prediction {found.shape} and truth {true.shape} must have one shape (H, W)")
    both = (found > 0) & (true > 0)
    width = len(found_areas) + 1
    pairs, pixels = np.unique(true[both] * width + found[both], return_counts=True)
    return _Overlaps(true_areas, found_areas, pairs // width - 1, pairs % width - 1, pixels)


def _renumbered(name: str, objects: Objects) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The map with numbers 1..n in the same order, and the n areas."""
    objects = np.asarray(objects)
    if objects.dtype.kind not in "bui" or (objects.size and objects.min() < 0):
        raise ValueError(f"{name} is not a map of numbered objects: integers from 0 on")
    numbers, index, areas = np.unique(objects, return_inverse=True, return_counts=True)
    background = int(numbers.size > 0 and numbers[0] == 0)
    return index.reshape(objects.shape) + (1 - background), areas[background:]
