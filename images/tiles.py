"""Images as overlapping square tiles, and back: where the tiles lie and how they are blended, in bounded memory.

Along each axis tiles start every ``size - overlap - 2 margin`` pixels; the last one is shifted inward, so that no tile
reaches beyond an image that is at least as large as it, and a smaller image is continued by its mirror image. In the
overlap neighbours are blended by the squares of a sine and a cosine (a raised cosine): a pixel near the edge of a tile,
of which the network saw one side only, hardly counts where another tile has it further inside. In the margin around
that it does not count there at all: the tile was given these pixels as surroundings of the others.
"""

__all__ = ["Grid", "cut", "is_constant", "reblock", "stitch"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Band = tuple[int, NDArray[Any]]
"""Rows of an image from the given one on, (..., h, W)."""
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


def stitch(
    grid: Grid, tiles: Iterable[NDArray[np.floating[Any]] | None], layers: tuple[int, ...] | None = None
) -> Iterator[Band]:
    """Blends the values of overlapping tiles; holds as many rows of the image as a tile is high, and no more.

    Where tiles are left out, the others count for them; what no tile shows is background, and a band of nothing else is
    one pixel that is shown everywhere (``is_constant``).

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
    # What the tiles count that are there, and those that are left out.
    shares = None if layers is None else np.zeros((2, grid.size, wide), np.float32)
    count = shown_to = 0
    for count, tile in enumerate(tiles, start=1):
        row, column = divmod(count - 1, columns)
        if row >= len(grid.tops):
            raise ValueError(f"more than the {len(grid)} tiles of the grid")
        left = grid.lefts[column]
        if shares is not None:
            shares[int(tile is None), :, left : left + grid.size] += down[row][:, None] * across[column]
        if tile is not None:
            if buffer is None:
                buffer = np.zeros((*tile.shape[:-2], grid.size, wide), np.float32)
            buffer[..., left : left + grid.size] += tile * down[row][:, None] * across[column]
            shown_to = grid.tops[row] + grid.size
        if buffer is None:
            raise ValueError("a tile is left out, and layers are not given")
        if column == columns - 1:
            top = grid.tops[row]
            # No later tile reaches above the next row of tiles.
            done = (grid.tops[row + 1] if row + 1 < len(grid.tops) else grid.height) - top
            if shown_to <= top:
                background = np.zeros((*buffer.shape[:-2], 1, 1), np.float32)
                background[..., 0, :, :] = 1
                yield top, np.broadcast_to(background, (*buffer.shape[:-2], done, grid.width))
                if shares is not None:
                    _shift(shares, done)
                continue
            band = buffer[..., :done, : grid.width].copy()
            if shares is not None:
                _make_up(band, *shares[:, :done, : grid.width])
            yield top, band
            _shift(buffer, done)
            if shares is not None:
                _shift(shares, done)
    if count != len(grid):
        raise ValueError(f"{count} tiles for a grid of {len(grid)}")


def is_constant(band: NDArray[Any]) -> bool:
    """Whether a band (..., h, W) is one pixel that is shown everywhere."""
    return band.strides[-2:] == (0, 0)


def _shift(rows: NDArray[np.float32], done: int) -> None:
    """Moves (..., size, W) up by so many rows."""
    rows[..., : rows.shape[-2] - done, :] = rows[..., done:, :].copy()
    rows[..., rows.shape[-2] - done :, :] = 0


def _make_up(band: NDArray[np.float32], there: NDArray[np.float32], lost: NDArray[np.float32]) -> None:
    """Divides probabilities (..., classes, h, W) by what the tiles count that are there, where some are left out."""
    hidden = there == 0
    # Elsewhere the weights add up to one but for their last bits, and nothing is to change.
    band /= np.where((lost > 0) & ~hidden, there, 1)
    for label in range(band.shape[-3]):
        band[..., label, hidden] = float(label == 0)


def reblock(bands: Iterable[Band], height: int) -> Iterator[NDArray[Any]]:
    """The same rows in bands of ``height``, the last one as it comes: (..., height, W) each."""
    waiting: list[NDArray[Any]] = []
    rows = 0

    def taken(need: int) -> NDArray[Any]:
        parts = []
        while need:
            parts.append(waiting[0][..., :need, :])
            need -= parts[-1].shape[-2]
            waiting[0] = waiting[0][..., parts[-1].shape[-2] :, :]
            if not waiting[0].shape[-2]:
                waiting.pop(0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)

    for _, band in bands:
        if waiting and is_constant(band) and is_constant(waiting[-1]):  # they stay one pixel
            length = waiting[-1].shape[-2] + band.shape[-2]
            waiting[-1] = np.broadcast_to(band[..., :1, :1], (*band.shape[:-2], length, band.shape[-1]))
        else:
            waiting.append(band)
        rows += band.shape[-2]
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
