"""What the colours of an image tell: whether it is grey or a stained section, and where the haematoxylin is."""

__all__ = ["GREY", "Kind", "haematoxylin", "kind_of", "spread"]

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["grey", "H&E", "colour"]
GREY = 4.0
"""The mean ``spread`` below which an image is grey: compression leaves one or two."""
_AT_ONCE = 1 << 17
"""Pixels that are taken apart at once: the logarithms take ten times the memory of the pixels."""


def kind_of(image: NDArray[np.uint8]) -> Kind:
    """Whether an image (H, W, 3) is grey, as a radiograph, has the colours of H&E, or others.

    Both stains let blue and red pass and hold green back, which makes it the darkest channel of a stained section. That
    is a guess by the mean colour, for choosing defaults: it tells sections from photographs, not from purple flowers.
    """
    pixels = image.reshape(-1, 3)
    if spread(image).mean() < GREY:
        return "grey"
    red, green, blue = pixels.mean(0)
    return "H&E" if green < min(red, blue) else "colour"


def spread(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Levels between the brightest and the darkest channel of each pixel of (..., 3), (...)."""
    red, green, blue = np.moveaxis(image, -1, 0)
    levels: NDArray[np.uint8] = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return levels


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
