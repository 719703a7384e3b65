"""Shapes of many objects at once, from their runs of pixels: of a map that is held, or of one that came in bands."""

__all__ = ["eccentricities", "hull_areas", "runs_of_pixels"]

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.int64]
"""(N, 3): row, first column, and the column after the last."""


def runs_of_pixels(
    number: NDArray[np.integer], x: NDArray[np.integer], y: NDArray[np.integer]
) -> tuple[NDArray[np.integer], Runs]:
    """The object of each run, (N,), and the runs of pixels that come row by row: of each its object, column and row."""
    apart = np.ones(len(number), bool)
    apart[1:] = (np.diff(number) != 0) | (np.diff(y) != 0) | (np.diff(x) != 1)
    first = np.flatnonzero(apart)
    last = np.append(first, len(number))[1:] - 1
    return number[first], np.stack([y[first], x[first], x[last] + 1], 1)


def eccentricities(
    number: NDArray[np.integer], runs: Runs, count: int, pixel_size: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.float64]:
    """What ``regionprops`` calls eccentricity, (count,), of all objects at once: a slide has a million of them.

    Args:
        number: (N,) the object, from 0 on, that each run belongs to.
        runs: the runs; those of an object do not overlap.
        count: of objects, each with a run at least.
        pixel_size: width and height: pixels that are not square squeeze an image, and not what it shows.
    """
    row, start, stop = runs.T.astype(np.float64)
    length, middle = stop - start, (start + stop - 1) / 2
    area = _total(number, length, count)
    # Differences from the mean, since sums of squares of places on a slide would leave no digits.
    across = (middle - (_total(number, middle * length, count) / area)[number]) * pixel_size[0]
    down = (row - (_total(number, row * length, count) / area)[number]) * pixel_size[1]
    within = (length**2 - 1) / 12 * pixel_size[0] ** 2  # the variance of a run around its own middle
    xx = _total(number, (across**2 + within) * length, count) / area
    yy, xy = (_total(number, down * other * length, count) / area for other in (down, across))
    mean, half = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    longest = mean + half
    found: NDArray[np.float64] = np.sqrt(np.divide(2 * half, longest, where=longest > 0, out=np.zeros_like(half)))
    return found.clip(0, 1)


def hull_areas(number: NDArray[np.integer], runs: Runs, count: int) -> NDArray[np.float64]:
    """The area of each object's convex hull, (count,), of its pixels with their corners: that of a square is its own.

    Args:
        number: (N,) the object, from 0 on, that each run belongs to.
        runs: the runs.
        count: of objects, each with a run at least.
    """
    from scipy.spatial import ConvexHull

    if not count:
        return np.zeros(0)
    order = np.lexsort((runs[:, 0], number))
    number, (row, start, stop) = number[order], runs[order].T
    # Of an object's row the first and the last pixel are enough.
    new = np.flatnonzero((np.diff(number, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
    left, right, row, number = np.minimum.reduceat(start, new), np.maximum.reduceat(stop, new), row[new], number[new]
    corners = np.stack([np.stack([side, end], -1) for side in (left, right) for end in (row, row + 1)], 1)
    objects = np.split(corners, np.flatnonzero(np.diff(number)) + 1)
    # From a corner of their own, so that a place on a slide takes no digits.
    return np.array([ConvexHull((points - points[0, 0]).reshape(-1, 2)).volume for points in objects])


def _total(number: NDArray[np.integer], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count,), the sum of values (N,) over each object."""
    return np.asarray(np.bincount(number, values, minlength=count), np.float64)
