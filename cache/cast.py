"""Activations in the type that a cache stores them in: cast piece by piece, and refused where one is not finite there.

PyTorch casts several times faster than numpy, to the same bits. A piece stays in the processor's cache while it is
cast, checked, hashed and handed to the system, so that activations come from memory once.
"""

__all__ = ["Cast", "cast_pieces", "check_extremes"]

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from textdiff.cache.int8 import pack
from textdiff.cache.rows import CacheError

_PIECE = 1 << 17  # values: with what they are cast from well below a core's second cache
_INFINITE_FROM = {"float16": 65520.0, "float32": 3.4028235677973366e38, "int8": 3.4028235677973366e38}
"""What rounds to infinity: the middle between the largest finite number and the one that would follow. Numbers of 8
bits are made of float32."""
_BITS = {2: (np.int16, 0x7C00, np.uint16, 0xFC00), 4: (np.int32, 0x7F800000, np.uint32, 0xFF800000)}
"""By the bytes of a float, the integers of its size and the patterns of both infinities in them; NaNs are above."""


@dataclass(frozen=True)
class Cast:
    """Activations of a block that are in the cache's type already, cast and looked at where they were made."""

    values: np.ndarray
    """(steps, C, h, w), or packed as an int8 cache has them, C-contiguous."""
    extremes: np.ndarray
    """(steps, 2): the smallest and the largest before the cast; NaN where there is one."""


def cast_pieces(grid: np.ndarray | Cast, step: int, dtype: str, what: str) -> Iterator[np.ndarray]:
    """The values of one step as its chunk holds them, little-endian, in flat pieces.

    Args:
        grid: (steps, C, h, w) float, or cast or packed already.
        step: the index of the step.
        dtype: of the cache.
        what: names the chunk in errors.

    Yields:
        Pieces, each valid until the next one is asked for.

    Raises:
        CacheError: a value is not finite in ``dtype``.
    """
    if isinstance(grid, Cast):
        smallest, largest = grid.extremes[step].tolist()
        check_extremes(smallest, largest, dtype, what)
        flat = grid.values[step].reshape(-1)
        yield from (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
        return
    if dtype == "int8":
        yield _packed(grid[step], what)
        return
    target = np.dtype(dtype).newbyteorder("<")
    flat = np.ascontiguousarray(grid[step]).reshape(-1)
    scratch = np.empty(min(_PIECE, flat.size), target)
    # Double precision is left to numpy: PyTorch would round it twice. It also warns of arrays that cannot be written.
    by_torch = target.isnative and flat.dtype == np.float32 and flat.flags.writeable
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        stored = scratch[: piece.size]
        if piece.dtype == target:
            stored = piece
        elif by_torch:
            torch.from_numpy(stored).copy_(torch.from_numpy(piece))
        else:
            with np.errstate(over="ignore"):
                stored[...] = piece
        if not _all_finite(stored):
            check_extremes(float(flat.min()), float(flat.max()), dtype, what)
        yield stored


def check_extremes(smallest: float, largest: float, dtype: str, what: str) -> None:
    """Refuses values between these where one is not finite in ``dtype``; both are NaN if a value is.

    Raises:
        CacheError: names the chunk, says what is wrong and what helps.
    """
    limit = _INFINITE_FROM[dtype]
    if -limit < smallest and largest < limit:
        return
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise CacheError(f"{what}: the activations hold NaN or infinity, so the row is refused; check the backbone")
    found = max(-smallest, largest)
    raise CacheError(f"{what}: {found:.3g} is too large for {dtype}, so the row is refused; use --dtype float32")


def _packed(grid: np.ndarray, what: str) -> np.ndarray:
    """A step (C, h, w) in 8 bits: as a whole, because a channel's scale is that of its largest value."""
    if grid.dtype == np.int8:
        return np.ascontiguousarray(grid)
    with np.errstate(over="ignore"):
        whole = np.require(grid, np.float32, ("C", "W"))
    if not _all_finite(whole):
        check_extremes(float(grid.min()), float(grid.max()), "float32", what)
    packed: np.ndarray = pack(torch.from_numpy(whole)).numpy()
    return packed


def _all_finite(values: np.ndarray) -> bool:
    # Seen as integers, magnitudes of either sign sort as their patterns do, and of unlike signs one kind is above all
    # of the other: two maxima tell, each ten times as fast as classifying floats.
    signed, infinity, unsigned, minus_infinity = _BITS[values.itemsize]
    return bool(values.view(signed).max() < infinity and values.view(unsigned).max() < minus_infinity)
