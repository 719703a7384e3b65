"""Which pixels an outline holds, whatever the tool it was drawn with, and who keeps those that several outlines hold.

A pixel is inside if its centre is, half a pixel right of and below its corner, by the even-odd rule; the upper left
corner of the image is (0, 0). So polygons along the edges of pixels hold exactly the pixels they go around. A line or
a point encloses nothing, but can be meant as a stroke of a pen: that holds the pixels whose centres it comes near.
"""

__all__ = [
    "PEN",
    "Corners",
    "Drawn",
    "Patch",
    "Raster",
    "as_corners",
    "bounds",
    "check_work",
    "draw",
    "drawing_order",
    "ellipse",
    "inside",
]

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError
from textdiff.images.labels import UNSAID

Corners = NDArray[np.float64]
"""(n, 2): the corners (x, y) of a polygon in pixels, the upper left corner of the image at (0, 0)."""

_MAX_CROSSINGS = 4_000_000
"""The most products of outlines with rows of pixels in one file."""
_MAX_PIXELS = 500_000_000
"""The most pixels that the boxes around all outlines of a file may have together."""

PEN = 3
"""Width of a stroke, in pixels."""
_MAX_LENGTH = 1_000_000
"""The greatest length that the strokes of an object may have together, in pixels."""

Box = tuple[slice, ...]
"""Rows and columns."""


class Patch(NamedTuple):
    """An object that was painted and not outlined."""

    top: int
    left: int
    pixels: NDArray[np.bool_]


@dataclass(frozen=True)
class Drawn:
    """One object, of one or several parts."""

    place: str
    """Where it stands in its file, as in ``features[3]``."""
    name: str | None
    """Its class; None without."""
    polygons: tuple[tuple[Corners, ...], ...] = ()
    """Each an outline and its holes."""
    patches: tuple[Patch, ...] = ()
    unsaid: bool = False
    """Whether it says that nothing is known in it."""
    strokes: tuple[Corners, ...] = ()
    """Each a line, or of one corner a point."""


class Raster(NamedTuple):
    """What ``draw`` makes."""

    labels: NDArray[np.uint8]
    """(H, W) class numbers, ``UNSAID`` where nothing is said."""
    instances: NDArray[np.uint32] | None
    """(H, W) objects by their places in the file, from 1; None where they are not told apart."""
    notes: list[str]


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


def inside(corners: Corners, height: int, width: int) -> tuple[Box, NDArray[np.bool_], bool]:
    """The box around a polygon within the image, which pixels of it are inside, and whether it goes around some twice.

    Of an outline that crosses itself that is true, or it goes around some pixels one way and around others the other.
    """
    box = top, left = _box(corners, height, width)
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


def draw(
    path: str | os.PathLike[str],
    drawn: Sequence[Drawn],
    labels: Sequence[int],
    rest: int,
    height: int,
    width: int,
    instances: bool = False,
    ordered: bool = False,
) -> Raster:
    """Paints objects into a map of classes.

    What says nothing keeps its pixels before all others, what says background only those that no other object holds.
    Of the others the first keeps its pixels; if they are of several classes, the smaller one, as what lies in something
    else is smaller.

    Args:
        path: names the file in errors.
        drawn: the objects, in the file's order.
        labels: of each its class number, 0 for the background and ``UNSAID`` where nothing is said.
        rest: the class number of what no object holds.
        height: of the image, in pixels.
        width: the same.
        instances: number the objects.
        ordered: they come in their ``drawing_order``.

    Raises:
        BadImageError: no object is in the image, or they would take minutes.
    """
    check_work(path, [ring for one in drawn for rings in one.polygons for ring in rings], height, width)
    for one in drawn:
        if sum(map(_length, one.strokes)) > _MAX_LENGTH:
            raise BadImageError(path, f"has a line of more than {_MAX_LENGTH} pixels ({one.place})", "cut it")
    claimed = np.full((height, width), -1, np.int16)
    numbers = np.zeros((height, width), np.uint32) if instances else None
    first, count = dict[str, str](), Counter[str]()
    shared = Counter[tuple[str, str]]()
    for index in range(len(drawn)) if ordered else drawing_order(drawn, labels):
        one, label = drawn[index], labels[index]
        box, pixels, where, crossed = _held(one, height, width)
        before = claimed[box]
        free = pixels & (before < 0)
        for what in where | ({"crossed"} if crossed else set()):
            count[what] += 1
            first.setdefault(what, one.place)
        if "outside" not in where and not free.any():
            what = "within" if pixels.any() else "empty"
            count[what] += 1
            first.setdefault(what, one.place)
        if label:
            for other in np.unique(before[pixels & (before > 0)]).tolist():
                if (other != label and UNSAID not in (other, label)) or (instances and other == label):
                    names = sorted((_named(drawn, labels, other), _named(drawn, labels, label)))
                    shared[names[0], names[1]] += int(np.count_nonzero(pixels & (before == other)))
        before[free] = label
        if numbers is not None and label not in (0, UNSAID):
            numbers[box][free] = index + 1
    if drawn and count["outside"] == len(drawn):
        size = f"{width}x{height}"
        raise BadImageError(path, f"has all its outlines outside the image of {size} pixels", "is it another image's?")
    claimed[claimed < 0] = rest
    notes = [
        f"{count[what]} of {len(drawn)} outlines ({first[what]}{'' if count[what] == 1 else ' is the first'}) {said}"
        for what, said in _NOTES.items()
        if count[what]
    ]
    for (one_name, other_name), pixels_shared in shared.items():
        both = f"outlines of {one_name} and of {other_name}" if one_name != other_name else "several outlines"
        notes.append(f"{pixels_shared} pixels lie in {both}: {_KEEPS[_mixed(labels)]} keeps them")
    return Raster(claimed.astype(np.uint8), numbers, notes)


_NOTES = {
    "outside": "lie outside the image (ignored)",
    "beyond": "reach beyond the image (cut off)",
    "empty": "hold no pixel's centre (ignored)",
    "within": "hold no pixel of their own (ignored)",
    "crossed": "cross themselves: what they go around twice is outside",
}
_KEEPS = {False: "the first", True: "the smaller"}


def check_work(path: str | os.PathLike[str], outlines: Sequence[Corners], height: int, width: int) -> None:
    """Refuses outlines that would take minutes to fill.

    Raises:
        BadImageError: they would.
    """
    crossings = pixels = 0
    for corners in outlines:
        if not len(corners):
            continue
        y = corners[:, 1].clip(0, height)
        rows, columns = _box(corners, height, width)
        crossings += int(np.abs(np.diff(y, append=y[0])).sum()) + len(y)
        pixels += (rows.stop - rows.start) * (columns.stop - columns.start)
    if crossings > _MAX_CROSSINGS or pixels > _MAX_PIXELS:
        raise BadImageError(path, f"has {len(outlines)} outlines that are too large together", "split the annotations")


def drawing_order(drawn: Sequence[Drawn], labels: Sequence[int]) -> list[int]:
    """The places of objects with these class numbers, in the order in which they claim pixels."""
    mixed = _mixed(labels)

    def rank(index: int) -> tuple[int, float]:
        label = labels[index]
        return 0 if label == UNSAID else 2 if label == 0 else 1, _area(drawn[index]) if mixed else 0.0

    return sorted(range(len(drawn)), key=rank)


def _mixed(labels: Sequence[int]) -> bool:
    return len(set(labels) - {0, UNSAID}) > 1


def _area(one: Drawn) -> float:
    rings = sum(
        # What is cut out may reach far beyond the object.
        abs(_shoelace(shell)) - sum(abs(_shoelace(hole.clip(shell.min(0), shell.max(0)))) for hole in holes)
        for shell, *holes in one.polygons
        if len(shell)
    )
    patches = sum(int(np.count_nonzero(patch.pixels)) for patch in one.patches)
    return rings + patches + PEN * sum(_length(line) + 1 for line in one.strokes)


def _length(line: Corners) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def _shoelace(corners: Corners) -> float:
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _named(drawn: Sequence[Drawn], labels: Sequence[int], label: int) -> str:
    return drawn[list(labels).index(label)].name or "no class"


def bounds(one: Drawn) -> Corners | None:
    """(2, 2) the corners of the box around an object, upper left and lower right; None if there is nothing of it."""
    ends = [shell for shell, *_ in one.polygons if len(shell)]
    ends += [line + reach for line in filter(len, one.strokes) for reach in (-PEN / 2, PEN / 2)]
    ends += [
        np.array([[p.left, p.top], [p.left + p.pixels.shape[1], p.top + p.pixels.shape[0]]], float)
        for p in one.patches
        if p.pixels.size
    ]
    return np.stack([end(np.concatenate(ends), 0) for end in (np.min, np.max)]) if ends else None


def _held(one: Drawn, height: int, width: int) -> tuple[Box, NDArray[np.bool_], set[str], bool]:
    """The box around an object in the image, the pixels it holds, where it lies, whether an outline crosses itself."""
    around = bounds(one)
    if around is None:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool), set(), False
    box = _box(around, height, width)
    low, high = around
    where = set[str]()
    if np.any(high <= 0) or np.any(low >= (width, height)):
        where.add("outside")
    elif np.any(low < -1) or np.any(high > (width + 1, height + 1)):
        where.add("beyond")
    top, left = box[0].start, box[1].start
    pixels, crossed = np.zeros((box[0].stop - top, box[1].stop - left), bool), False
    for rings in one.polygons:
        part: Box = (slice(0, 0), slice(0, 0))
        own = np.zeros((0, 0), bool)
        for number, ring in enumerate(rings):
            if not len(ring):
                continue
            place, held, twice = inside(ring, height, width)
            crossed |= twice
            if number == 0:
                part, own = place, held
            else:
                there, here = _shared(part, place)
                own[there] &= ~held[here]
        there, here = _shared(box, part)
        pixels[there] |= own[here]
    for patch in one.patches:
        rows, columns = patch.pixels.shape
        place = slice(patch.top, patch.top + rows), slice(patch.left, patch.left + columns)
        there, here = _shared(box, place)
        pixels[there] |= patch.pixels[here]
    for line in filter(len, one.strokes):
        row, column = _stroked(line).T - [[top], [left]]
        there = (row >= 0) & (row < pixels.shape[0]) & (column >= 0) & (column < pixels.shape[1])
        pixels[row[there], column[there]] = True
    return box, pixels, where, crossed


def _stroked(line: Corners) -> NDArray[np.int64]:
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


def _shared(one: Box, other: Box) -> tuple[Box, Box]:
    """Where the pixels that two boxes share are in the one, and where in the other."""
    spans = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)]
    shared = [(start, max(start, end)) for start, end in spans]
    there, here = (
        tuple(slice(start - own.start, end - own.start) for (start, end), own in zip(shared, box, strict=True))
        for box in (one, other)
    )
    return there, here


def _box(corners: Corners, height: int, width: int) -> Box:
    size = (width, height)
    (x0, y0), (x1, y1) = (
        ends.clip(0, size).astype(int) for ends in (np.floor(corners.min(0)), np.ceil(corners.max(0)))
    )
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))
