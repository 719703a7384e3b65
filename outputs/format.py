"""The contract of a format of results: for an image that is held, or that comes in parts."""

__all__ = ["Format", "Sink", "Streamed"]

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.outputs.objects import Found, Segmentation, Subject
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

    @property
    def coming_size(self) -> tuple[float, float] | None:
        """Width and height in micrometres of a pixel of what comes, where they are known."""
        size = self.pixel_size
        return None if size is None else (size[0] * self.scale[0], size[1] * self.scale[1])


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


@dataclass(frozen=True)
class Format:
    """A format, as facts."""

    title: str
    """What it is called in messages."""
    suffix: str
    """What a file, or a directory, of it is called after the image's name."""
    write: Callable[[Path, Segmentation, bool], None]
    """``write(path, segmented, numbered)`` writes atomically, and replaces what is there."""
    package: str = ""
    """The optional package that it needs."""
    side: int | None = None
    """The most pixels an image may have along a side; None where there is no limit."""
    objects: int | None = None
    """The largest object number; None for more than there can be."""
    stream: Callable[[Path, Streamed], AbstractContextManager[Sink]] | None = None
    """Opens a file, or a directory, for an image that comes in parts, which appears at the end; None if it cannot."""
    single: bool = False
    """Whether a file holds one map only, so that the numbers of objects need a second one."""

    def refusal(self, segmented: Segmentation, numbered: bool) -> str:
        """Why the format cannot hold the result, naming the image and the limit; empty if it can."""
        height, width = segmented.labels.shape
        if self.side is not None and max(height, width) > self.side:
            return f"{segmented.name}: {width}x{height} pixels, and {self.title} holds {self.side} a side"
        count = len(segmented.found)
        if self.objects is not None and count > self.objects and numbered:
            return f"{segmented.name}: {count} objects, and {self.title} numbers {self.objects}"
        return ""
