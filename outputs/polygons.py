"""Masks -> polygons along the edges of pixels: filled again, they give the mask back, pixel for pixel.

Coordinates are (x, y) in pixels, the origin being the outer corner of the top left pixel and y pointing down, so pixel
(row, column) is the square from (column, row) to (column + 1, row + 1).
"""

__all__ = ["Polygon", "trace"]

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.int64]

# Directions of an edge in the order of left turns for a reader whose y points up, as GeoJSON's rule of orientation has
# it: x+, y+, x-, y-. The foreground is always on the left.
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
# The pixel on the left of an edge, relative to the vertex it starts at.
_LEFT = np.array([(0, 0), (-1, 0), (-1, -1), (0, -1)])


class Polygon(NamedTuple):
    """One region whose pixels are connected by their sides, with its holes.

    Rings are (n, 2) int64 corners (x, y), open (the first is not repeated), without repeated or collinear corners.
    """

    shell: Ring
    """The outline, in the order of positive signed area (counterclockwise where y points up)."""
    holes: list[Ring]
    """Each in the opposite order."""


def trace(mask: NDArray[Any]) -> list[Polygon]:
    """The polygons of a mask, one for each part that is connected by the sides of pixels (4-connectivity).

    Parts that meet only at corners are polygons that touch in a point, and a hole that meets the outside only at a
    corner touches the shell there: all are valid and simple in the sense of OGC's Simple Features, and their interiors
    are disjoint. The order is that of each polygon's topmost, then leftmost corner.

    Args:
        mask: (H, W), foreground where it is not 0.
    """
    padded = np.pad(np.asarray(mask) != 0, 1)
    shells: list[tuple[Ring, Ring]] = []
    holes: list[tuple[Ring, Ring]] = []
    for ring, pixel in _rings(padded):
        (shells if _twice_area(ring) > 0 else holes).append((ring, pixel))
    if len(shells) == 1:
        return [Polygon(shells[0][0], [ring for ring, _ in holes])]
    from scipy import ndimage

    # A hole belongs to the shell of the same connected part, whatever lies inside of what.
    parts = ndimage.label(padded[1:-1, 1:-1])[0]
    polygons = {int(parts[y, x]): Polygon(ring, []) for ring, (x, y) in shells}
    for ring, (x, y) in holes:
        polygons[int(parts[y, x])].holes.append(ring)
    return list(polygons.values())


def _rings(padded: NDArray[np.bool_]) -> Iterator[tuple[Ring, Ring]]:
    """Every simple ring of corners, starting at its topmost, then leftmost one, and a pixel (x, y) on its left."""
    ul, ur, ll, lr = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    leaves = np.stack([lr & ~ur, ll & ~lr, ul & ~ll, ur & ~ul])  # (4, H + 1, W + 1): an edge starts here, by direction
    width = leaves.shape[2]
    vertices = leaves[0].size
    edges = np.flatnonzero(leaves)
    direction, start = np.divmod(edges, vertices)
    end = start + (_STEPS @ (1, width))[direction]
    # Turning left where there is a choice keeps to the pixel that the edge belongs to: 4-connectivity.
    flat = leaves.reshape(4, vertices)
    turn = np.where(flat[(direction + 1) % 4, end], 1, np.where(flat[direction, end], 0, 3))
    follows = np.searchsorted(edges, (direction + turn) % 4 * vertices + end).tolist()
    is_corner = (turn != 0).tolist()
    ends, directions = end.tolist(), direction.tolist()
    seen = bytearray(len(edges))
    # Edges of direction x+ come first and by rows, so a ring is met first at its topmost, leftmost x+ edge.
    for first in range(len(edges)):
        if seen[first]:
            continue
        corners, leaving = [], []
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            if is_corner[edge]:
                corners.append(ends[edge])
                leaving.append(directions[follows[edge]])
            edge = follows[edge]
        for simple in _split(corners):
            vertex = np.array([corners[i] for i in simple])
            ring = np.stack([vertex % width, vertex // width], axis=1)
            begin = int(np.lexsort((ring[:, 0], ring[:, 1]))[0])
            yield np.roll(ring, -begin, axis=0), ring[0] + _LEFT[leaving[simple[0]]]


def _split(corners: list[int]) -> list[list[int]]:
    """The indices of ``corners`` as rings that pass no vertex twice."""
    if len(set(corners)) == len(corners):
        return [list(range(len(corners)))]
    rings, path, place = [], list[int](), dict[int, int]()
    for index, vertex in enumerate(corners):
        if vertex in place:
            loop = path[place[vertex] :]
            del path[place[vertex] :]
            for inner in loop:
                del place[corners[inner]]
            rings.append(loop)
        place[vertex] = len(path)
        path.append(index)
    return [*rings, path]


def _twice_area(ring: Ring) -> int:
    x, y = ring.T
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
