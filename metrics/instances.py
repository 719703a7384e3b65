"""Class maps -> numbered objects: connected components, or a watershed on the probability where objects touch."""

__all__ = ["METHODS", "components", "find_instances", "watershed_instances"]

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("components", "watershed")
"""How ``find_instances`` tells objects of one class apart."""

# Steps of the relief's logarithm: 32 to a doubling, about 2% each; and what counts as its foot.
_LEVELS, _FLOOR = 32, 0.05


def find_instances(
    labels: NDArray[Any], likelihood: NDArray[np.floating[Any]], method: str = "components", min_area: int = 0
) -> NDArray[np.int32]:
    """The objects in a predicted class map.

    Args:
        labels: (H, W) classes, 0 for the background.
        likelihood: (H, W), the probability of each pixel's class; only the watershed looks at it.
        method: one of ``METHODS``.
        min_area: objects of fewer pixels are left out.

    Returns:
        (H, W) int32, 0 where there is no object, otherwise 1..n in the order of each object's first pixel, row by row.

    Raises:
        ValueError: another method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if method == "components":
        return _numbered(components(labels), min_area)
    objects = np.zeros(labels.shape, np.int32)
    for number in np.unique(labels[labels > 0]):
        found = watershed_instances(likelihood, labels == number)
        objects[found > 0] = found[found > 0] + objects.max()
    return _numbered(objects, min_area)


def components(labels: NDArray[Any]) -> NDArray[np.int32]:
    """The connected components of a class map: pixels of one class that share a side or a corner (8-connectivity).

    Args:
        labels: (H, W) classes, 0 for the background, or bool.

    Returns:
        (H, W) int32, numbered from 1 in the order of their first pixels.
    """
    from skimage.measure import label

    return np.asarray(label(labels, background=0, connectivity=2), dtype=np.int32)


def watershed_instances(
    probability: NDArray[np.floating[Any]], mask: NDArray[np.bool_], *, depth: float = 0.15
) -> NDArray[np.int32]:
    """Splits the components of a mask at necks of their shape and at valleys of the probability.

    The relief is the distance to the edge of the mask times the probability, slightly smoothed: a sure network gives
    plateaus without any peak, which the distance turns into domes, and an unsure one dips between nuclei whose outline
    has no neck. A peak counts if the way from it to a higher one goes down by the share ``depth`` of its height (an
    h-maximum of the logarithm; Soille, Morphological Image Analysis, 2003, section 6.3), so that small and large
    objects are treated alike. Every pixel goes to the peak that the watershed leads it to. The mask does not change,
    and a component without a second peak stays whole.

    Args:
        probability: (H, W) in (0, 1] inside the mask, of the mask's class.
        mask: (H, W), the pixels to divide.
        depth: smallest depth of a valley between two objects, in (0, 1), relative to the lower peak. With 0.15 two
            equal discs come apart when their centres are 1.5 radii apart (1.7 if the radius is below 8 pixels), and an
            ellipse stays whole.

    Returns:
        (H, W) int32, 0 outside the mask, 1..n inside.
    """
    from scipy import ndimage
    from skimage.measure import label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    mask = np.asarray(mask, dtype=bool)
    # The border of the image is no edge of an object: what is cut off there goes on beyond it.
    distance = ndimage.distance_transform_edt(mask) if not mask.all() else np.ones(mask.shape)
    relief = ndimage.gaussian_filter(distance * np.where(mask, probability, 0), 1.0)
    # Whole numbers, so that a plateau is one on every machine.
    height = np.where(mask, np.round(_LEVELS * np.log2(np.maximum(relief, _FLOOR) / _FLOOR)), 0).astype(np.int32) + 1
    step = max(1, round(-_LEVELS * math.log2(1 - depth)))
    objects = components(mask)
    count = int(objects.max())
    # One component at a time: most need no watershed, and none sees more of the image than its box.
    for number, box in enumerate(ndimage.find_objects(objects), start=1):
        inside = objects[box] == number
        terrain = np.where(inside, height[box], 0)
        flooded = reconstruction(np.maximum(terrain - step, 0), terrain).astype(np.int32)
        # Raised by one, what was flooded to nothing is still above what is outside.
        maxima = local_maxima(np.where(inside, flooded + 1, 0), connectivity=2)
        peaks, found = label(maxima, connectivity=2, return_num=True)
        if found > 1:
            parts = watershed(-terrain, peaks, mask=inside, connectivity=2)
            objects[box][inside] = np.where(parts == 1, number, count + parts - 1)[inside]
            count += found - 1
    return objects


def _numbered(objects: NDArray[np.int32], min_area: int) -> NDArray[np.int32]:
    """Objects of at least ``min_area`` pixels, renumbered by their first pixels."""
    numbers, first, areas = np.unique(objects, return_index=True, return_counts=True)
    keep = (numbers > 0) & (areas >= min_area)
    order = np.argsort(first[keep])
    table = np.zeros(int(numbers[-1]) + 1, np.int32)
    table[numbers[keep][order]] = np.arange(1, keep.sum() + 1)
    return table[objects]
