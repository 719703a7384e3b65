"""Outlines of an image that is too large to be drawn at once: any part of it, as it would be in the whole."""

__all__ = ["DrawnParts"]

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError
from textdiff.images.labels import said_counts
from textdiff.readers.annotations import read_annotations
from textdiff.readers.outlines import Drawn, bounds, draw, drawing_order
from textdiff.readers.sample import Sample

_BLOCK = 2048
_NOWHERE = np.full((2, 2), -1.0)


class DrawnParts:
    """The outlines that are the mask of ``sample``, in an image of ``height`` x ``width`` pixels.

    Raises:
        BadImageError: as ``read_annotations``, or all outlines lie outside the image.
    """

    def __init__(self, sample: Sample, height: int, width: int) -> None:
        assert sample.mask is not None
        self.height, self.width, self._sample, self._path = height, width, sample, sample.mask
        self.found = read_annotations(sample, height, width)
        # The first to hold a pixel keeps it; in a part the order is that of the whole.
        self._order = drawing_order(self.found.drawn, self.found.labels)
        around = [bounds(self.found.drawn[index]) for index in self._order]
        boxes = np.array([_NOWHERE if box is None else box for box in around]).reshape(-1, 2, 2)
        self._low, self._high = boxes[:, 0], boxes[:, 1]
        if len(boxes) and not self._inside(0, 0, height, width).any():
            what = f"has all its outlines outside the image of {width}x{height} pixels"
            raise BadImageError(self._path, what, "is it another image's?")

    def read(self, y: int, x: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
        """Class numbers (height, width) of the part that begins at (y, x), and object numbers or None, as ``draw``."""
        places = [self._order[at] for at in np.flatnonzero(self._inside(y, x, height, width))]
        drawn = [_shifted(self.found.drawn[place], y, x) for place in places]
        labels = [self.found.labels[place] for place in places]
        # Areas that are equal but for their last bits would be in another order after shifting.
        raster = draw(self._path, drawn, labels, self.found.rest, height, width, self._sample.instances, ordered=True)
        if raster.instances is None:
            return raster.labels, None
        return raster.labels, np.array([0, *(place + 1 for place in places)], np.uint32)[raster.instances]

    @cached_property
    def counts(self) -> tuple[tuple[int, ...], int]:
        """The pixels that are said to be background, and of each class; and the largest number of an object."""
        classes = max(2, len(self._sample.classes) + 1)
        counts, largest, seen = np.zeros(classes, np.int64), 0, 0
        for y, x in self._blocks():
            labels, numbers = self.read(y, x, min(_BLOCK, self.height - y), min(_BLOCK, self.width - x))
            counts += said_counts(labels, classes)
            largest, seen = max(largest, 0 if numbers is None else int(numbers.max())), seen + labels.size
        if self.found.rest < classes:
            counts[self.found.rest] += self.height * self.width - seen
        return tuple(counts.tolist()), largest

    def _blocks(self) -> list[tuple[int, int]]:
        """Where there may be something of an object."""
        touched = np.zeros((-(-self.height // _BLOCK), -(-self.width // _BLOCK)), bool)
        for low, high in zip(self._low, self._high, strict=True):
            (left, top), (right, bottom) = (np.maximum(end, 0) // _BLOCK for end in (low, high))
            touched[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
        return [(int(row) * _BLOCK, int(column) * _BLOCK) for row, column in np.argwhere(touched)]

    def _inside(self, y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which objects, in their order, have a box that reaches into a part."""
        reaches = (self._high > (x, y)) & (self._low < (x + width, y + height))
        return reaches[:, 0] & reaches[:, 1]


def _shifted(one: Drawn, y: int, x: int) -> Drawn:
    return replace(
        one,
        polygons=tuple(tuple(ring - (x, y) for ring in rings) for rings in one.polygons),
        strokes=tuple(line - (x, y) for line in one.strokes),
        patches=tuple(patch._replace(top=patch.top - y, left=patch.left - x) for patch in one.patches),
    )
