"""What an epoch shows: which rows, in which order, and which part of each."""

__all__ = ["order_of", "random_window", "rows_by_tile"]

import numpy as np

from textdiff.cache import FeatureCache
from textdiff.models.networks.segmenter import Window


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


def random_window(places: np.random.Generator, size: int, whole: int, grid: int) -> Window:
    """A random one of ``size`` pixels, or the whole if that is smaller."""
    size = min(size, whole)
    top, left = (int(place) * grid for place in places.integers((whole - size) // grid + 1, size=2))
    return Window(top, left, size)
