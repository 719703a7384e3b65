"""Every image and mask looked at once, as a whole or, where it is too large for that, in parts."""

__all__ = ["look_at_image", "look_at_mask"]

from pathlib import Path

import numpy as np
import xxhash

from textdiff.pipeline.imaging import formats
from textdiff.pipeline.imaging.formats import BadImageError
from textdiff.pipeline.imaging.rows import large_size
from textdiff.pipeline.sample import Sample, Slice
from textdiff.readers.facts import ImageFacts, MaskFacts
from textdiff.readers.load import load_image, load_mask
from textdiff.readers.parts import scan_image, scan_mask


def look_at_image(source: Path | Slice, tiled: bool) -> ImageFacts:
    """Decodes an image once.

    Args:
        source: its file.
        tiled: it is going to be cut into tiles, so that it may be larger than what can be held.

    Raises:
        BadImageError: it cannot be used.
    """
    if _in_parts(source, tiled):
        assert isinstance(source, Path)
        return scan_image(source)
    pixels, sha256, notes = load_image(source)
    height, width = pixels.shape[:2]
    content = ImageFacts.content_of(xxhash.xxh3_128_hexdigest(pixels.data), height, width)
    return ImageFacts(height, width, sha256, content, (int(pixels.min()), int(pixels.max())), notes)


def look_at_mask(sample: Sample, height: int, width: int, tiled: bool) -> MaskFacts:
    """Decodes the mask that ``sample`` has once, for its image of ``height`` x ``width`` pixels.

    Raises:
        BadImageError: it cannot be used.
    """
    assert sample.mask is not None
    if _in_parts(sample.mask, tiled):
        return scan_mask(sample)
    if formats.too_many_pixels(height, width) and sample.mask.name.lower().endswith(".xml"):
        raise BadImageError(
            sample.mask,
            f"holds outlines of an image of more than {formats.MAX_MEGAPIXELS} megapixels, where they are not drawn",
            "save the mask as a TIFF",
        )
    labels, instances, sha256, notes, value = load_mask(sample, height, width)
    counts = np.bincount(labels.ravel(), minlength=max(2, len(sample.classes) + 1))
    objects = 0 if instances is None else int(instances.max())
    single = instances is not None and bool(np.all(instances[labels > 0] == 255))
    height, width = labels.shape
    return MaskFacts(height, width, sha256, notes, tuple(counts.tolist()), objects, single, value)


def _in_parts(source: Path | Slice, tiled: bool) -> bool:
    """Whether a file is read in parts.

    Raises:
        BadImageError: it would have to be, and without tiles there is nothing to be had of its parts.
    """
    if isinstance(source, Slice):
        return False
    try:
        size = large_size(source)
    except OSError:  # reading it as a whole says so in one line
        return False
    if size is not None and not tiled:
        raise formats.too_large(source, f"{size[1]}x{size[0]} pixels", formats.TILES)
    return size is not None
