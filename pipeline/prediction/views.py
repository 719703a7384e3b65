"""One image seen in several of the square's symmetries, and the mean of what is predicted of each."""

__all__ = ["Predicted", "mean_of_rows", "mean_of_views", "view_count"]

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.images.images import unsymmetry

Predicted = tuple[int, NDArray[np.float32]]
"""A row of a cache, or the first of several, and class probabilities (classes, S, S)."""
_LAYERS = (-2, -1)
"""The axes of probabilities (..., S, S) that a symmetry is of."""


def mean_of_views(views: Iterable[tuple[int, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """The mean of probabilities (..., S, S), each of a view of one image and turned back.

    Args:
        views: the number of each view, as ``images.symmetry`` takes it, and what was predicted of it.
    """
    layers = [unsymmetry(probability, view, _LAYERS) for view, probability in views]
    # One view is handed on as it is, to the bit.
    return layers[0] if len(layers) == 1 else np.mean(layers, axis=0)


def mean_of_rows(cache: FeatureCache, predicted: Iterable[Predicted]) -> Iterator[Predicted]:
    """Joins the rows that are views of one image or tile: its first row, and the mean over all of them.

    Args:
        cache: the rows' cache.
        predicted: of each row its probabilities; views of one image or tile follow one another.
    """
    for _, group in groupby(predicted, lambda found: cache.rows[found[0]].key[:-1]):
        rows = list(group)
        yield rows[0][0], mean_of_views((cache.rows[row].view, probability) for row, probability in rows)


def view_count(cache: FeatureCache, rows: Sequence[int]) -> int:
    """How many views of each image, or tile, are among ``rows``."""
    return len({cache.rows[row].view for row in rows})
