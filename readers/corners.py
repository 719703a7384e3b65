"""One ring, line or box of an annotation in the pixels of an image: what it holds, and what it costs to fill.

A pixel is inside if its centre is, half a pixel right of and below its corner, by the even-odd rule; the upper left
corner of the image is (0, 0). So polygons along the edges of pixels hold exactly the pixels they go around. A line or
a point encloses nothing, but can be meant as a stroke of a pen: that holds the pixels whose centres it comes near.
"""

__all__ = [
    "PEN",
    "Box",
    "Corners",
    "as_corners",
    "box_of",
    "check_work",
    "ellipse",
    "inside",
    "length_of",
    "shared",
    "signed_area",
    "stroked",
]

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError

Corners = NDArray[np.float64]
"""(n, 2): the corners (x, y) of a polygon in pixels, the upper left corner of the image at (0, 0)."""
Box = tuple[slice, ...]
"""Rows and columns."""

PEN = 3
"""Width of a stroke, in pixels."""
_MAX_CROSSINGS = 4_000_000
"""The most products of outlines with rows of pixels in one file."""
_MAX_PIXELS = 500_000_000
"""The most pixels that the boxes around all outlines of a file may have together."""


def as_corners(points: Any) -> Corners:
    """Corners (n, 2) from what JSON holds: pairs of numbers, of which a third one (a height) is dropped.

    Raises:
        ValueError: it is anything else, or a number is not finite.
    """
    if not isinstance(points, list):
        raise ValueError("not a list of corners")
    if not points:
        return np.zeros((0, 2))
    corners = np.array(points)
    if corners.ndim != 2 or corners.shape[1] not in (2, 3) or corners.dtype.kind not in "iuf":
        raise ValueError("a corner that is not two numbers")
    corners = corners[:, :2].astype(np.float64)
    if not (np.abs(corners) < 1e9).all():
        raise ValueError("a corner that is not finite")
    return corners


def ellipse(box: Corners) -> Corners:
    """(180, 2) corners on the ellipse in the box between two opposite corners (2, 2)."""
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    corners: Corners = box.mean(0) + np.abs(box[1] - box[0]) / 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return corners


def inside(corners: Corners, within: Box) -> tuple[Box, NDArray[np.bool_], bool]:
    """The box of a polygon within another box, which pixels of it are inside, and whether it goes around some twice.

    Of an outline that crosses itself that is true, or it goes around some pixels one way and around others the other.
    """
    box = top, left = box_of(corners, within)
    rows, columns = top.stop - top.start, left.stop - left.start
    if not rows or not columns:
        return box, np.zeros((rows, columns), bool), False
    start, end = corners - 0.5, np.roll(corners, -1, 0) - 0.5
    # An edge crosses the rows from its upper end, if that is on a centre, to its lower end, if it is below one.
    first, last = (np.ceil(end_of(start[:, 1], end[:, 1])) for end_of in (np.minimum, np.maximum))
    first, last = (ends.clip(top.start, top.stop).astype(np.int64) for ends in (first, last))
    edge = np.repeat(np.arange(len(start)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row - y0) / (y1 - y0) * (x1 - x0)
    column = np.floor(x).clip(left.start - 1, left.stop - 1).astype(np.int64) + 1 - left.start
    # How often the polygon goes around each pixel; where that overflows it is still odd or even.
    turns = np.zeros(rows * (columns + 1), np.int16)
    np.add.at(turns, (row - top.start) * (columns + 1) + column, np.where(y1 > y0, 1, -1).astype(np.int16))
    turns = turns.reshape(rows, columns + 1)
    turns = np.cumsum(turns, 1, np.int16, out=turns)[:, :-1]
    low, high = int(turns.min()), int(turns.max())
    return box, (turns & 1).astype(bool), low < -1 or high > 1 or low < 0 < high


def check_work(path: str | os.PathLike[str], outlines: Sequence[tuple[Corners, Box]]) -> None:
    """Refuses outlines, each with the box that it is filled in, that would take minutes to fill.

    Raises:
        BadImageError: they would.
    """
    crossings = pixels = 0
    for corners, within in outlines:
        rows, columns = box_of(corners, within)
        y = corners[:, 1].clip(rows.start, rows.stop)
        steps = np.abs(np.diff(y, append=y[0]))
        # A hole is filled once for each outline that it lies over, which looks at edges beyond but does no more.
        crossings += int(steps.sum()) + int(np.count_nonzero(steps)) + len(y) // 16
        pixels += (rows.stop - rows.start) * (columns.stop - columns.start)
    if crossings > _MAX_CROSSINGS or pixels > _MAX_PIXELS:
        raise BadImageError(path, f"has {len(outlines)} outlines that are too large together", "split the annotations")


def length_of(line: Corners) -> float:
    """The length of a line through its corners."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def signed_area(corners: Corners) -> float:
    """The area of a polygon by the shoelace formula, negative if it runs the other way."""
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def stroked(line: Corners) -> NDArray[np.int64]:
    """(n, 2) the pixels (row, column), some of them twice, whose centres are within half a pen of a line or point."""
    start, end = (line[:-1], line[1:]) if len(line) > 1 else (line, line)
    steps = np.ceil(np.hypot(*(end - start).T)).astype(np.int64) + 1
    part = np.repeat(np.arange(len(start)), steps)
    share = (np.arange(len(part)) - np.repeat(np.cumsum(steps) - steps, steps)) / np.maximum(steps - 1, 1)[part]
    passed = np.floor(start[part] + share[:, None] * (end - start)[part]).astype(np.int64)
    reach = np.arange(-PEN, PEN + 1)
    around = np.stack(np.meshgrid(reach, reach), -1).reshape(-1, 2)
    pixels, part = (passed[:, None] + around).reshape(-1, 2), np.repeat(part, len(around))
    along, away = (end - start)[part], pixels + 0.5 - start[part]
    square = (along**2).sum(1)
    nearest = ((away * along).sum(1) / np.where(square > 0, square, 1)).clip(0, 1)
    held: NDArray[np.int64] = pixels[np.hypot(*(away - nearest[:, None] * along).T) <= PEN / 2][:, ::-1]
    return held


def shared(one: Box, other: Box) -> tuple[Box, Box]:
    """Where the pixels that two boxes share are in the one, and where in the other."""
    spans = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)]
    shared = [(start, max(start, end)) for start, end in spans]
    there, here = (
        tuple(slice(start - own.start, end - own.start) for (start, end), own in zip(shared, box, strict=True))
        for box in (one, other)
    )
    return there, here


def box_of(corners: Corners, within: Box) -> Box:
    """The pixels around corners, as far as they are in another box."""
    ends = zip(np.floor(corners.min(0))[::-1], np.ceil(corners.max(0))[::-1], within, strict=True)
    return tuple(slice(*(int(min(max(end, part.start), part.stop)) for end in span)) for *span, part in ends)
