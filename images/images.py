"""Arrays in, arrays out: reading, resizing and turning of images and masks."""

__all__ = [
    "SYMMETRIES",
    "AreaPart",
    "BandedMask",
    "axis_weights",
    "covering",
    "read_image",
    "resize_image",
    "resize_mask",
    "symmetry",
    "unsymmetry",
]

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.images.decode import decode
from textdiff.images.labels import UNSAID

SYMMETRIES = 8
"""The symmetries of the square: four turns, each with and without a reflection."""


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The image in a PNG, JPEG, BMP or TIFF file, RGB (H, W, 3) uint8; ``decode`` says what happens to other kinds.

    Raises:
        UserError: the file cannot be used (``BadImageError``).
    """
    return decode(path)[0]


def resize_image(image: NDArray[np.uint8], size: int, rule: str) -> NDArray[np.uint8]:
    """Resizes an image to a square; another aspect ratio is squeezed, as the paper's code does.

    * ``area``: along an axis that shrinks every new pixel is the average of what it covers, fractions of pixels counted
      exactly; along one that grows, ``bilinear``.
    * ``bilinear``: OpenCV's ``INTER_LINEAR``: half-pixel centres, edges clamped, no antialiasing, so that much of a
      large image is never looked at. It is the rule of the paper's code.

    The arithmetic is exact (integers over one common denominator, halves rounded up): every machine gives the same
    bytes. OpenCV itself rounds its weights to 11 bits and can be one level away.

    Args:
        image: (H, W) or (H, W, C) uint8.
        size: new height and width in pixels.
        rule: ``area`` or ``bilinear``.

    Returns:
        (size, size) or (size, size, C) uint8.
    """
    _, total, whole = _weighted_sum(image, size, rule)
    return _rounded_quotient(total, whole)


def resize_mask(mask: NDArray[Any], size: int, rule: str, classes: int = 2) -> NDArray[np.uint8]:
    """Resizes a mask to a square.

    * ``area``: foreground where at least half of the new pixel is.
    * ``bilinear``: the paper's code resizes 0/255 bilinearly to whole numbers and takes all above 0, which dilates
      (MoNuSeg's nuclei by 12% of their area at 256x256, where ``area`` takes 1% away).

    With more classes the same rules hold: under ``area`` a pixel is of the class that covers most of it, under
    ``bilinear`` of the foreground class that weighs most in it if there is any foreground at all. Of equals the larger
    class number wins, as foreground does over background.

    Where the mask says nothing (``UNSAID``) it counts for no class: a new pixel is of the class that the rule chooses
    among what is said in it, and ``UNSAID`` where more than half of it is. Strokes less than half a new pixel wide are
    lost; kept, they would be labels of pixels that are mostly something else.

    Args:
        mask: (H, W), foreground where it is not 0; with more than two classes their numbers.
        size: new height and width in pixels.
        rule: ``area`` or ``bilinear``.
        classes: number of classes, the background included.

    Returns:
        (size, size) uint8 in 0 ... ``classes`` - 1, and ``UNSAID``.
    """
    resized = BandedMask(len(mask), size, rule, classes)
    resized.add(0, mask)
    return resized.result()


class BandedMask:
    """``resize_mask`` of a mask of ``height`` rows that come some at a time.

    The arithmetic is exact, so the bytes are the same.
    """

    def __init__(self, height: int, size: int, rule: str, classes: int = 2) -> None:
        self._height, self._size, self._rule = height, size, rule
        # What each foreground class covers of each new pixel, all whole numbers.
        self._covered = np.zeros((classes - 1, size, size))
        self._unsaid = np.zeros((size, size))
        self._whole = 1.0

    def add(self, first: int, rows: NDArray[Any]) -> None:
        """Counts ``rows`` (h, W), the mask's rows from ``first`` on; each row once, in any order."""
        rows = np.asarray(rows)
        unsaid = rows == UNSAID
        if unsaid.any():
            self._cover(self._unsaid, unsaid, first)
        # One class at a time: few classes are in one mask, and each costs as much as a grey image.
        for label, covered in enumerate(self._covered, start=1):
            of_class = rows == label if len(self._covered) > 1 else (rows != 0) & ~unsaid
            self._cover(covered, of_class, first)

    def _cover(self, covered: NDArray[np.float64], pixels: NDArray[np.bool_], first: int) -> None:
        part, total, self._whole = _weighted_sum(pixels.astype(np.uint8), self._size, self._rule, first, self._height)
        covered[part] += total

    def result(self) -> NDArray[np.uint8]:
        """The resized mask (size, size), once all rows are there."""
        return covering(self._covered, self._unsaid, self._whole, self._rule)


def covering(
    covered: NDArray[np.float64], unsaid: NDArray[np.float64], whole: float, rule: str = "area"
) -> NDArray[np.uint8]:
    """The classes (h, w) by a rule of ``resize_mask``, from how much of the ``whole`` of a pixel each of them covers.

    ``covered`` is (classes - 1, h, w), without the background; ``unsaid`` (h, w) is of what nothing is said.
    """
    foreground = covered.sum(axis=0)
    chosen = np.zeros(foreground.shape, np.uint8)
    most = whole - unsaid - foreground if rule == "area" else np.zeros(chosen.shape)
    for label, of_class in enumerate(covered, start=1):
        chosen[of_class >= most] = label
        most = np.maximum(most, of_class)
    if rule == "bilinear":
        chosen[_rounded_quotient(255 * foreground, whole) == 0] = 0
    chosen[2 * unsaid > whole] = UNSAID
    return chosen


class AreaPart:
    """A part (height, width) at (y, x) of an image of the size ``old`` that is resized by area to ``new``.

    Attributes:
        box: the old pixels that it is made of: y, x, height and width.
        whole: what all old pixels of a new one count together.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int], y: int, x: int, height: int, width: int) -> None:
        axes = zip(old, new, (range(y, y + height), range(x, x + width)), strict=True)
        (rows, down, of_row), (columns, across, of_column) = (
            _taps(fine, coarse, "area", part) for fine, coarse, part in axes
        )
        top, left = int(rows.min()), int(columns.min())
        self.box = top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
        self.whole = float(of_row * of_column)
        self._taps = (rows - top, down), (columns - left, across)

    def sums(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """What the old pixels (h, w, ...) of ``box`` add up to for each new one, in whole numbers."""
        return _weighted(pixels, *self._taps)

    def mean(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part, from the old pixels (h, w, ...) of ``box``."""
        return _rounded_quotient(self.sums(pixels), self.whole)


def axis_weights(old: int, new: int, rule: str) -> NDArray[np.float32]:
    """What each of ``old`` pixels counts for each of ``new`` ones along an axis, by a rule of ``resize_image``.

    Returns:
        (new, old) float32; rows sum to one. A product with it resizes values that are not 8-bit pixels, also a part
        of the rows at a time.
    """
    index, weight, whole = _taps(old, new, rule)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], index), weight / whole)
    return matrix.astype(np.float32)


def symmetry(array: NDArray[Any], view: int, axes: tuple[int, int] = (0, 1)) -> NDArray[Any]:
    """One of the eight symmetries of the square.

    Args:
        array: any array.
        view: 0 is the identity; ``view % 4`` quarter turns from ``axes[0]`` to ``axes[1]``, from 4 on followed by a
            reflection of ``axes[1]``.
        axes: height and width: (0, 1) for (H, W, C), (-2, -1) for (C, H, W).

    Returns:
        A new contiguous array.
    """
    _check_view(view)
    turned = np.rot90(array, view % 4, axes)
    return np.array(np.flip(turned, axes[1]) if view >= 4 else turned, order="C")


def unsymmetry(array: NDArray[Any], view: int, axes: tuple[int, int] = (0, 1)) -> NDArray[Any]:
    """The inverse of ``symmetry`` with the same arguments."""
    _check_view(view)
    return np.array(np.rot90(np.flip(array, axes[1]) if view >= 4 else array, -(view % 4), axes), order="C")


def _check_view(view: int) -> None:
    if not 0 <= view < SYMMETRIES:
        raise ValueError(f"view {view} is not in 0..7")


def _weighted_sum(
    image: NDArray[np.uint8], size: int, rule: str, first: int = 0, height: int | None = None
) -> tuple[slice, NDArray[np.float64], float]:
    """What an image, or its rows from ``first`` on, adds to the resized image times a common denominator.

    Returns:
        The new rows that have a share in these, their sums, all whole numbers, and the denominator.
    """
    if rule not in ("area", "bilinear"):
        raise ValueError(f"resize rule {rule!r}")
    rows, row_weights, row_whole = _taps(height or image.shape[0], size, rule)
    columns, column_weights, column_whole = _taps(image.shape[1], size, rule)
    inside = (rows >= first) & (rows < first + len(image)) & (row_weights > 0)
    touched = np.flatnonzero(inside.any(axis=1))
    part = slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0)
    rows = np.where(inside, rows - first, 0)[part]
    row_weights = np.where(inside, row_weights, 0)[part]
    # The first pass moves all the pixels, so it pays to use float32 where whole numbers stay exact in it.
    exact = np.float32 if 255 * row_whole < 2**24 else np.float64
    total = _weighted(image, (rows, row_weights), (columns, column_weights), exact)
    return part, total, float(row_whole * column_whole)


def _taps(
    old: int, new: int, rule: str, wanted: range | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The old pixels that make up each new one, or those ``wanted``, along an axis by a rule of ``resize_image``.

    Returns:
        Index (new, k), weight (new, k), both whole numbers, and the sum of the weights of each new pixel.
    """
    at = np.array(wanted or range(new))[:, None]
    if rule == "area" and new < old:
        # With 1 / (old * new) of the axis as the unit, old pixels are `new` long, new ones `old`.
        index = at * old // new + np.arange(-(-old // new) + 1)
        weight = np.minimum((index + 1) * new, (at + 1) * old) - np.maximum(index * new, at * old)
        return np.minimum(index, old - 1), np.maximum(weight, 0), old
    position = (2 * at + 1) * old - new  # in units of 1 / (2 * new) of an old pixel
    index = position // (2 * new) + np.arange(2)
    fraction = position % (2 * new)
    return np.clip(index, 0, old - 1), np.concatenate([2 * new - fraction, fraction], axis=1), 2 * new


def _weighted(
    pixels: NDArray[Any],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    columns: tuple[NDArray[np.int64], NDArray[np.int64]],
    exact: type[np.floating[Any]] = np.float64,
) -> NDArray[np.float64]:
    """Sums of ``pixels`` (H, W, ...) for some new pixels: index and weight of ``_taps`` along y and along x.

    Sums along y are kept as ``exact``.
    """
    pixel = (1,) * (pixels.ndim - 2)
    tall = np.zeros((len(rows[0]), *pixels.shape[1:]), exact)
    for index, weight in zip(rows[0].T, rows[1].T, strict=True):
        tall += pixels[index] * weight.astype(exact).reshape(-1, 1, *pixel)
    total = np.zeros((len(tall), len(columns[0]), *pixels.shape[2:]))
    for index, weight in zip(columns[0].T, columns[1].T, strict=True):
        total += tall[:, index] * weight.astype(np.float64).reshape(-1, *pixel)
    return total


def _rounded_quotient(total: NDArray[np.float64], whole: float) -> NDArray[np.uint8]:
    return np.floor((total + whole / 2) / whole).astype(np.uint8)
