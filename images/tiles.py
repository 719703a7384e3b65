"""Images as overlapping square tiles, and back: where the tiles lie and how they are blended, in bounded memory.

Along each axis tiles start every ``size - overlap - 2 margin`` pixels; the last one is shifted inward, so that no tile
reaches beyond an image that is at least as large as it, and a smaller image is continued by its mirror image. In the
overlap neighbours are blended by the squares of a sine and a cosine (a raised cosine): a pixel near the edge of a tile,
of which the network saw one side only, hardly counts where another tile has it further inside. In the margin around
that it does not count there at all: the tile was given these pixels as surroundings of the others.
"""

__all__ = ["Band", "Grid", "Pixels", "background", "cut", "reblock", "stitch"]

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HARDLY = 1e-6
"""What a pixel counts in a margin: nothing, unless no other tile has it."""


@dataclass(frozen=True)
class Grid:
    """The tiles of one image, in pixels: ``size`` x ``size`` each, which share at least ``overlap + 2 margin``."""

    height: int
    width: int
    size: int
    overlap: int
    """What is blended."""
    margin: int = 0
    """What is surroundings alone, at each edge of a tile that is not one of the image."""

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @cached_property
    def tops(self) -> tuple[int, ...]:
        """First pixel row of each row of tiles, ascending."""
        return _starts(self.height, self.size, self.overlap + 2 * self.margin)

    @cached_property
    def lefts(self) -> tuple[int, ...]:
        """First pixel column of each column of tiles, ascending."""
        return _starts(self.width, self.size, self.overlap + 2 * self.margin)

    @property
    def places(self) -> list[tuple[int, int]]:
        """(y, x) of every tile's first pixel, row by row."""
        return [(y, x) for y in self.tops for x in self.lefts]

    @cached_property
    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What each tile counts along y, (len(tops), size), and along x, (len(lefts), size).

        A tile's pixel counts the product of the two. Each pixel of the image gets a sum of one, since the weights are
        normalised along each axis and tiles form a full grid.
        """
        return (
            _weights(self.tops, self.height, self.size, self.overlap, self.margin),
            _weights(self.lefts, self.width, self.size, self.overlap, self.margin),
        )


def cut(image: NDArray[Any], y: int, x: int, size: int) -> NDArray[Any]:
    """The tile of ``image`` (H, W) or (H, W, C) at (y, x): (size, size) or (size, size, C), mirrored beyond the end."""
    piece = image[y : y + size, x : x + size]
    missing = [(0, size - length) for length in piece.shape[:2]]
    return np.pad(piece, [*missing, *[(0, 0)] * (image.ndim - 2)], mode="symmetric")


class Band(NamedTuple):
    """Rows of an image; of each the columns in which there is something, with nothing but background beside them."""

    y: int
    """The first row."""
    x: int
    """The first of these columns."""
    values: NDArray[Any]
    """(..., h, w), where w may be 0."""

    def within(self, left: int, right: int) -> NDArray[Any]:
        """(..., h, right - left) of probabilities (..., classes, h, w), whose columns lie between these two."""
        wide = background((*self.values.shape[:-1], right - left))
        wide[..., self.x - left : self.x - left + self.values.shape[-1]] = self.values
        return wide


class Pixels:
    """The pixels of tiles, as long as rows of theirs are to be asked for."""

    def __init__(self) -> None:
        self._tiles: list[tuple[int, int, NDArray[np.uint8]]] = []

    def add(self, y: int, x: int, pixels: NDArray[np.uint8]) -> None:
        """Keeps a tile, (h, w, 3)."""
        self._tiles.append((y, x, pixels))

    def take(self, y: int, x: int, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The part of the image that begins at (y, x), (h, w, 3), and which of its pixels (h, w) a tile shows.

        What ends above the end of it is forgotten, so parts are asked for from the top to the bottom.
        """
        image, shown = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
        bottom, right = y + shape[0], x + shape[1]
        for top, left, pixels in self._tiles:
            part = pixels[max(0, y - top) : max(0, bottom - top), max(0, x - left) : max(0, right - left)]
            place = tuple(
                slice(first, first + length)
                for first, length in zip((max(0, top - y), max(0, left - x)), part.shape, strict=False)
            )
            image[place], shown[place] = part, True
        self._tiles = [tile for tile in self._tiles if tile[0] + len(tile[2]) > bottom]
        return image, shown


def background(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Probabilities (..., classes, h, w) where nothing was looked at."""
    values = np.zeros(shape, np.float32)
    values[..., 0, :, :] = 1
    return values


def stitch(
    grid: Grid, tiles: Iterable[NDArray[np.floating[Any]]], places: Sequence[tuple[int, int]] | None = None
) -> Iterator[Band]:
    """Blends the values of overlapping tiles; holds as many rows of the image as a tile is high, and no more.

    Where tiles are left out, the others count for them, and what no tile shows is background. Of the columns no more
    are held than lie between the first and the last tile of a row of tiles, or of those that it overlaps.

    Args:
        grid: where the tiles are.
        tiles: (..., size, size) each; taken as they are needed. If some are left out they are probabilities
            (..., classes, size, size).
        places: of the tiles that come, one or more of ``grid.places`` in their order; all by default.

    Yields:
        float32, from top to bottom.

    Raises:
        ValueError: there are not as many tiles as places.
    """
    rows = _columns(grid, places)
    expected = sum(map(len, rows))
    down, across = grid.weights
    coming = iter(tiles)
    first = next(coming, None)  # the bands above it have its layers too
    if first is None:
        raise ValueError(f"0 tiles for a grid of {expected}")
    coming = chain([first], coming)
    layers, some_left_out, count = first.shape[:-2], expected < len(grid), 0
    del first
    held = Band(0, 0, np.zeros((*layers, 0, 0), np.float32))  # what tiles say of rows that are not complete
    for row, top in enumerate(grid.tops):
        # No later tile reaches above the next row of tiles.
        done = (grid.tops[row + 1] if row + 1 < len(grid.tops) else grid.height) - top
        ends = [(held.x, held.x + held.values.shape[-1])] if held.values.size else []
        ends += [(grid.lefts[column], grid.lefts[column] + grid.size) for column in rows[row]]
        left, right = min((end[0] for end in ends), default=0), max((end[1] for end in ends), default=0)
        values = np.zeros((*layers, grid.size, right - left), np.float32)
        if held.values.size:
            part = held.values
            values[..., : part.shape[-2], held.x - left : held.x - left + part.shape[-1]] = part
        for column in rows[row]:
            tile = next(coming, None)
            if tile is None:
                raise ValueError(f"{count} tiles for a grid of {expected}")
            count += 1
            at = grid.lefts[column] - left
            values[..., at : at + grid.size] += tile * down[row][:, None] * across[column]
        shown = values[..., :done, : grid.width - left]
        if some_left_out and shown.size:
            _make_up(shown, *_shares(grid, rows, row, Band(top, left, shown)))
        below = values[..., done:, :] if _reaches(grid, rows, row) > top + done else values[..., :0, :0]
        held = Band(top + done, left, below.copy())
        yield Band(top, left, shown)
    if next(coming, None) is not None:
        raise ValueError(f"more than the {expected} tiles of the grid")


def _columns(grid: Grid, places: Sequence[tuple[int, int]] | None) -> list[list[int]]:
    """The columns of the tiles that come in each row of tiles."""
    if places is None:
        return [list(range(len(grid.lefts)))] * len(grid.tops)
    row_of, column_of = ({start: index for index, start in enumerate(starts)} for starts in (grid.tops, grid.lefts))
    rows: list[list[int]] = [[] for _ in grid.tops]
    for y, x in places:
        rows[row_of[y]].append(column_of[x])
    return rows


def _reaches(grid: Grid, rows: list[list[int]], row: int) -> int:
    """The row below the last one that a tile shows of those in rows of tiles up to ``row``."""
    return max((grid.tops[other] + grid.size for other in _overlapping(grid, row) if rows[other]), default=0)


def _overlapping(grid: Grid, row: int) -> range:
    """The rows of tiles up to ``row`` that reach below where it begins."""
    return range(bisect_right(grid.tops, grid.tops[row] - grid.size), row + 1)


def _shares(grid: Grid, rows: list[list[int]], row: int, band: Band) -> NDArray[np.float32]:
    """What the tiles count that are there, and those that are left out: (2, h, w) of a band that is a row's."""
    down, across = grid.weights
    (height, width), right = band.values.shape[-2:], band.x + band.values.shape[-1]
    shares = np.zeros((2, height, width), np.float32)
    columns = [column for column, x in enumerate(grid.lefts) if x < right and x + grid.size > band.x]
    for other in _overlapping(grid, row):
        along_y = down[other][band.y - grid.tops[other] :][:height, None]
        there = set(rows[other])
        for column in columns:
            start = max(0, band.x - grid.lefts[column])
            along_x = across[column][start : right - grid.lefts[column]]
            at = grid.lefts[column] + start - band.x
            shares[int(column not in there), : len(along_y), at : at + len(along_x)] += along_y * along_x
    return shares


def _make_up(band: NDArray[np.float32], there: NDArray[np.float32], lost: NDArray[np.float32]) -> None:
    """Divides probabilities (..., classes, h, w) by what the tiles count that are there, where some are left out."""
    hidden = there == 0
    # Elsewhere the weights add up to one but for their last bits, and nothing is to change.
    band /= np.where((lost > 0) & ~hidden, there, 1)
    for label in range(band.shape[-3]):
        band[..., label, hidden] = float(label == 0)


def reblock(bands: Iterable[Band], height: int) -> Iterator[Band]:
    """The same rows in bands of ``height``, the last one as it comes."""
    waiting: list[Band] = []
    rows = 0

    def taken(need: int) -> Band:
        parts = []
        while need:
            y, x, values = waiting[0]
            parts.append(Band(y, x, values[..., :need, :]))
            got = parts[-1].values.shape[-2]
            need -= got
            waiting[0] = Band(y + got, x, values[..., got:, :])
            if not waiting[0].values.shape[-2]:
                waiting.pop(0)
        if len(parts) == 1:
            return parts[0]
        ends = [(part.x, part.x + part.values.shape[-1]) for part in parts if part.values.size]
        left, right = min((end[0] for end in ends), default=0), max((end[1] for end in ends), default=0)
        return Band(parts[0].y, left, np.concatenate([part.within(left, right) for part in parts], axis=-2))

    for band in bands:
        waiting.append(band)
        rows += band.values.shape[-2]
        while rows >= height:
            yield taken(height)
            rows -= height
    if rows:
        yield taken(rows)


def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    if length <= size:
        return (0,)
    count = -(-(length - overlap) // (size - overlap))
    return tuple(min(index * (size - overlap), length - size) for index in range(count))


def _weights(starts: tuple[int, ...], length: int, size: int, overlap: int, margin: int) -> NDArray[np.float32]:
    ramp = np.ones(size)
    ramp[margin : margin + overlap] = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    windows = np.stack([ramp * ramp[::-1]] * len(starts))
    # At the edges of the image there is nothing that a tile does not see.
    windows[1:, :margin] = windows[:-1, size - margin :] = _HARDLY
    total = np.zeros(max(length, size))
    for start, window in zip(starts, windows, strict=True):
        total[start : start + size] += window
    return np.stack(
        [window / total[start : start + size] for start, window in zip(starts, windows, strict=True)]
    ).astype(np.float32)
