"""A segmentation drawn on its image."""

__all__ = ["outlined"]

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def outlined(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    colours: Sequence[tuple[int, int, int]],
    regions: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.uint8]:
    """The image with an outline around every region, inside it and in its class's colour.

    Args:
        image: (H, W, 3), RGB.
        labels: (H, W), class numbers, 0 for the background.
        colours: of the classes 1, 2, ..., RGB in 0..255.
        regions: (H, W), numbers of what is outlined, such as objects that touch; the classes themselves by default.

    Returns:
        (H, W, 3) uint8, a copy. The line's width grows with the image: a pixel, and one more for every 400.
    """
    width = 1 + max(image.shape[:2]) // 400
    # A pixel is on the edge if anything that near has another label; beyond the image is no other label.
    window = 2 * width + 1
    regions = labels if regions is None else regions
    lowest, highest = (
        extreme(regions, window, mode="nearest") for extreme in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    edge = (labels > 0) & (lowest != highest)
    picture = image.copy()
    picture[edge] = np.array(colours, np.uint8)[labels[edge] - 1]
    return picture
