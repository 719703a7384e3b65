"""What a sample's image and mask hold, wherever they are stored."""

__all__ = [
    "LoadedImage",
    "by_number",
    "load_image",
    "load_mask",
    "mask_part",
]

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images.decode import decode, to_rgb
from textdiff.images.formats import alpha_note, read_bytes
from textdiff.images.labels import UNSAID, class_map, instance_map, sparse_mask, stored_numbers
from textdiff.images.masks import binary_mask, decode_mask
from textdiff.readers.annotations import is_outlined, load_annotations
from textdiff.readers.hdf5 import plane, read_slice
from textdiff.readers.objects import load_objects
from textdiff.readers.sample import LoadedMask, Sample, Slice


class LoadedImage(NamedTuple):
    """An image as the pipeline takes it."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    sha256: str
    """The SHA-256 of the file's bytes, or of the stored array."""
    notes: list[str]
    """What a user should know about it, one phrase each."""


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

    Outlines have no size of their own: they are drawn in that of its image, (height, width).

    Raises:
        BadImageError: it cannot be used; see ``decode_mask``, ``class_map``, ``instance_map``, ``load_annotations`` and
            ``load_objects``.
    """
    source, notes = sample.mask, list[str]()
    assert source is not None
    if is_outlined(source):
        return load_annotations(sample, height, width)
    if isinstance(source, Slice):
        stored, digest = read_slice(source)
        stored = plane(source, stored)
        if not by_number(sample):
            labels, value = binary_mask(source, stored)
            return LoadedMask(labels, None, digest, notes, value)
    elif source.is_dir():
        instances, digest, notes = load_objects(source, height, width)
        return LoadedMask((instances > 0).astype(np.uint8), instances if sample.instances else None, digest, notes)
    else:
        data = read_bytes(source)
        digest = hashlib.sha256(data).hexdigest()
        if not by_number(sample):
            labels, value, notes = decode_mask(source, data)
            return LoadedMask(labels, None, digest, notes, value)
        stored, notes = stored_numbers(source, data)
    labels, numbers, value = _of_numbers(sample, source, stored)
    return LoadedMask(labels, numbers, digest, notes, value)


def by_number(sample: Sample) -> bool:
    """Whether the numbers count that the mask of ``sample`` stores, not what they look like."""
    return bool(sample.classes or sample.instances) or sample.unlabelled is not None


def _of_numbers(
    sample: Sample, source: Path | Slice, stored: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None, str]:
    """Class numbers, object numbers or None, and ``PlainMask.value``, from the numbers that a mask stores."""
    if sample.instances:
        instances = instance_map(source, stored)
        labels = (instances > 0).astype(np.uint8)
        if sample.unlabelled is not None:
            unsaid = instances == sample.unlabelled
            labels[unsaid], instances[unsaid] = UNSAID, 0
        return labels, instances, ""
    if sample.classes:
        return class_map(source, stored, sample.classes, sample.unlabelled), None, ""
    assert sample.unlabelled is not None
    labels, value = sparse_mask(source, stored, sample.unlabelled)
    return labels, None, value


def mask_part(
    sample: Sample, threshold: float, stored: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
    """What a part of the mask of ``sample`` holds, (h, w) as ``open_mask_bands`` shows it.

    ``threshold`` is that of ``MaskProperties``: a single part of a mask of two classes does not tell it.

    Returns:
        Class numbers (h, w) uint8, and object numbers or None, as of ``load_mask``.
    """
    path = sample.mask
    assert isinstance(path, Path)
    if sample.classes or sample.instances:
        return _of_numbers(sample, path, stored)[:2]
    labels = (stored > threshold).astype(np.uint8)
    if sample.unlabelled is not None:
        labels[stored == sample.unlabelled] = UNSAID
    return labels, None
