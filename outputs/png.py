"""Masks as PNG."""

__all__ = ["FORMAT", "write_png"]

from pathlib import Path

import numpy as np
from PIL import Image

from textdiff.files import atomic_path
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Segmentation


def write_png(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes the mask at the image's size, atomically: 0 and 255 for one class, the class numbers for more.

    With ``numbered`` it is the numbers of objects, in 16 bits.
    """
    if not numbered:
        picture: np.ndarray = segmented.labels * np.uint8(255 if len(segmented.class_names) == 1 else 1)
    else:
        picture = segmented.objects.astype(np.uint16)
    with atomic_path(path) as partial:
        Image.fromarray(picture).save(partial)


FORMAT = Format("PNG", ".png", write_png, side=2**31 - 1, objects=2**16 - 1, single=True)
