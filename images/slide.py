"""Whole slides, pyramids of levels, seen as one image of a wanted resolution.

What is seen at a resolution between two levels is the finer one resized by area, in whole numbers: any part of it is,
to the byte, that part of the whole.
"""

__all__ = ["SAME_SIZE", "Level", "Slide", "SlideView"]

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError
from textdiff.images.images import AreaPart
from textdiff.images.pixel_size import PixelSize

SAME_SIZE = 0.02
"""Two statements on the size of a pixel that differ by less, relatively, are the same."""
_READ = 1 << 22
"""Pixels of a level that are read at once."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """One image of a pyramid."""

    height: int
    width: int
    read: Callable[[int, int, int, int], Pixels]
    """``read(y, x, h, w)`` gives a part that lies inside: RGB (h, w, 3) uint8."""


@dataclass(frozen=True)
class Slide:
    """An open slide. Positions are those of its finest level, from the corner of what its scanner says was scanned."""

    path: Path
    levels: tuple[Level, ...]
    """The finest first."""
    pixel_size: PixelSize | None
    """Width and height of a pixel of the finest level in micrometres, where they are known."""
    notes: tuple[str, ...] = ()
    """What a user should know about the file, one phrase each."""

    @property
    def height(self) -> int:
        """Height of the finest level in pixels."""
        return self.levels[0].height

    @property
    def width(self) -> int:
        """Width of the finest level in pixels."""
        return self.levels[0].width

    def at(self, mpp: float | None) -> "SlideView":
        """The slide at so many micrometres per pixel; at its finest level where that is None.

        A level within ``SAME_SIZE`` of that is taken as it is. Otherwise the coarsest finer one is resized by area.

        Raises:
            BadImageError: the size of a pixel is not known, or is larger than what is asked for.
        """
        if mpp is None:
            return self.sized(self.height, self.width)
        if self.pixel_size is None:
            what = "does not say how many micrometres a pixel has"
            raise BadImageError(self.path, what, "give it with --own-mpp, as in --own-mpp 0.25")
        width, height = self.width * self.pixel_size[0] / mpp, self.height * self.pixel_size[1] / mpp
        for level in self.levels:
            if abs(level.width / width - 1) <= SAME_SIZE and abs(level.height / height - 1) <= SAME_SIZE:
                return self.sized(level.height, level.width)
        if width > self.width or height > self.height:
            finest = max(self.pixel_size)
            what = f"has {finest:.4g} µm per pixel, and {mpp:g} are asked for: it holds no finer detail"
            raise BadImageError(self.path, what, f"use --mpp {finest:.3g} or more for all, or leave it out")
        return self.sized(max(1, round(height)), max(1, round(width)))

    def sized(self, height: int, width: int) -> "SlideView":
        """The slide as an image of this size in pixels, at most that of the finest level."""
        fine = [level for level in self.levels if level.height >= height and level.width >= width]
        return SlideView(self, fine[-1], height, width)

    def overview(self, longest: int, mpp: float | None = None) -> Pixels:
        """The whole slide at about ``mpp`` micrometres per pixel, at most ``longest`` pixels a side: (h, w, 3)."""
        side = max(self.height, self.width)
        wanted = max(side / longest, mpp / max(self.pixel_size) if mpp and self.pixel_size else 1.0, 1.0)
        height, width = (max(1, round(length / wanted)) for length in (self.height, self.width))
        return self.sized(height, width).region(0, 0, height, width)


@dataclass(frozen=True)
class SlideView:
    """A slide as one image (height, width) of a single resolution."""

    slide: Slide
    level: Level
    """What it is made of."""
    height: int
    width: int

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the finest level for one of the view, along x and along y."""
        return self.slide.width / self.width, self.slide.height / self.height

    @property
    def pixel_size(self) -> PixelSize | None:
        """Width and height of a pixel in micrometres, where they are known."""
        size = self.slide.pixel_size
        return None if size is None else (size[0] * self.scale[0], size[1] * self.scale[1])

    def region(self, y: int, x: int, height: int, width: int) -> Pixels:
        """A part that lies inside, RGB (height, width, 3) uint8: that of the level resized by area as a whole.

        Raises:
            BadImageError: the file is damaged there.
        """
        old, new = (self.level.height, self.level.width), (self.height, self.width)
        if old == new:
            return self.level.read(y, x, height, width)
        out = np.empty((height, width, 3), np.uint8)
        side = max(1, int((_READ * self.height * self.width / (self.level.height * self.level.width)) ** 0.5))
        for top in range(0, height, side):
            for left in range(0, width, side):
                target = out[top : top + side, left : left + side]
                part = AreaPart(old, new, y + top, x + left, *target.shape[:2])
                target[...] = part.mean(self.level.read(*part.box))
        return out
