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

Mask = NDArray[np.bool_]


def hd95(prediction: Mask, truth: Mask) -> float:
    """95th percentile Hausdorff distance in pixels, from 0.

    The larger of the two 95th percentiles: of the distances from the prediction's outline to the truth's, and back
    (Maier-Hein et al., https://doi.org/10.1038/s41592-023-02151-z). Some packages take one percentile over both lists
    together, which is another number.

    Args:
        prediction: (H, W) bool, or integers 0 and 1.
        truth: (H, W), the same.

    Raises:
        ValueError: other shapes or values.
    """
    distances = _distances(prediction, truth)
    if distances is None:
        return 0.0 if not np.any(prediction) and not np.any(truth) else math.hypot(*np.shape(truth))
    return float(max(np.percentile(side, 95) for side in distances))


def surface_dice(prediction: Mask, truth: Mask, tolerance: float = 2.0) -> float:
    """Normalised surface Dice: the share of both outlines that lies within ``tolerance`` of the other, in [0, 1].

    Nikolov et al. (https://doi.org/10.2196/26151), with outline pixels counted where they weigh lengths of contour.

    Args:
        prediction: (H, W) bool, or integers 0 and 1.
        truth: (H, W), the same.
        tolerance: in pixels, from 0; as far as two annotators may differ.

    Raises:
        ValueError: other shapes or values, or a negative tolerance.
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

    masks = [_outline(name, mask) for name, mask in (("prediction", prediction), ("truth", truth))]
    if masks[0].shape != masks[1].shape:
        raise ValueError(f"prediction {masks[0].shape} and truth {masks[1].shape} must have one shape (H, W)")
    if not masks[0].any() or not masks[1].any():
        return None
    (box,) = ndimage.find_objects((masks[0] | masks[1]).astype(np.uint8))
    predicted, true = masks[0][box], masks[1][box]
    return (
        ndimage.distance_transform_edt(~true)[predicted],
        ndimage.distance_transform_edt(~predicted)[true],
    )


def _outline(name: str, mask: Mask) -> Mask:
    from scipy import ndimage

    values = np.asarray(mask)
    inside = values.astype(np.bool_)
    if values.ndim != 2 or not np.array_equal(values, inside):
        raise ValueError(f"{name} is not a binary mask of shape (H, W)")
    outline: Mask = inside & ~ndimage.binary_erosion(inside)
    return outline
