"""The same as ``load`` for files too large to be held: looked through, and read, some rows at a time."""

__all__ = ["read_image_rows", "read_mask_rows", "scan_image", "scan_mask"]

from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from textdiff.files import sha256_file
from textdiff.pipeline.imaging.formats import alpha_note
from textdiff.pipeline.imaging.labels import class_map, instance_map
from textdiff.pipeline.imaging.levels import Levels
from textdiff.pipeline.imaging.masks import foreground
from textdiff.pipeline.imaging.rows import open_mask_rows, open_rows
from textdiff.pipeline.sample import Sample
from textdiff.readers.facts import ImageFacts, MaskFacts

_LEVELS = 2**16


def scan_image(path: Path) -> ImageFacts:
    """What reading the whole TIFF would show, in memory for a few of its rows.

    Raises:
        BadImageError: as ``open_rows``, and where a part of the file is damaged.
    """
    digest, low, high = xxhash.xxh3_128(), 255, 0
    opacity = [255, 0]
    with open_rows(path) as source:
        for first, end in source.bands():
            stored = source.stored(first, end)
            pixels = np.ascontiguousarray(source.shown(stored))
            digest.update(pixels.data)
            low, high = min(low, int(pixels.min())), max(high, int(pixels.max()))
            if source.alpha_at is not None:
                alpha = stored[..., -1]
                opacity = [min(opacity[0], int(alpha.min())), max(opacity[1], int(alpha.max()))]
        notes = list(source.notes)
        if source.alpha_at is not None:
            notes.insert(source.alpha_at, alpha_note(*opacity))
        content = ImageFacts.content_of(digest.hexdigest(), source.height, source.width)
        return ImageFacts(source.height, source.width, sha256_file(path), content, (low, high), notes, in_parts=True)


def scan_mask(sample: Sample) -> MaskFacts:
    """What reading the whole mask of ``sample``, a TIFF, would show; see ``load_mask``.

    Raises:
        BadImageError: as ``open_mask_rows``, and as ``load_mask``.
    """
    path = sample.mask
    assert isinstance(path, Path)
    counts = np.zeros(max(2, len(sample.classes) + 1), np.int64)
    levels = Levels(_LEVELS)
    objects, lone, threshold, value = 0, True, 0.0, ""
    with open_mask_rows(path, bool(sample.classes or sample.instances)) as source:
        for first, end in source.bands():
            stored = source.read(first, end)
            if sample.classes:
                counts += np.bincount(class_map(path, stored, sample.classes).ravel(), minlength=len(counts))
            elif sample.instances:
                numbers = instance_map(path, stored)
                background = numbers.size - np.count_nonzero(numbers)
                counts += [background, numbers.size - background]
                objects = max(objects, int(numbers.max()))
                lone = lone and bool(np.count_nonzero(numbers == 255) == numbers.size - background)
            else:
                levels.add(stored)
                dtype = stored.dtype
        height, width, notes, lossy = source.height, source.width, list(source.notes), source.lossy
    if not (sample.classes or sample.instances):
        # Which level is foreground is known once all are: a binary mask may be 0 and 1, or 0 and 255.
        levels.finish()
        values = np.arange(_LEVELS)
        top, value = foreground(path, values, levels, dtype, lossy)
        threshold = top / 2
        counts = np.array([levels.count[values <= threshold].sum(), levels.count[values > threshold].sum()])
    single = sample.instances and lone
    return MaskFacts(height, width, sha256_file(path), notes, tuple(counts.tolist()), objects, single, value, threshold)


def read_image_rows(path: Path, first: int, end: int) -> NDArray[np.uint8]:
    """The rows ``first`` ... ``end`` - 1 of an image, RGB (end - first, W, 3) uint8.

    Raises:
        BadImageError: as ``open_rows``, and where the file is damaged there.
    """
    with open_rows(path) as source:
        return source.read(first, end)


def read_mask_rows(
    sample: Sample, threshold: float, first: int, end: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
    """The rows ``first`` ... ``end`` - 1 of the mask of ``sample``.

    Args:
        sample: one with a mask.
        threshold: ``MaskFacts.threshold``: what a single part of a mask of two classes does not tell.
        first: the first row.
        end: the row after the last.

    Returns:
        Class numbers (end - first, W) uint8, and object numbers or None, as of ``load_mask``.

    Raises:
        BadImageError: as ``open_mask_rows``, and where the file is damaged there.
    """
    path = sample.mask
    assert isinstance(path, Path)
    with open_mask_rows(path, bool(sample.classes or sample.instances)) as source:
        stored = source.read(first, end)
    if sample.classes:
        return class_map(path, stored, sample.classes), None
    if sample.instances:
        numbers = instance_map(path, stored)
        return (numbers > 0).astype(np.uint8), numbers
    return (stored > threshold).astype(np.uint8), None
