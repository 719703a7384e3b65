"""Masks that say more than foreground, or less: maps of classes, of instances, and masks that are silent in places."""

__all__ = ["UNSAID", "class_map", "instance_map", "said_counts", "sparse_mask", "stored_numbers"]

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import few
from textdiff.images.formats import BadImageError, alpha_note, is_shape, open_stored
from textdiff.images.masks import binary_mask, check_single

UNSAID = 255
"""The class number of a pixel of which nothing is said: in every map of classes here, and in every cache."""


def class_map(
    path: str | os.PathLike[str], pixels: NDArray[Any], names: Sequence[str], unlabelled: int | None = None
) -> NDArray[np.uint8]:
    """Class numbers (H, W) uint8 in 0 ... ``len(names)``, or ``UNSAID``, from the stored pixels.

    Args:
        path: of the file; names it in errors.
        pixels: as they are stored.
        names: of the classes 1, 2, ...
        unlabelled: the stored number that says nothing. Those above it stand for one class less: 0, 1, 2 are the
            background and two classes, and so are 1, 2, 3 if 0 says nothing.

    Raises:
        BadImageError: colours, fractions, or a number that has no name.
    """
    numbers = _whole_numbers(path, pixels, "class")
    labels = numbers
    if unlabelled is not None:
        labels = numbers - (numbers > unlabelled)
        labels[numbers == unlabelled] = 0
    if int(labels.max()) > len(names):
        strange = np.unique(numbers[labels > len(names)])
        lone = unlabelled is None and len(strange) == 1
        void = f", or add --unlabelled-value {strange[0]} if nothing is said there" if lone else ""
        raise BadImageError(
            path,
            f"has {'values' if len(strange) > 1 else 'the value'} {few(strange, 4)}, "
            f"and --classes names 1..{len(names)} ({', '.join(names)})",
            f"number the classes from 1, or name all of them{void}",
        )
    found = labels.astype(np.uint8)
    if unlabelled is not None:
        found[numbers == unlabelled] = UNSAID
    return found


def sparse_mask(path: str | os.PathLike[str], pixels: NDArray[Any], unlabelled: int) -> tuple[NDArray[np.uint8], str]:
    """A mask of two classes that says nothing in places, from the stored pixels: ``unlabelled`` says nothing.

    Returns:
        (H, W) uint8 in {0, 1, ``UNSAID``}, and ``PlainMask.value``.

    Raises:
        BadImageError: colours, fractions, or what remains has more than two classes.
    """
    numbers = _whole_numbers(path, pixels, "class")
    unsaid = numbers == unlabelled
    labels, value = binary_mask(path, np.where(unsaid, 0, numbers).astype(pixels.dtype))
    labels[unsaid] = UNSAID
    return labels, value


def said_counts(labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many pixels are said to be of each class, (``classes``,) with the background first.

    Args:
        labels: class numbers of any shape, ``UNSAID`` where nothing is said.
        classes: background included.
    """
    counts = np.bincount(labels.ravel(), minlength=UNSAID + 1)
    return np.asarray(counts[:classes], np.int64)


def instance_map(path: str | os.PathLike[str], pixels: NDArray[Any]) -> NDArray[np.uint32]:
    """Object numbers (H, W) uint32 from the stored pixels, as they are: nothing is renumbered.

    Raises:
        BadImageError: colours, fractions, or numbers beyond 32 bits.
    """
    return _whole_numbers(path, pixels, "object").astype(np.uint32)


def stored_numbers(path: str | os.PathLike[str], data: bytes) -> tuple[NDArray[Any], list[str]]:
    """The numbers in a file, however they are shown: of a palette the indices.

    Raises:
        BadImageError: as ``open_stored``, and for what does not keep numbers: JPEG, 16-bit colours, a shape in alpha.
    """
    stored = open_stored(path, data)
    check_single(path, stored.unread)
    if stored.lossy:
        raise BadImageError(path, "is a JPEG, which does not keep numbers", "export it as PNG or TIFF")
    if any("scaled" in note for note in stored.notes):
        raise BadImageError(path, "stores its numbers as 16-bit colours", "export one 16-bit channel")
    if stored.alpha is not None and stored.palette is None:
        if is_shape(stored.alpha, stored.pixels) and (stored.alpha.any() or stored.pixels.any()):
            raise BadImageError(path, "has its shapes in the alpha channel", "store one number per pixel")
        if stored.alpha.max() and np.any(stored.pixels[stored.alpha == 0]):
            raise BadImageError(path, "has one shape in its numbers and another in its alpha", "save it without alpha")
        stored.notes.append(alpha_note(stored.alpha.min(), stored.alpha.max()))
    return stored.pixels, stored.notes


def _whole_numbers(path: str | os.PathLike[str], pixels: NDArray[Any], what: str) -> NDArray[np.int64]:
    if pixels.ndim == 3:
        if np.any(pixels != pixels[..., :1]):
            raise BadImageError(path, f"is in colour and not a map of {what} numbers", "store one number per pixel")
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f" and not np.all(np.isfinite(pixels) & (pixels == np.floor(pixels))):
        raise BadImageError(path, f"has fractions where {what} numbers should be", "store whole numbers")
    if pixels.min() < 0:
        raise BadImageError(path, f"has the negative {what} number {pixels.min():g}", "number from 1, background 0")
    if (largest := int(pixels.max())) >= 2**32:
        raise BadImageError(path, f"has the {what} number {largest}", "number from 1, background 0")
    return pixels.astype(np.int64)
