"""What the colours of an image tell: whether it is grey or a stained section, and where the haematoxylin is."""

__all__ = ["GREY", "Kind", "haematoxylin", "kind_of", "spread"]

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["grey", "H&E", "colour"]
GREY = 4.0
"""The mean ``spread`` below which an image is grey: compression leaves one or two."""
_GLASS = 220
"""The level of its darkest channel from which on a pixel is glass, or paper."""
_AT_ONCE = 1 << 17
"""Pixels that are taken apart at once: the logarithms take ten times the memory of the pixels."""


def kind_of(image: NDArray[np.uint8]) -> Kind:
    """Whether an image (H, W, 3) is grey, as a radiograph, has the colours of H&E, or others.

    Both stains let blue and red pass and hold green back, which makes it the darkest channel of a stained section. That
    is a guess by the mean colour, for choosing defaults: it tells sections from photographs, not from purple flowers.
    """
    levels, count = spread(image)
    if not count:
        levels, count = int(np.ptp(image, axis=-1).sum(dtype=np.int64)), image[..., 0].size
    if levels < GREY * count:
        return "grey"
    red, green, blue = image.reshape(-1, 3).mean(0)
    return "H&E" if green < min(red, blue) else "colour"


def spread(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """The levels between the brightest and the darkest channel of pixels (..., 3), added up, and of how many.

    Glass, which is all but white, is left out: a few cells on it are no grey image.
    """
    red, green, blue = np.moveaxis(pixels, -1, 0)
    low = np.minimum(np.minimum(red, green), blue)
    levels: NDArray[np.uint8] = np.maximum(np.maximum(red, green), blue) - low
    seen = low < _GLASS
    return int(levels.sum(dtype=np.int64, where=seen)), int(seen.sum())


def haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much haematoxylin each RGB pixel (N, 3) holds, as ``skimage.color.rgb2hed`` tells it: (N,), 0 for white.

    Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001. The stains' colours are
    those of that paper and are not fitted to the image, so values compare within one laboratory and scanner.
    """
    from skimage.color import rgb2hed

    found = np.empty(len(pixels))
    for start in range(0, len(pixels), _AT_ONCE):
        part: NDArray[Any] = rgb2hed(pixels[start : start + _AT_ONCE])
        found[start : start + _AT_ONCE] = part[:, 0]
    return found
