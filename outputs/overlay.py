"""A segmentation drawn on its image, with what is needed to read it: a scale bar, and the names of the classes."""

__all__ = ["annotated", "outlined", "write_overlay"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from textdiff.files import atomic_path
from textdiff.outputs.colours import class_colours
from textdiff.outputs.objects import Segmentation

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_SMALLEST = 96
"""Pixels a side below which words would cover the image."""


def write_overlay(path: Path, segmented: Segmentation) -> None:
    """Writes the image with every object outlined in its class's colour as a PNG of its size, atomically.

    Objects that touch are outlined each. There is a scale bar where the size of a pixel is known, and a legend where
    there are several classes.
    """
    colours = class_colours(len(segmented.class_names))
    drawn = outlined(segmented.image, segmented.labels, colours, segmented.objects)
    with atomic_path(path) as partial:
        Image.fromarray(annotated(drawn, segmented.class_names, segmented.pixel_size)).save(partial)


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


def annotated(
    picture: NDArray[np.uint8], class_names: Sequence[str], pixel_size: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 with a scale bar, if the size of a pixel is given in µm, and a legend of classes."""
    height, width = picture.shape[:2]
    if min(height, width) < _SMALLEST:
        return picture
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    letters = max(10, min(height, width) // 32)
    # Pillow's own font has no µ.
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), letters)
    margin = letters // 2

    def write(x: float, y: float, text: str, anchor: str) -> None:
        draw.text((x, y), text, _WHITE, font, anchor, stroke_width=max(1, letters // 10), stroke_fill=_BLACK)

    if pixel_size is not None:
        length = _round_length(width * pixel_size[0] / 4)
        right, bottom = width - margin, height - margin
        left = right - round(length / pixel_size[0])
        draw.rectangle((left, bottom - letters // 3, right, bottom), _WHITE, _BLACK)
        write((left + right) / 2, bottom - letters // 2, _length_text(length), "ms")
    for line, (name, colour) in enumerate(zip(class_names, class_colours(len(class_names)), strict=True)):
        if len(class_names) > 1:
            top = margin + line * round(1.4 * letters)
            draw.rectangle((margin, top, margin + letters, top + letters), colour, _BLACK)
            write(2 * margin + letters, top + letters / 2, name, "lm")
    return np.asarray(image)


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 ... that is no larger."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * max(step for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))


def _length_text(length: float) -> str:
    factor, unit = next((f, u) for f, u in ((1e4, "cm"), (1e3, "mm"), (1, "µm"), (1e-3, "nm")) if length >= f or f < 1)
    return f"{length / factor:g} {unit}"
