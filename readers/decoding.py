"""What a sample's image and mask hold, wherever they are stored, read whole or in bands of rows."""

__all__ = ["LoadedImage", "LoadedMask", "load_image", "load_mask", "read_image_rows", "read_mask_rows"]

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images.bands import open_image_bands, open_mask_bands
from textdiff.images.decode import decode, to_rgb
from textdiff.images.formats import BadImageError, alpha_note, read_bytes
from textdiff.images.labels import class_map, instance_map, stored_numbers
from textdiff.images.masks import binary_mask, decode_mask
from textdiff.readers.aperio import outlines_of, rasterise
from textdiff.readers.hdf5 import plane, read_slice
from textdiff.readers.objects import load_objects
from textdiff.readers.sample import Sample, Slice


class LoadedImage(NamedTuple):
    """An image as the pipeline takes it."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    sha256: str
    """The SHA-256 of the file's bytes, or of the stored array."""
    notes: list[str]
    """What a user should know about it, one phrase each."""


class LoadedMask(NamedTuple):
    """A mask as the pipeline takes it."""

    labels: NDArray[np.uint8]
    """(H, W) class numbers, 0 for the background."""
    instances: NDArray[np.uint32] | None
    """(H, W) object numbers, None where the sample does not keep them."""
    sha256: str
    notes: list[str]
    value: str = ""
    """How a mask of two classes stores its foreground; see ``PlainMask.value``."""


def load_image(source: Path | Slice) -> LoadedImage:
    """Reads and decodes an image.

    Raises:
        BadImageError: it cannot be used; see ``decode``.
    """
    if isinstance(source, Slice):
        stored, digest = read_slice(source)
        pixels, notes = to_rgb(source, stored)
        if stored.shape[2:] == (4,):
            notes.append(alpha_note(stored[..., 3].min(), stored[..., 3].max()))
        return LoadedImage(pixels, digest, notes)
    # The bytes that are hashed are the bytes that are decoded, and the disk is asked once.
    data = read_bytes(source)
    pixels, notes = decode(source, data)
    return LoadedImage(pixels, hashlib.sha256(data).hexdigest(), notes)


def load_mask(sample: Sample, height: int, width: int) -> LoadedMask:
    """Reads and decodes the mask that ``sample`` has, in the way its classes and instances ask for.

    Args:
        sample: one with a mask.
        height: of its image, in pixels: outlines have no size of their own.
        width: the same.

    Raises:
        BadImageError: it cannot be used; see ``decode_mask``, ``class_map``, ``instance_map``, ``outlines_of`` and
            ``load_objects``.
    """
    source, notes = sample.mask, list[str]()
    assert source is not None
    if isinstance(source, Slice):
        stored, digest = read_slice(source)
        stored = plane(source, stored)
        if not (sample.classes or sample.instances):
            labels, value = binary_mask(source, stored)
            return LoadedMask(labels, None, digest, notes, value)
    elif source.is_dir():
        instances, digest, notes = load_objects(source, height, width)
        return LoadedMask((instances > 0).astype(np.uint8), instances if sample.instances else None, digest, notes)
    else:
        data = read_bytes(source)
        digest = hashlib.sha256(data).hexdigest()
        if source.suffix.lower() == ".xml":
            if sample.classes:
                raise BadImageError(source, "holds outlines, which name no classes", "leave --classes out")
            outlines, notes = outlines_of(source, data)
            instances, more = rasterise(source, outlines, height, width)
            labels = (instances > 0).astype(np.uint8)
            return LoadedMask(labels, instances if sample.instances else None, digest, notes + more)
        if not (sample.classes or sample.instances):
            labels, value, notes = decode_mask(source, data)
            return LoadedMask(labels, None, digest, notes, value)
        stored, notes = stored_numbers(source, data)
    if sample.classes:
        return LoadedMask(class_map(source, stored, sample.classes), None, digest, notes)
    instances = instance_map(source, stored)
    return LoadedMask((instances > 0).astype(np.uint8), instances, digest, notes)


def read_image_rows(path: Path, first: int, end: int) -> NDArray[np.uint8]:
    """The rows ``first`` ... ``end`` - 1 of an image, RGB (end - first, W, 3) uint8.

    Raises:
        BadImageError: as ``open_image_bands``, and where the file is damaged there.
    """
    with open_image_bands(path) as source:
        return source.read(first, end)


def read_mask_rows(
    sample: Sample, threshold: float, first: int, end: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
    """The rows ``first`` ... ``end`` - 1 of the mask of ``sample``.

    Args:
        sample: one with a mask.
        threshold: ``MaskProperties.threshold``: what a single part of a mask of two classes does not tell.
        first: the first row.
        end: the row after the last.

    Returns:
        Class numbers (end - first, W) uint8, and object numbers or None, as of ``load_mask``.

    Raises:
        BadImageError: as ``open_mask_bands``, and where the file is damaged there.
    """
    path = sample.mask
    assert isinstance(path, Path)
    with open_mask_bands(path, bool(sample.classes or sample.instances)) as source:
        stored = source.read(first, end)
    if sample.classes:
        return class_map(path, stored, sample.classes), None
    if sample.instances:
        numbers = instance_map(path, stored)
        return (numbers > 0).astype(np.uint8), numbers
    return (stored > threshold).astype(np.uint8), None
