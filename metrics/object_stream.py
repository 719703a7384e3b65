"""Connected objects of a class map that comes in bands of rows: each is whole, however many bands it lies in.

What is held is the objects that reach into the last row so far, as runs of pixels. Numbers are given in the order of
first pixels; two objects that meet further down are one with the smaller number, so some numbers are never used.
"""

__all__ = ["ObjectStream", "WholeObject", "draw_runs"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.int64]
"""(n, 3): row, first column, and the column after the last, of runs of pixels of one class."""


@dataclass
class WholeObject:
    """One object. Positions are (x, y) in pixels from the outer corner of the top left pixel, y pointing down."""

    number: int
    class_number: int
    area: int
    sums: NDArray[np.float64]
    """Over its pixels, of x, of y and of each of the values that the stream was given."""
    corners: tuple[int, int, int, int]
    """Left, top, right and bottom of its bounding box, the last two exclusive."""
    pieces: list[Runs]

    def mask(self, step: int = 1) -> NDArray[np.bool_]:
        """(h, w), its pixels within its box; with ``step`` every so many rows and columns of them."""
        left, top, right, bottom = self.corners
        runs = np.concatenate(self.pieces) - (top, left, left)
        runs = runs[runs[:, 0] % step == 0] // (step, 1, 1)
        runs[:, 1:] = -(-runs[:, 1:] // step)
        runs = runs[runs[:, 1] < runs[:, 2]]
        shape = (-(-(bottom - top) // step), -(-(right - left) // step))
        return draw_runs(runs, np.ones(len(runs), np.int8), shape).astype(bool)

    def take(self, other: "WholeObject") -> None:
        """Becomes one with ``other``."""
        self.area += other.area
        self.sums = self.sums + other.sums
        (a, b, c, d), (e, f, g, h) = self.corners, other.corners
        self.corners = (min(a, e), min(b, f), max(c, g), max(d, h))
        self.pieces += other.pieces


class ObjectStream:
    """Finds the objects of a class map whose rows come from the top to the bottom: 8-connected pixels of one class.

    Attributes:
        count: numbers given so far.
        same: by numbers that were given, the smaller number of the object that they turned out to be of.
    """

    def __init__(self) -> None:
        self.count, self.same = 0, dict[int, int]()
        self.unfinished: dict[int, WholeObject] = {}
        self._above = np.zeros((0, 4), np.int64)  # runs of the last row: start, stop, class, number
        self._row = 0

    def add(
        self, labels: NDArray[np.uint8], values: Sequence[NDArray[np.floating]], left: int = 0
    ) -> tuple[list[WholeObject], Runs, NDArray[np.int64]]:
        """Takes the next rows.

        Args:
            labels: (h, w) classes, 0 for the background, which is also what lies beside these columns.
            values: (h, w) each, of which objects get the sums over their pixels; as many in every call.
            left: the column that they begin at.

        Returns:
            The objects that end above the last of these rows, in the order of their numbers; the runs in these rows,
            row 0 being their first one; and the number of each, which may be one of ``same``.
        """
        height = len(labels)
        runs, classes = _runs_of(labels)
        sums = np.stack([_sums(runs, each) for each in values], 1)
        runs[:, 1:] += left
        above = self._above
        # The row above is row -1, in front of the others.
        every = np.concatenate([np.column_stack([np.full(len(above), -1), above[:, :2]]), runs])
        group = _connected(every, np.concatenate([above[:, 2], classes]), above[:, 3])
        number = self._numbers(group, above[:, 3])
        found = number[group][len(above) :]
        self._measure(runs, classes, found, sums)
        last = runs[:, 0] == height - 1
        self._above = np.column_stack([runs[last, 1:], classes[last], found[last]])
        self._row += height
        going_on = set(self._above[:, 3].tolist())
        ended = sorted(self.unfinished.keys() - going_on)
        return [self.unfinished.pop(each) for each in ended], runs, found

    def skip(self, rows: int) -> list[WholeObject]:
        """Takes so many rows of background, and returns the objects that end above them."""
        self._row += rows
        return self.finish()

    def finish(self) -> list[WholeObject]:
        """The objects that reach to the end."""
        ended = [self.unfinished[each] for each in sorted(self.unfinished)]
        self.unfinished, self._above = {}, self._above[:0]
        return ended

    def final_numbers(self) -> NDArray[np.int64]:
        """(count + 1,): the number that each given number stands for in the end."""
        table = np.arange(self.count + 1)
        for number in sorted(self.same):  # what it is the same as is smaller, and so is final by then
            table[number] = table[self.same[number]]
        return table

    def _numbers(self, group: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each group: the smallest of those that it has already, or the next one."""
        groups, first = np.unique(group, return_index=True)
        number = np.zeros(len(groups), np.int64)
        for index, old in zip(group[: len(above)].tolist(), above.tolist(), strict=True):
            has = int(number[index])
            if has and has != old:
                small, large = min(has, old), max(has, old)
                if large in self.unfinished:
                    self.unfinished[small].take(self.unfinished.pop(large))
                    self.same[large] = small
                number[index] = small
            else:
                number[index] = old
        new = np.flatnonzero(number == 0)
        number[new[np.argsort(first[new])]] = self.count + 1 + np.arange(len(new))
        self.count += len(new)
        return number

    def _measure(
        self, runs: Runs, classes: NDArray[np.int64], number: NDArray[np.int64], sums: NDArray[np.float64]
    ) -> None:
        """Adds the runs of these rows, over each of which the values have these ``sums``, to their objects."""
        if not len(runs):
            return
        order = np.argsort(number, kind="stable")
        runs, classes, number, sums = runs[order], classes[order], number[order], sums[order]
        row, start, stop = runs.T
        length = stop - start
        first = np.flatnonzero(np.diff(number, prepend=-1))
        places = np.stack([(start + stop) / 2 * length, (row + self._row + 0.5) * length], 1)
        sums = np.add.reduceat(np.concatenate([places, sums], 1), first)
        areas = np.add.reduceat(length, first)
        low = np.minimum.reduceat(np.column_stack([start, row + self._row]), first)
        high = np.maximum.reduceat(np.column_stack([stop, row + self._row + 1]), first)
        runs[:, 0] += self._row  # a copy of its own, since it was sorted
        for index, piece in enumerate(np.split(runs, first[1:])):
            part = WholeObject(
                int(number[first[index]]),
                int(classes[first[index]]),
                int(areas[index]),
                sums[index],
                (int(low[index, 0]), int(low[index, 1]), int(high[index, 0]), int(high[index, 1])),
                [piece],
            )
            if part.number in self.unfinished:
                self.unfinished[part.number].take(part)
            else:
                self.unfinished[part.number] = part


def draw_runs(runs: Runs, values: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[np.integer]:
    """(h, W) of the type of ``values``: each run filled with its value, 0 elsewhere; runs do not overlap."""
    steps = np.zeros(shape[0] * shape[1] + 1, values.dtype)
    # A run may begin where another one ends, but no two begin or end at one place.
    steps[runs[:, 0] * shape[1] + runs[:, 1]] += values
    steps[runs[:, 0] * shape[1] + runs[:, 2]] -= values
    return np.cumsum(steps[:-1], dtype=values.dtype, out=steps[:-1]).reshape(shape)


def _runs_of(labels: NDArray[np.uint8]) -> tuple[Runs, NDArray[np.int64]]:
    """The runs of equal classes in (h, W), row by row, and the class of each."""
    edges = np.empty((labels.shape[0], labels.shape[1] + 1), bool)
    edges[:, 0], edges[:, -1] = labels[:, 0] > 0, labels[:, -1] > 0
    np.not_equal(labels[:, 1:], labels[:, :-1], out=edges[:, 1:-1])
    row, column = np.nonzero(edges)
    ahead = np.flatnonzero(row[1:] == row[:-1])
    classes = labels[row[ahead], column[ahead]].astype(np.int64)
    runs = np.stack([row[ahead], column[ahead], column[ahead + 1]], 1)
    return runs[classes > 0], classes[classes > 0]


def _sums(runs: Runs, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The sum of ``values`` (h, w) over each run."""
    if not len(runs):
        return np.zeros(0)
    row, start, stop = runs.T
    bounds = np.stack([row * values.shape[1] + start, row * values.shape[1] + stop], 1).ravel()
    bounds = bounds[:-1] if bounds[-1] == values.size else bounds
    sums: NDArray[np.float64] = np.add.reduceat(values.ravel(), bounds, dtype=np.float64)[::2]
    return sums


def _connected(runs: Runs, classes: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each run: those of one class that touch, and those above that have one number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(runs):
        return np.zeros(0, np.int64)
    row, start, stop = runs.T
    line = int(stop.max()) + 2
    # Runs of the next row that touch, at corners too, are neighbours in the order of all runs.
    first = np.searchsorted(row * line + stop, (row + 1) * line + start, "left")
    last = np.searchsorted(row * line + start, (row + 1) * line + stop, "right")
    count = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(runs)), count)
    other = first[one] + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
    alike = classes[one] == classes[other]
    order = np.argsort(above, kind="stable")
    together = np.flatnonzero(above[order[1:]] == above[order[:-1]])
    one = np.concatenate([one[alike], order[together]])
    other = np.concatenate([other[alike], order[together + 1]])
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(runs), len(runs)))
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups
