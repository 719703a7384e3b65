"""How far apart the outlines of two masks are, per image, as pure functions on arrays.

The outline of a mask is its pixels that have a side in common with a pixel outside of it or with the border of the
image. Distances are Euclidean, between pixel centres, in pixels. Empty masks have one stated rule: two empty ones agree
perfectly; where only one is empty the surface Dice is 0 and the distance is the diagonal of the image, which no
distance exceeds, so that every image has a finite score and counts in the mean.
"""

__all__ = ["hd95", "surface_dice"]

import math

import numpy as np
from numpy.typing import NDArray

from textdiff.metrics.pixels import Mask, binary_masks


def hd95(prediction: Mask, truth: Mask) -> float:
    """95th percentile Hausdorff distance in pixels, from 0.

    The larger of the two 95th percentiles: of the distances from the prediction's outline to the truth's, and back
    (Maier-Hein et al., https://doi.org/10.1038/s41592-023-02151-z). Some packages take one percentile over both lists
    together, which is another number. Arguments and errors are as of ``pixels.confusion``.
    """
    distances = _distances(prediction, truth)
    if distances is None:
        return 0.0 if not np.any(prediction) and not np.any(truth) else math.hypot(*np.shape(truth))
    return float(max(np.percentile(side, 95) for side in distances))


def surface_dice(prediction: Mask, truth: Mask, tolerance: float = 2.0) -> float:
    """Normalised surface Dice: the share of both outlines that lies within ``tolerance`` of the other, in [0, 1].

    Nikolov et al. (https://doi.org/10.2196/26151), with outline pixels counted where they weigh lengths of contour.

    Arguments are as of ``pixels.confusion``; ``tolerance`` is in pixels, from 0, as far as two annotators may differ.

    Raises:
        ValueError: as ``pixels.confusion``, or a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance {tolerance} is negative")
    distances = _distances(prediction, truth)
    if distances is None:
        return float(not np.any(prediction) and not np.any(truth))
    within = sum(int(np.count_nonzero(side <= tolerance)) for side in distances)
    return within / sum(side.size for side in distances)


def _distances(prediction: Mask, truth: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """From each outline pixel of one to the other's outline, both ways; None where a mask is empty."""
    from scipy import ndimage

    masks = binary_masks(prediction, truth)
    if not masks[0].any() or not masks[1].any():
        return None
    predicted, true = (mask & ~ndimage.binary_erosion(mask) for mask in masks)
    (box,) = ndimage.find_objects((predicted | true).astype(np.uint8))
    predicted, true = predicted[box], true[box]
    return ndimage.distance_transform_edt(~true)[predicted], ndimage.distance_transform_edt(~predicted)[true]
