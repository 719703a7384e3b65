"""What an epoch shows: which rows, in which order, and which part of each."""

__all__ = ["order_of", "random_window", "rows_by_tile"]

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.models.networks.segmenter import Window

_TRIES = 64


def rows_by_tile(cache: FeatureCache) -> dict[str, list[list[int]]]:
    """By the id of an image, for each of its tiles the rows of its views; an image that is not cut is one tile."""
    rows: dict[str, dict[tuple[int, int], list[int]]] = {}
    for row, entry in enumerate(cache.rows):
        rows.setdefault(entry.id, {}).setdefault((entry.y, entry.x), []).append(row)
    return {name: list(tiles.values()) for name, tiles in rows.items()}


def order_of(images: list[list[int]], seed: int, epoch: int) -> list[int]:
    """The epoch's rows: every image (or tile) once, in random order, each in a random one of its cached views.

    Drawn from (seed, epoch) alone, so that a resumed fit sees the rows that it would have seen.
    """
    generator = np.random.default_rng([seed, 0x0E, epoch])
    return [images[index][generator.integers(len(images[index]))] for index in generator.permutation(len(images))]


def random_window(
    places: np.random.Generator, size: int, whole: int, grid: int, said: NDArray[np.bool_] | None = None
) -> Window:
    """A random one of ``size`` pixels, or the whole if that is smaller.

    With ``said`` (B, whole, whole) one in which something is said, unless none of many is.
    """
    size = min(size, whole)
    for _ in range(1 if said is None else _TRIES):
        top, left = (int(place) * grid for place in places.integers((whole - size) // grid + 1, size=2))
        if said is None or said[:, top : top + size, left : left + size].any():
            break
    return Window(top, left, size)
