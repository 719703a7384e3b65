"""Slides and their masks: what they are like, which tiles are worth a look, and what a tile of them holds."""

__all__ = ["SlideReader", "SlideTile", "slide_mask_properties", "slide_places", "slide_properties"]

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images import formats
from textdiff.images.bands import BandedImage, open_mask_bands
from textdiff.images.formats import BadImageError, read_bytes
from textdiff.images.images import taps, weighted
from textdiff.images.labels import UNSAID
from textdiff.images.scaled import Scaled
from textdiff.images.slide import SlideView
from textdiff.images.slide_files import open_view, slide_digest
from textdiff.images.tiles import Grid
from textdiff.images.tissue import tissue_places
from textdiff.readers.annotations import is_by_class, is_outlined
from textdiff.readers.aperio import Outline, covered_pixels, outlines_of, rasterise_part
from textdiff.readers.decoding import by_number, load_mask, mask_part
from textdiff.readers.drawn_parts import DrawnParts
from textdiff.readers.inspection import ImageProperties, Inspected, MaskProperties, inspect_mask
from textdiff.readers.sample import Sample

_LONGEST = 512


class SlideTile(NamedTuple):
    """A tile as far as it lies in the image, (h, w)."""

    image: NDArray[np.uint8]
    """(h, w, 3), RGB."""
    labels: NDArray[np.uint8] | None
    """Class numbers; None without a mask."""
    instances: NDArray[np.uint32] | None
    """Object numbers, where they are kept."""


def slide_properties(source: Scaled) -> ImageProperties:
    """What a slide is like at the resolution that is asked for, without reading all of it.

    Raises:
        BadImageError: it cannot be used.
    """
    with open_view(source) as view:
        look = view.slide.overview(_LONGEST)
        digest = slide_digest(source.file)
        content = ImageProperties.content_of(digest, view.height, view.width)
        levels = (int(look.min()), int(look.max()))
        return ImageProperties(
            *(view.height, view.width, digest, content, levels, list(view.slide.notes)),
            in_bands=True,
            finest=(view.slide.height, view.slide.width),
        )


def slide_mask_properties(sample: Sample, height: int, width: int, finest: tuple[int, int]) -> MaskProperties:
    """What the mask of a slide is like, whose view has ``height`` x ``width`` pixels and whose finest level ``finest``.

    Raises:
        BadImageError: it cannot be used.
    """
    path = sample.mask
    assert path is not None
    if isinstance(path, Path) and path.is_dir():
        raise BadImageError(path, "is a folder of objects, which slides cannot have", "save one mask, as a TIFF")
    if is_by_class(sample) or not is_outlined(path):
        if not _is_drawn_in_parts(sample, *finest):
            return inspect_mask(sample, *finest, tiled=True)
        parts = DrawnParts(sample, *finest)
        found, (counts, largest) = parts.found, parts.counts
        return MaskProperties(*finest, found.digest, found.notes, counts, largest, value=found.value)
    outlines, notes, digest = _outlines(sample)
    covered = min(covered_pixels(outlines, *finest) * height * width // (finest[0] * finest[1]), height * width)
    if outlines and not covered:
        raise BadImageError(path, "has all its outlines outside the slide", "is it another image's?")
    kept = sum(not outline.excluded for outline in outlines)
    return MaskProperties(height, width, digest, notes, (height * width - covered, covered), kept)


def slide_places(slide: Inspected, grid: Grid, tissue: float, annotated_only: bool) -> list[tuple[int, int]]:
    """The tiles of a slide that are worth a row of a cache, in the order of the grid.

    Args:
        slide: what is known of it.
        grid: all its tiles.
        tissue: the share of a tile that must be tissue.
        annotated_only: leave out tiles of a slide with a mask that have no foreground, or of which it says nothing.

    Raises:
        BadImageError: none is left.
    """
    sample = slide.sample
    assert isinstance(sample.image, Scaled)
    with open_view(sample.image) as view:
        places = tissue_places(view, grid, tissue)[0] if tissue else grid.places
    if not places:
        raise BadImageError(sample.image, "shows no tissue (docs/slides.md)", "take all tiles with --tissue 0")
    if annotated_only and sample.mask is not None:
        reader = SlideReader()
        # Where a mask may be silent what it says is the annotation; elsewhere that is the foreground.
        nothing = 0 if sample.unlabelled is None else UNSAID
        places = [place for place in places if (reader.labels(slide, *place, grid.size)[0] != nothing).any()]
        if not places:
            raise BadImageError(sample.mask, "has no annotation where there is tissue", "leave --annotated-only out")
    return places


class SlideReader:
    """Reads tiles; the files of the last slide stay open, as rows of one slide follow one another."""

    def __init__(self) -> None:
        self._images, self._masks = _Open(), _Open()

    def __call__(self, slide: Inspected, y: int, x: int, tile: int) -> SlideTile:
        """The tile that begins at (y, x) of the view of a slide.

        Raises:
            BadImageError: a file is damaged there, or cannot be read any more.
        """
        source = slide.sample.image
        assert isinstance(source, Scaled)
        view: SlideView = self._images.get(source, lambda stack: stack.enter_context(open_view(source)))
        height, width = min(tile, view.height - y), min(tile, view.width - x)
        image = view.region(y, x, height, width)
        if slide.sample.mask is None:
            return SlideTile(image, None, None)
        return SlideTile(image, *self.labels(slide, y, x, tile))

    def labels(
        self, slide: Inspected, y: int, x: int, tile: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
        """The mask of a tile, class numbers (h, w) and object numbers or None.

        A mask of the size of the finest level is resized by area, as ``resize_mask`` does it. Object numbers are those
        in the middle of a pixel, outlines are drawn at the view's size.
        """
        sample, path, image = slide.sample, slide.sample.mask, slide.image
        assert path is not None
        height, width = min(tile, image.height - y), min(tile, image.width - x)
        assert image.finest is not None
        scale = (image.finest[1] / image.width, image.finest[0] / image.height)
        if is_outlined(path) and not is_by_class(sample):
            outlines = self._masks.get(path, lambda stack: _scaled(_outlines(sample)[0], scale))
            numbers = rasterise_part(outlines, y, x, height, width)
            return (numbers > 0).astype(np.uint8), numbers if sample.instances else None
        mask: _Mask = self._masks.get(path, lambda stack: _Mask(stack, slide))
        if (mask.height, mask.width) == (image.height, image.width):
            return mask.read(y, x, height, width)
        rows, columns = (
            [part[at : at + length] for part in taps(old, new, "area")[:2]]
            for at, length, old, new in ((y, height, mask.height, image.height), (x, width, mask.width, image.width))
        )
        top, left = int(rows[0].min()), int(columns[0].min())
        fine, fine_numbers = mask.read(top, left, int(rows[0].max()) + 1 - top, int(columns[0].max()) + 1 - left)
        if fine_numbers is not None:
            middle = np.ix_(
                ((2 * np.arange(y, y + height) + 1) * mask.height // (2 * image.height)) - top,
                ((2 * np.arange(x, x + width) + 1) * mask.width // (2 * image.width)) - left,
            )
            return fine[middle], fine_numbers[middle]
        whole = float(mask.height * mask.width)
        classes = max(1, len(sample.classes))
        parts = ((rows[0] - top, rows[1]), (columns[0] - left, columns[1]))
        covered = np.stack([weighted((fine == label).astype(np.uint8), *parts) for label in range(1, classes + 1)])
        unsaid = weighted((fine == UNSAID).astype(np.uint8), *parts)
        most = whole - unsaid - covered.sum(0)
        labels = np.zeros((height, width), np.uint8)
        for label, of_class in enumerate(covered, start=1):
            labels[of_class >= most] = label
            most = np.maximum(most, of_class)
        labels[2 * unsaid > whole] = UNSAID
        return labels, None


class _Open:
    """What was opened last."""

    def __init__(self) -> None:
        self._stack, self._key, self._value = ExitStack(), None, None

    def get(self, key: Any, opened: Any) -> Any:
        if key != self._key:
            self._stack.close()
            self._key, self._value = None, None
            self._value = opened(self._stack)
            self._key = key
        return self._value


class _Mask:
    """A mask that is a picture: parts of a TIFF, or of what is outlined, or another file as a whole."""

    def __init__(self, stack: ExitStack, slide: Inspected) -> None:
        sample, path = slide.sample, slide.sample.mask
        assert path is not None
        assert slide.image.finest is not None
        assert slide.mask is not None
        self._sample, self._threshold = sample, slide.mask.threshold
        self._bands: BandedImage | None = None
        self._parts: DrawnParts | None = None
        if _is_drawn_in_parts(sample, *slide.image.finest):
            self._parts = DrawnParts(sample, *slide.image.finest)
            self.height, self.width = slide.image.finest
        elif slide.mask.in_bands:
            assert isinstance(path, Path)
            self._bands = stack.enter_context(open_mask_bands(path, by_number(sample)))
            self.height, self.width = self._bands.height, self._bands.width
        else:
            # Outlines are in pixels of the finest level, whatever the resolution that is asked for.
            self._whole = load_mask(sample, *slide.image.finest)
            self.height, self.width = self._whole.labels.shape

    def read(self, y: int, x: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
        part = (slice(y, y + height), slice(x, x + width))
        if self._parts is not None:
            return self._parts.read(y, x, height, width)
        if self._bands is None:
            numbers = self._whole.instances
            return self._whole.labels[part], None if numbers is None else numbers[part]
        return mask_part(self._sample, self._threshold, self._bands.region(y, x, height, width))


def _is_drawn_in_parts(sample: Sample, height: int, width: int) -> bool:
    """Whether a mask is outlines of an image that is too large for them to be drawn at once."""
    return is_by_class(sample) and formats.too_many_pixels(height, width)


def _outlines(sample: Sample) -> tuple[list[Outline], list[str], str]:
    path = sample.mask
    assert isinstance(path, Path)
    data = read_bytes(path)
    return *outlines_of(path, data), hashlib.sha256(data).hexdigest()


def _scaled(outlines: list[Outline], scale: tuple[float, float]) -> list[Outline]:
    return [Outline(outline.corners / scale, outline.layer, outline.excluded) for outline in outlines]
