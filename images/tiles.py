"""Images as overlapping square tiles, and back: where the tiles lie and how they are blended, in bounded memory.

Along each axis tiles start every ``size - overlap`` pixels; the last one is shifted inward, so that no tile reaches
beyond an image that is at least as large as it, and a smaller image is continued by its mirror image. In the overlap
neighbours are blended by the squares of a sine and a cosine (a raised cosine): a pixel near the edge of a tile, of
which the network saw one side only, hardly counts where another tile has it further inside.
"""

__all__ = ["Grid", "cut", "reblock", "stitch"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Band = tuple[int, NDArray[Any]]
"""Rows of an image from the given one on, (..., h, W)."""


_NOTHING = 1e-5


@dataclass(frozen=True)
class Grid:
    """The tiles of one image, in pixels: ``size`` x ``size`` each, neighbours sharing at least ``overlap``."""

    height: int
    width: int
    size: int
    overlap: int

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @cached_property
    def tops(self) -> tuple[int, ...]:
        """First pixel row of each row of tiles, ascending."""
        return _starts(self.height, self.size, self.overlap)

    @cached_property
    def lefts(self) -> tuple[int, ...]:
        """First pixel column of each column of tiles, ascending."""
        return _starts(self.width, self.size, self.overlap)

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
            _weights(self.tops, self.height, self.size, self.overlap),
            _weights(self.lefts, self.width, self.size, self.overlap),
        )


def cut(image: NDArray[Any], y: int, x: int, size: int) -> NDArray[Any]:
    """The tile of ``image`` (H, W) or (H, W, C) at (y, x): (size, size) or (size, size, C), mirrored beyond the end."""
    piece = image[y : y + size, x : x + size]
    missing = [(0, size - length) for length in piece.shape[:2]]
    return np.pad(piece, [*missing, *[(0, 0)] * (image.ndim - 2)], mode="symmetric")


def stitch(
    grid: Grid, tiles: Iterable[NDArray[np.floating[Any]] | None], layers: tuple[int, ...] | None = None
) -> Iterator[Band]:
    """Blends the values of overlapping tiles; holds as many rows of the image as a tile is high, and no more.

    Where tiles are left out, the others count for them; what no tile shows is background.

    Args:
        grid: where the tiles are.
        tiles: (..., size, size) each, in the order of ``grid.places``; taken as they are needed. None stands for one
            that is left out, and then they are probabilities (..., classes, size, size).
        layers: (..., classes), which is to be given where tiles may be left out.

    Yields:
        From top to bottom (y, values), values (..., h, width) float32: the rows y ... y + h - 1 of the image.

    Raises:
        ValueError: there are not as many tiles as the grid has.
    """
    down, across = grid.weights
    columns = len(grid.lefts)
    wide = max(grid.width, grid.size)
    buffer = None if layers is None else np.zeros((*layers, grid.size, wide), np.float32)
    lost: NDArray[np.float32] | None = None  # the weights of the tiles that are left out
    count = 0
    for count, tile in enumerate(tiles, start=1):
        row, column = divmod(count - 1, columns)
        if row >= len(grid.tops):
            raise ValueError(f"more than the {len(grid)} tiles of the grid")
        left = grid.lefts[column]
        if tile is None:
            lost = np.zeros((grid.size, wide), np.float32) if lost is None else lost
            lost[:, left : left + grid.size] += down[row][:, None] * across[column]
        else:
            if buffer is None:
                buffer = np.zeros((*tile.shape[:-2], grid.size, wide), np.float32)
            buffer[..., left : left + grid.size] += tile * down[row][:, None] * across[column]
        if buffer is None:
            raise ValueError("a tile is left out, and layers are not given")
        if column == columns - 1:
            top = grid.tops[row]
            # No later tile reaches above the next row of tiles.
            done = (grid.tops[row + 1] if row + 1 < len(grid.tops) else grid.height) - top
            band = buffer[..., :done, : grid.width].copy()
            if lost is not None:
                _make_up(band, lost[:done, : grid.width])
            yield top, band
            for rows in (buffer, lost) if lost is not None else (buffer,):
                rows[..., : grid.size - done, :] = rows[..., done:, :].copy()
                rows[..., grid.size - done :, :] = 0
    if count != len(grid):
        raise ValueError(f"{count} tiles for a grid of {len(grid)}")


def _make_up(band: NDArray[np.float32], lost: NDArray[np.float32]) -> None:
    """Divides probabilities (..., classes, h, W) by what the tiles count that are there, where some are left out."""
    y, x = np.nonzero(lost)
    there = 1 - lost[y, x]
    # The last bits of a sum of weights are no tile.
    shown = there > _NOTHING
    band[..., y[shown], x[shown]] /= there[shown]
    band[..., y[~shown], x[~shown]] = 0
    band[..., 0, y[~shown], x[~shown]] = 1


def reblock(bands: Iterable[Band], height: int) -> Iterator[NDArray[Any]]:
    """The same rows in bands of ``height``, the last one as it comes: (..., height, W) each."""
    waiting: list[NDArray[Any]] = []
    rows = 0
    for _, band in bands:
        waiting.append(band)
        rows += band.shape[-2]
        while rows >= height:
            joined = np.concatenate(waiting, axis=-2)
            yield joined[..., :height, :]
            rows -= height
            waiting = [joined[..., height:, :]]
    if rows:
        yield np.concatenate(waiting, axis=-2)


def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    if length <= size:
        return (0,)
    count = -(-(length - overlap) // (size - overlap))
    return tuple(min(index * (size - overlap), length - size) for index in range(count))


def _weights(starts: tuple[int, ...], length: int, size: int, overlap: int) -> NDArray[np.float32]:
    ramp = np.ones(size)
    ramp[:overlap] = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    window = ramp * ramp[::-1]
    total = np.zeros(max(length, size))
    for start in starts:
        total[start : start + size] += window
    return np.stack([window / total[start : start + size] for start in starts]).astype(np.float32)
