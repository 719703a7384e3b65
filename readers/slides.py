"""Slides and their masks: what they are like, which tiles are worth a look; and what a part of any image holds."""

__all__ = ["BLOCK", "DrawnParts", "Part", "PartReader", "slide_mask_properties", "slide_places", "slide_properties"]

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images import formats
from textdiff.images.bands import BandedImage, open_image_bands, open_mask_bands
from textdiff.images.formats import BadImageError
from textdiff.images.images import AreaPart, covering
from textdiff.images.labels import UNSAID, said_counts
from textdiff.images.scaled import Scaled
from textdiff.images.slide_files import open_view, slide_digest
from textdiff.images.tiles import Grid
from textdiff.images.tissue import tissue_places
from textdiff.readers.annotations import is_outlined, read_annotations
from textdiff.readers.decoding import by_number, load_mask, mask_part
from textdiff.readers.inspection import ImageProperties, Inspected, MaskProperties, inspect_mask
from textdiff.readers.outlines import Drawn, bounds, draw, drawing_order
from textdiff.readers.sample import Sample, Slice

_LONGEST = 512
_Labels = tuple[NDArray[np.uint8], NDArray[np.uint32] | None]
"""Class numbers (h, w), and object numbers where they are kept."""
BLOCK = 2048
_NOWHERE = np.full((2, 2), -1.0)


class Part(NamedTuple):
    """A part of an image and of its mask, or all of them."""

    y: int
    """Where it begins in the image."""
    x: int
    image: NDArray[np.uint8]
    """(h, w, 3), RGB."""
    labels: NDArray[np.uint8] | None = None
    """(h, w) class numbers; None without a mask."""
    instances: NDArray[np.uint32] | None = None
    """(h, w) object numbers, where they are kept."""


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


def slide_mask_properties(sample: Sample, finest: tuple[int, int]) -> MaskProperties:
    """What the mask of a slide is like, whose finest level has ``finest`` pixels, height and width.

    Raises:
        BadImageError: it cannot be used.
    """
    path = sample.mask
    assert path is not None
    if isinstance(path, Path) and path.is_dir():
        raise BadImageError(path, "is a folder of objects, which slides cannot have", "save one mask, as a TIFF")
    if not _is_drawn_in_parts(sample, *finest):
        return inspect_mask(sample, *finest, tiled=True)
    parts = DrawnParts(sample, *finest)
    found, (counts, largest) = parts.found, parts.counts
    return MaskProperties(*finest, found.digest, found.notes, counts, largest, value=found.value)


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
        reader, size = PartReader(), grid.size
        # Where a mask may be silent what it says is the annotation; elsewhere that is the foreground.
        nothing = 0 if sample.unlabelled is None else UNSAID
        places = [place for place in places if (reader.labels(slide, *place, size, size)[0] != nothing).any()]
        if not places:
            raise BadImageError(sample.mask, "has no annotation where there is tissue", "leave --annotated-only out")
    return places


class PartReader:
    """Reads parts of slides, and of TIFFs too large to be held; the files of the last one stay open."""

    def __init__(self) -> None:
        self._images, self._masks = _Open(), _Open()

    def __call__(self, fact: Inspected, y: int, x: int, height: int, width: int) -> Part:
        """What lies in the image of the part (height, width) that begins at (y, x), of a slide in its view.

        Raises:
            BadImageError: a file is damaged there, or cannot be read any more.
        """
        source = fact.sample.image
        assert not isinstance(source, Slice)
        image: BandedImage = self._images.get(source, lambda stack: stack.enter_context(open_image_bands(source)))
        pixels = image.region(y, x, min(height, image.height - y), min(width, image.width - x))
        return Part(y, x, pixels, *(() if fact.mask is None else self.labels(fact, y, x, height, width)))

    def labels(self, fact: Inspected, y: int, x: int, height: int, width: int) -> _Labels:
        """The mask of a part, as far as it lies in the image.

        A mask of the size of a slide's finest level, as outlines are, is resized by area, as ``resize_mask`` does it.
        Object numbers are those in the middle of a pixel.
        """
        image = fact.image
        height, width = min(height, image.height - y), min(width, image.width - x)
        mask: _Mask = self._masks.get(fact.sample.mask, lambda stack: _open_mask(stack, fact))
        if (mask.height, mask.width) == (image.height, image.width):
            return mask.read(y, x, height, width)
        part = AreaPart((mask.height, mask.width), (image.height, image.width), y, x, height, width)
        fine, numbers = mask.read(*part.box)
        if numbers is not None:
            middle = np.ix_(
                (2 * np.arange(y, y + height) + 1) * mask.height // (2 * image.height) - part.box[0],
                (2 * np.arange(x, x + width) + 1) * mask.width // (2 * image.width) - part.box[1],
            )
            return fine[middle], numbers[middle]
        covered = np.stack([part.sums(fine == label) for label in range(1, max(1, len(fact.sample.classes)) + 1)])
        return covering(covered, part.sums(fine == UNSAID), part.whole), None


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


class _Mask(NamedTuple):
    """A mask that is a picture: a TIFF, what is outlined, or another file as a whole."""

    height: int
    width: int
    read: Callable[[int, int, int, int], _Labels]
    """``read(y, x, h, w)`` gives a part that lies inside."""


def _open_mask(stack: ExitStack, fact: Inspected) -> _Mask:
    sample, path, known = fact.sample, fact.sample.mask, fact.mask
    assert known is not None
    # Outlines are in pixels of the finest level, whatever the resolution that is asked for.
    height, width = fact.image.finest or (fact.image.height, fact.image.width)
    if _is_drawn_in_parts(sample, height, width):
        return _Mask(height, width, DrawnParts(sample, height, width).read)
    if known.in_bands:
        assert isinstance(path, Path)
        bands = stack.enter_context(open_mask_bands(path, by_number(sample)))
        return _Mask(bands.height, bands.width, lambda *place: mask_part(sample, known.threshold, bands.region(*place)))
    labels, numbers, *_ = load_mask(sample, height, width)

    def read(y: int, x: int, height: int, width: int) -> _Labels:
        part = slice(y, y + height), slice(x, x + width)
        return labels[part], None if numbers is None else numbers[part]

    return _Mask(len(labels), labels.shape[1], read)


def _is_drawn_in_parts(sample: Sample, height: int, width: int) -> bool:
    """Whether a mask is outlines of an image that is too large for them to be drawn at once."""
    return sample.mask is not None and is_outlined(sample.mask) and formats.too_many_pixels(height, width)


class DrawnParts:
    """The outlines that are the mask of ``sample``, in an image of ``height`` x ``width`` pixels.

    Raises:
        BadImageError: as ``read_annotations``, or all outlines lie outside the image.
    """

    def __init__(self, sample: Sample, height: int, width: int) -> None:
        assert sample.mask is not None
        self.height, self.width, self._sample, self._path = height, width, sample, sample.mask
        self.found = read_annotations(sample, height, width)
        # The first to hold a pixel keeps it; in a part the order is that of the whole.
        self._order = drawing_order(self.found.drawn, self.found.labels)
        around = [bounds(self.found.drawn[index]) for index in self._order]
        boxes = np.array([_NOWHERE if box is None else box for box in around]).reshape(-1, 2, 2)
        self._low, self._high = boxes[:, 0], boxes[:, 1]
        if len(boxes) and not self._inside(0, 0, height, width).any():
            what = f"has all its outlines outside the image of {width}x{height} pixels"
            raise BadImageError(self._path, what, "is it another image's?")

    def read(self, y: int, x: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
        """Class numbers (height, width) of the part that begins at (y, x), and object numbers or None, as ``draw``."""
        places = [self._order[at] for at in np.flatnonzero(self._inside(y, x, height, width))]
        drawn = [_shifted(self.found.drawn[place], y, x) for place in places]
        labels = [self.found.labels[place] for place in places]
        # Areas that are equal but for their last bits would be in another order after shifting.
        raster = draw(self._path, drawn, labels, self.found.rest, height, width, self._sample.instances, ordered=True)
        if raster.instances is None:
            return raster.labels, None
        return raster.labels, np.array([0, *(place + 1 for place in places)], np.uint32)[raster.instances]

    @cached_property
    def counts(self) -> tuple[tuple[int, ...], int]:
        """The pixels that are said to be background, and of each class; and the largest number of an object."""
        classes = max(2, len(self._sample.classes) + 1)
        counts, largest, seen = np.zeros(classes, np.int64), 0, 0
        for y, x in self._blocks():
            labels, numbers = self.read(y, x, min(BLOCK, self.height - y), min(BLOCK, self.width - x))
            counts += said_counts(labels, classes)
            largest, seen = max(largest, 0 if numbers is None else int(numbers.max())), seen + labels.size
        if self.found.rest < classes:
            counts[self.found.rest] += self.height * self.width - seen
        return tuple(counts.tolist()), largest

    def _blocks(self) -> list[tuple[int, int]]:
        """Where there may be something of an object."""
        touched = np.zeros((-(-self.height // BLOCK), -(-self.width // BLOCK)), bool)
        for low, high in zip(self._low, self._high, strict=True):
            (left, top), (right, bottom) = (np.maximum(end, 0) // BLOCK for end in (low, high))
            touched[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
        return [(int(row) * BLOCK, int(column) * BLOCK) for row, column in np.argwhere(touched)]

    def _inside(self, y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which objects, in their order, have a box that reaches into a part."""
        reaches = (self._high > (x, y)) & (self._low < (x + width, y + height))
        return reaches[:, 0] & reaches[:, 1]


def _shifted(one: Drawn, y: int, x: int) -> Drawn:
    return replace(
        one,
        polygons=tuple(tuple(ring - (x, y) for ring in rings) for rings in one.polygons),
        strokes=tuple(line - (x, y) for line in one.strokes),
        patches=tuple(patch._replace(top=patch.top - y, left=patch.left - x) for patch in one.patches),
    )
