"""A place in a picture that a text names, and how it is drawn."""

__all__ = ["Place"]

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

_SOFTNESS = 0.03
"""The share of the picture's side over which an edge of the map of places fades, as no sentence is exact."""


class Place(NamedTuple):
    """A part of a picture, by what a text says across and down it."""

    across: tuple[tuple[float, float], ...]
    """From and to, as shares of the width; one span at least."""
    down: tuple[tuple[float, float], ...]
    """The same of the height."""

    def drawn(self, size: int) -> NDArray[np.float32]:
        """(size, size) float32, 1 inside and 0 outside, and between them half-way at the edge."""
        centres = (np.arange(size) + 0.5) / size
        across, down = (np.max([_span(centres, *span) for span in spans], axis=0) for spans in self)
        product: NDArray[np.float32] = np.outer(down, across).astype(np.float32)
        return product


def _span(centres: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """How much of each pixel lies between two shares of a side; the picture's own edges are not soft."""
    edges = [(centres - start) / _SOFTNESS] if start > 0 else []
    edges += [(end - centres) / _SOFTNESS] if end < 1 else []
    inside = np.ones_like(centres)
    for edge in edges:
        inside = inside * expit(edge)
    return inside
