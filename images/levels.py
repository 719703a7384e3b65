"""Two classes with soft edges, told from several classes: by what the values of a mask look like where they are."""

__all__ = ["Levels", "foreground_level"]

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_HALO = 4
_BAND_PIXELS = 1 << 20

FEW = 8
"""A lossless mask of no more values than these has no noise: every value was put there."""


class Levels:
    """Counts, for each value of a mask, how its pixels lie among their neighbours.

    Args:
        size: number of values that the codes may take.

    Attributes:
        count: pixels (size,) of each code.
        flat: those of them in the middle of 3 x 3 equal pixels.
        wide: those in the middle of 9 x 9 equal pixels.
        stuck: those with no larger or no smaller neighbour, which the edge between two classes does not have.
        contrast: the sum over the pixels of each code of the range of codes in the 3 x 3 pixels around.
    """

    def __init__(self, size: int) -> None:
        self.count, self.flat, self.wide, self.stuck = np.zeros((4, size), np.int64)
        self.contrast = np.zeros(size)
        self._held: NDArray[Any] | None = None
        self._counted = 0  # rows of ``_held`` that are there for their neighbours only

    @staticmethod
    def of(codes: NDArray[Any], size: int, lossy: bool) -> "Levels":
        """Those of a whole mask, codes (H, W) of an unsigned type; of two values without loss the counts alone."""
        levels, step = Levels(size), max(1, _BAND_PIXELS // codes.shape[1])
        bands = [codes[first : first + step] for first in range(0, len(codes), step)]
        for band in bands:
            levels.count += np.bincount(band.ravel(), minlength=size)
        if not lossy and np.count_nonzero(levels.count) <= 2:
            return levels
        levels = Levels(size)
        for band in bands:
            levels.add(band)
        levels.finish()
        return levels

    def add(self, rows: NDArray[Any]) -> None:
        """Takes the next rows (h, W) of the mask, from the top to the bottom; ``finish`` ends it."""
        rows = rows.astype(np.uint8) if rows.dtype == bool else rows
        self._held = rows if self._held is None else np.concatenate([self._held, rows])
        self._count(len(self._held) - _HALO)

    def finish(self) -> None:
        """Counts the last rows."""
        if self._held is not None:
            self._count(len(self._held))

    def _count(self, end: int) -> None:
        held = self._held
        assert held is not None
        if end <= self._counted:
            return
        part, size = slice(self._counted, end), len(self.count)
        pixels = held[part]
        self.count += np.bincount(pixels.ravel(), minlength=size)
        least, most = _around(np.minimum, held), _around(np.maximum, held)
        equal = least == most
        wide = ndimage.minimum_filter(equal, 2 * _HALO - 1, mode="nearest")
        stuck = (held == least) | (held == most)
        self.flat += np.bincount(pixels[equal[part]], minlength=size)
        self.wide += np.bincount(pixels[wide[part]], minlength=size)
        self.stuck += np.bincount(pixels[stuck[part]], minlength=size)
        self.contrast += np.bincount(pixels.ravel(), weights=(most - least)[part].ravel(), minlength=size)
        self._counted = min(end, _HALO)
        self._held = held[end - self._counted :]


def foreground_level(values: NDArray[Any], levels: Levels, *, lossy: bool, noise: bool) -> float | None:
    """The value of the foreground, if a mask has two classes; half of it is where their edge is cut.

    Values in between may be edges only, smoothed or blurred: they have larger and smaller neighbours, and do not fill
    a square. Where there can be noise, values within an eighth of an end count for that end.

    Args:
        values: ascending, what each code of ``levels`` stands for.
        levels: of the mask.
        lossy: it comes from a JPEG, whose noise an empty mask has too.
        noise: its type and range are those of pictures, so that its values may have been through a JPEG.

    Returns:
        The value, or None if the mask has another number of classes, or no background.
    """
    there = np.flatnonzero(levels.count)
    seen, v = _Seen(levels, there, values[there]), values[there]
    if lossy:
        return _blurred(seen, lossy)
    if len(v) == 1:
        return float(v[0])
    few = len(v) <= FEW and not (seen.at_both_ends() and not seen.flat[1:-1].any())
    return _exact(seen) if few or not noise else _blurred(seen, lossy)


class _Seen:
    """``Levels`` of the values ``v`` that there are."""

    def __init__(self, levels: Levels, codes: NDArray[Any], v: NDArray[Any]) -> None:
        self.codes, self.v = codes, v
        self.count, self.flat, self.wide = levels.count[codes], levels.flat[codes], levels.wide[codes]
        self.stuck, self.contrast = levels.stuck[codes], levels.contrast[codes]

    def at_both_ends(self) -> bool:
        """Whether there are values near 0 and near the largest, as of noise."""
        v, top = self.v, float(self.v[-1])
        return bool(v[0] == 0 and v[1] <= top / 16 and v[-2] >= top * 15 / 16)


def _exact(seen: _Seen) -> float | None:
    """``foreground_level`` of a mask whose values were all put there."""
    v, top = seen.v, float(seen.v[-1])
    between = (v > 0) & (v < top)
    numbers = v.dtype.kind in "bui" and top < 16
    if v[0] != 0 or (numbers and between.any()) or seen.flat[between].any():
        return None
    if seen.count[between].sum() > max(seen.count[0], seen.count[-1]):
        return None
    # Objects that are nothing but edge have ridges; with many levels in between few pixels are on top of one.
    ridges = 1 / 4 if np.count_nonzero(between) <= 2 else 3 / 4
    return None if seen.stuck[between].sum() > ridges * seen.count[between].sum() else top


def _blurred(seen: _Seen, lossy: bool) -> float | None:
    """``foreground_level`` of a mask with noise, or with edges of many values."""
    v, top = seen.v, float(seen.v[-1])
    bright = v > top / 2
    if lossy and top < 64:
        top = 255.0
    elif seen.flat[bright].any():
        # Ringing beside edges exceeds the foreground's own value.
        top = float(v[bright][seen.flat[bright].argmax()])
    low, high, between = v <= top / 8, np.abs(v - top) <= top / 8, (v > top / 8) & (v < top * 7 / 8)
    if seen.flat[~low & ~high].any():
        return None
    # Noise is flat in the blocks of a JPEG, of 8 x 8 pixels, and over a whole colour a level or two from the next.
    regions = v[high & (seen.wide > 0)]
    if np.count_nonzero(seen.wide[low]) > 1 or (len(regions) and np.ptp(regions) > 2):
        return None
    soft, inside = seen.count[between].sum(), seen.count[~low].sum()
    if (soft and not low.any()) or soft > max(seen.count[low].sum(), seen.count[high].sum()):
        return None
    # A few pixels of noise are nothing, and a JPEG makes peaks of small objects.
    if not lossy and seen.stuck[between].sum() > max(soft * 3 / 4, inside / 32):
        return None
    # Where edges are most of the foreground it is thin and they are steep, unlike those of a map of probabilities.
    steep = seen.codes[np.abs(v - top).argmin()] / 4
    return None if soft > inside / 2 and seen.contrast[between].sum() < soft * steep else top


def _around(extreme: np.ufunc, pixels: NDArray[Any]) -> NDArray[Any]:
    """``extreme`` over the 3 x 3 pixels around each, as far as there are any: along y, and then along x."""
    for _ in range(2):
        padded = np.pad(pixels, ((1, 1), (0, 0)), mode="edge")
        pixels = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:]).T
    return pixels
