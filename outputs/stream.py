"""What is written of an image that is not held: its tiles, then its objects, then its rows, as they come."""

__all__ = ["Sink", "Streamed"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.outputs.objects import Found, Subject
from textdiff.outputs.polygons import Polygon


@dataclass(frozen=True, kw_only=True)
class Streamed(Subject):
    """An image that comes in parts. Objects are told in pixels of its finest level, and so is ``pixel_size``."""

    height: int
    """In pixels of the tiles and rows that come."""
    width: int
    """The same."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels of the finest level for one of these, along x and along y."""


class Sink:
    """Takes an image of a ``Streamed`` in parts, each as far as it is written; all is there once the last has come."""

    def tile(self, y: int, x: int, pixels: NDArray[np.uint8]) -> None:
        """A tile that was looked at, RGB (h, w, 3), in the order of rows of tiles; they may overlap."""

    def found(self, found: Found, polygons: Sequence[Polygon]) -> None:
        """An object, and its outline in pixels of the rows that come."""

    def rows(self, y: int, x: int, labels: NDArray[np.uint8], objects: NDArray[Any]) -> None:
        """The rows from ``y`` on, once all objects are found: classes and numbers (h, w), from top to bottom.

        They begin at the column ``x``; what lies beside them is background, and rows of nothing else do not come.
        """
