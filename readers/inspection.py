"""What looking at an image or a mask once shows: read whole or, where it is too large for that, in bands of rows."""

__all__ = ["ImageProperties", "Inspected", "MaskProperties", "inspect_image", "inspect_mask"]

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy import ndimage

from textdiff.files import sha256_file, stamp
from textdiff.images import formats
from textdiff.images.bands import large_size, open_image_bands, open_mask_bands
from textdiff.images.formats import BadImageError, alpha_note
from textdiff.images.labels import said_counts
from textdiff.images.levels import Levels
from textdiff.images.masks import foreground
from textdiff.images.scaled import SLIDES
from textdiff.images.slide_dicom import is_dicom_slide
from textdiff.readers.annotations import is_outlined
from textdiff.readers.decoding import by_number, load_image, load_mask, mask_part
from textdiff.readers.sample import Sample, Slice

_LEVELS = 2**16


@dataclass(frozen=True)
class ImageProperties:
    """What an image is like."""

    height: int
    width: int
    sha256: str
    """The SHA-256 of the file's bytes, or of the stored array."""
    content: str
    """A digest of the decoded pixels: the same picture in another format has the same."""
    levels: tuple[int, int]
    """The darkest and the brightest level of the 8-bit image."""
    notes: list[str] = field(hash=False)
    """What a user should know about it, one phrase each."""
    in_bands: bool = False
    """Whether it is not decoded as a whole: too large for that, or a slide."""
    finest: tuple[int, int] | None = None
    """Height and width of the finest level, where ``height`` and ``width`` are those of another resolution."""

    @staticmethod
    def content_of(digest: str, height: int, width: int) -> str:
        """``content``, from the digest of the pixels row by row."""
        return f"{digest} {width}x{height}"


@dataclass(frozen=True)
class MaskProperties:
    """What a mask is like."""

    height: int
    width: int
    sha256: str
    notes: list[str] = field(hash=False)
    counts: tuple[int, ...]
    """Pixels of the background and of each class; they add up to those of which the mask says something."""
    objects: int = 0
    """The largest object number, of a mask that numbers its objects."""
    single: bool = False
    """Whether a mask that should number its objects has one number as a plain mask has: 255, or in several parts."""
    value: str = ""
    """How a mask of two classes stores its foreground; see ``PlainMask.value``."""
    threshold: float = 0.0
    """Stored values above it are foreground, in a mask of two classes that is read in bands."""
    in_bands: bool = False
    """Whether it is not decoded as a whole."""

    @property
    def said(self) -> int:
        """The pixels of which it says something."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of these that each class takes, the background left out."""
        return tuple(count / max(1, self.said) for count in self.counts[1:])


NOTHING = ImageProperties(0, 0, "", "", (0, 0), [])
"""What is known of an image that cannot be read."""


@dataclass(frozen=True)
class Inspected:
    """What decoding a sample's files has shown."""

    sample: Sample
    image: ImageProperties = NOTHING
    mask: MaskProperties | None = None
    """None without one, and where it cannot be read."""
    usable: bool = True
    """Whether none of its problems is an error."""

    @property
    def sparse(self) -> bool:
        """Whether there is a mask, and pixels of which it may say nothing."""
        if self.mask is None:
            return False
        return self.sample.unlabelled is not None or self.mask.said < self.image.height * self.image.width


def inspect_image(source: Path | Slice, tiled: bool) -> ImageProperties:
    """Decodes an image once.

    Args:
        source: its file.
        tiled: it is going to be cut into tiles, so that it may be larger than what can be held.

    Raises:
        BadImageError: it cannot be used.
    """
    if isinstance(source, Path) and (source.suffix.lower() in SLIDES or is_dicom_slide(source)):
        raise BadImageError(source, "is a slide", "say at which resolution, as with --mpp 0.5 --tile 256")
    if _is_banded(source, tiled):
        assert isinstance(source, Path)
        with _unchanged(source):
            return _inspect_image_bands(source)
    pixels, sha256, notes = load_image(source)
    height, width = pixels.shape[:2]
    content = ImageProperties.content_of(xxhash.xxh3_128_hexdigest(pixels.data), height, width)
    return ImageProperties(height, width, sha256, content, (int(pixels.min()), int(pixels.max())), notes)


def inspect_mask(sample: Sample, height: int, width: int, tiled: bool) -> MaskProperties:
    """Decodes the mask that ``sample`` has once, for its image of ``height`` x ``width`` pixels.

    Raises:
        BadImageError: it cannot be used.
    """
    assert sample.mask is not None
    if _is_banded(sample.mask, tiled):
        assert isinstance(sample.mask, Path)
        with _unchanged(sample.mask):
            return _inspect_mask_bands(sample)
    if formats.too_many_pixels(height, width) and is_outlined(sample.mask):
        raise BadImageError(
            sample.mask,
            f"holds outlines of an image of more than {formats.MAX_MEGAPIXELS} megapixels, where they are not drawn",
            "save the mask as a TIFF",
        )
    labels, instances, sha256, notes, value = load_mask(sample, height, width)
    counts = said_counts(labels, max(2, len(sample.classes) + 1))
    objects = 0 if instances is None else int(instances.max())
    # What is drawn by outlines, or has a file for each object, has its objects' parts from there.
    picture = isinstance(sample.mask, Slice) or not (is_outlined(sample.mask) or sample.mask.is_dir())
    single = instances is not None and (_is_single(instances) or (picture and _in_parts(instances)))
    height, width = labels.shape
    return MaskProperties(height, width, sha256, notes, tuple(counts.tolist()), objects, single, value)


def _is_single(numbers: NDArray[np.uint32]) -> bool:
    """Whether a map of objects has no other number than 255."""
    return bool(np.all(numbers[numbers > 0] == 255))


def _in_parts(numbers: NDArray[np.uint32]) -> bool:
    """Whether a map of objects has one number, in parts that touch nowhere."""
    there = numbers > 0
    if not there.any() or np.any(numbers[there] != numbers.max()):
        return False
    return bool(ndimage.label(there, np.ones((3, 3)))[1] > 1)


def _inspect_image_bands(path: Path) -> ImageProperties:
    """What reading the whole TIFF would show, in memory for a few of its rows.

    Raises:
        BadImageError: as ``open_image_bands``, and where a part of the file is damaged.
    """
    digest, low, high = xxhash.xxh3_128(), 255, 0
    opacity = [255, 0]
    with open_image_bands(path) as source:
        for first, end in source.bands():
            stored = source.stored(first, end)
            pixels = np.ascontiguousarray(source.shown(stored))
            digest.update(pixels.data)
            low, high = min(low, int(pixels.min())), max(high, int(pixels.max()))
            if source.alpha:
                alpha = stored[..., -1]
                opacity = [min(opacity[0], int(alpha.min())), max(opacity[1], int(alpha.max()))]
        notes = [*source.notes, *([alpha_note(*opacity)] if source.alpha else [])]
        content = ImageProperties.content_of(digest.hexdigest(), source.height, source.width)
        return ImageProperties(
            source.height, source.width, sha256_file(path), content, (low, high), notes, in_bands=True
        )


def _inspect_mask_bands(sample: Sample) -> MaskProperties:
    """What reading the whole mask of ``sample``, a TIFF, would show; see ``load_mask``. Parts are not told apart.

    Raises:
        BadImageError: as ``open_mask_bands``, and as ``load_mask``.
    """
    path = sample.mask
    assert isinstance(path, Path)
    counts = np.zeros(max(2, len(sample.classes) + 1), np.int64)
    levels = Levels(_LEVELS)
    objects, lone, threshold, value, unsaid = 0, True, 0.0, "", 0
    with open_mask_bands(path, by_number(sample)) as source:
        for first, end in source.bands():
            stored = source.read(first, end)
            if sample.classes or sample.instances:
                labels, numbers = mask_part(sample, 0, stored)
                counts += said_counts(labels, len(counts))
                if numbers is not None:
                    objects = max(objects, int(numbers.max()))
                    lone = lone and _is_single(numbers)
            else:
                if sample.unlabelled is not None:
                    said = stored != sample.unlabelled
                    unsaid += stored.size - int(np.count_nonzero(said))
                    stored = np.where(said, stored, 0).astype(stored.dtype)
                    if stored.max() >= _LEVELS or stored.min() < 0:
                        raise BadImageError(path, "holds numbers beyond 0..65535", "store 0 and 1")
                levels.add(stored)
                dtype = stored.dtype
        height, width, notes, lossy = source.height, source.width, list(source.notes), source.lossy
    if not (sample.classes or sample.instances):
        # Which level is foreground is known once all are: a binary mask may be 0 and 1, or 0 and 255.
        levels.finish()
        values = np.arange(_LEVELS)
        top, value = foreground(path, values, levels, dtype, lossy)
        threshold = top / 2
        counts = np.array([levels.count[values <= threshold].sum() - unsaid, levels.count[values > threshold].sum()])
    single = sample.instances and lone
    return MaskProperties(
        height, width, sha256_file(path), notes, tuple(counts.tolist()), objects, single, value, threshold, True
    )


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Checks that a file that is read in several goes, its digest among them, is one and the same all the time."""
    before = stamp(path)
    yield
    if stamp(path) != before:
        raise BadImageError(path, "was changed while it was read", "run the same command again")


def _is_banded(source: Path | Slice, tiled: bool) -> bool:
    """Whether a file is read in bands.

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
