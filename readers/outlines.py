"""Objects that were outlined, painted or stroked, whatever the tool, and who keeps the pixels that several hold."""

__all__ = ["Drawn", "Patch", "Raster", "bounds", "draw", "drawing_order"]

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError
from textdiff.images.labels import UNSAID
from textdiff.readers.corners import (
    PEN,
    Box,
    Corners,
    box_of,
    check_work,
    inside,
    length_of,
    shared,
    signed_area,
    stroked,
)

_MAX_LENGTH = 1_000_000
"""The greatest length that the strokes of an object may have together, in pixels."""


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
    image: Box = slice(0, height), slice(0, width)
    polygons = [rings for one in drawn for rings in one.polygons if len(rings[0])]
    holes = [(hole, box_of(shell, image)) for shell, *cut in polygons for hole in cut if len(hole)]
    check_work(path, [*((shell, image) for shell, *_ in polygons), *holes])
    for one in drawn:
        if sum(map(length_of, one.strokes)) > _MAX_LENGTH:
            raise BadImageError(path, f"has a line of more than {_MAX_LENGTH} pixels ({one.place})", "cut it")
    claimed = np.full((height, width), -1, np.int16)
    numbers = np.zeros((height, width), np.uint32) if instances else None
    first, count = dict[str, str](), Counter[str]()
    shared = Counter[tuple[str, str]]()
    for index in range(len(drawn)) if ordered else drawing_order(drawn, labels):
        one, label = drawn[index], labels[index]
        box, pixels, odd = _held(one, image)
        before = claimed[box]
        free = pixels & (before < 0)
        if "outside" not in odd and not free.any():
            odd.add("within" if pixels.any() else "empty")
        for what in odd:
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
        abs(signed_area(shell)) - sum(abs(signed_area(hole.clip(shell.min(0), shell.max(0)))) for hole in holes)
        for shell, *holes in one.polygons
        if len(shell)
    )
    patches = sum(int(np.count_nonzero(patch.pixels)) for patch in one.patches)
    return rings + patches + PEN * sum(length_of(line) + 1 for line in one.strokes)


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


def _held(one: Drawn, image: Box) -> tuple[Box, NDArray[np.bool_], set[str]]:
    """The box around an object in the image, the pixels it holds, and what is odd about it, of ``_NOTES``."""
    around, odd = bounds(one), set[str]()
    if around is None:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool), odd
    (low, high), (height, width) = around, (side.stop for side in image)
    if np.any(high <= 0) or np.any(low >= (width, height)):
        odd.add("outside")
    elif np.any(low < -1) or np.any(high > (width + 1, height + 1)):
        odd.add("beyond")
    box = box_of(around, image)
    top, left = box[0].start, box[1].start
    pixels = np.zeros((box[0].stop - top, box[1].stop - left), bool)
    for shell, *holes in one.polygons:
        if not len(shell):
            continue
        part, own, crossed = inside(shell, image)
        for hole in filter(len, holes):
            place, held, twice = inside(hole, part)
            own[shared(part, place)[0]] &= ~held
            crossed |= twice
        pixels[shared(box, part)[0]] |= own
        if crossed:
            odd.add("crossed")
    for patch in one.patches:
        rows, columns = patch.pixels.shape
        place = slice(patch.top, patch.top + rows), slice(patch.left, patch.left + columns)
        there, here = shared(box, place)
        pixels[there] |= patch.pixels[here]
    for line in filter(len, one.strokes):
        row, column = stroked(line).T - [[top], [left]]
        there = (row >= 0) & (row < pixels.shape[0]) & (column >= 0) & (column < pixels.shape[1])
        pixels[row[there], column[there]] = True
    return box, pixels, odd
