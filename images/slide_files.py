"""Files -> slides: those of scanners by OpenSlide (https://openslide.org), all others by our own code.

A TIFF that OpenSlide does not know as a scanner's has the levels that tifffile finds in it, and is read by the module
``tiff``; any other image is held whole, and has one level.
"""

__all__ = ["is_slide", "open_slide", "open_view", "slide_digest"]

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.files import sha256_file
from textdiff.images import formats
from textdiff.images.decode import decode, to_rgb
from textdiff.images.formats import REPLACE, TIFF_MAGIC, BadImageError
from textdiff.images.pixel_size import PixelSize, file_pixel_size
from textdiff.images.scaled import SLIDES, Scaled
from textdiff.images.slide import Level, Pixels, Slide, SlideView
from textdiff.images.slide_dicom import files_of_dicom_slide, is_dicom_slide
from textdiff.images.tiff import TiffImage, open_tiff

_INSTALL = "pip install 'textdiff[wsi]'"
_NOT_OURS = (None, "generic-tiff")
"""What OpenSlide says of a TIFF that is better read by our own code, which knows its calibration and its levels."""
_BLOCK = 512


def is_slide(path: Path) -> bool:
    """Whether a file is a slide of a scanner, by its ending, as DICOM, or by what OpenSlide says of it.

    A directory is none: of a slide in DICOM any of its files stands for all.
    """
    if path.suffix.lower() in SLIDES or is_dicom_slide(path):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return False
    if not start.startswith(TIFF_MAGIC) or find_spec("openslide") is None:
        return False
    from openslide import OpenSlide

    return OpenSlide.detect_format(path) not in _NOT_OURS


@contextmanager
def open_slide(source: Path | Scaled) -> Iterator[Slide]:
    """Opens a slide, or any image as one.

    Raises:
        UserError: it is a slide, and OpenSlide is not installed.
        BadImageError: damaged, incomplete, or of a kind that is not read.
    """
    path, own = (source.file, source.own) if isinstance(source, Scaled) else (source, None)
    given = None if own is None else (own, own)
    with ExitStack() as stack:
        if is_slide(path):
            slide = stack.enter_context(_scanned(path, given))
        elif _starts_as_tiff(path):
            slide = stack.enter_context(_tiff(path, given or file_pixel_size(path)))
        else:
            slide = _held(path, given or file_pixel_size(path))
        yield slide


@contextmanager
def open_view(source: Scaled) -> Iterator[SlideView]:
    """Opens a slide at the resolution that ``source`` names.

    Raises:
        BadImageError: as ``open_slide`` and ``Slide.at``.
    """
    with open_slide(source) as slide:
        yield slide.at(source.mpp)


def slide_digest(path: Path) -> str:
    """The SHA-256 of all that a slide consists of: its file, MIRAX's folder, DICOM's further levels."""
    files = [path]
    if path.suffix.lower() == ".mrxs":
        files += sorted(file for file in path.with_suffix("").rglob("*") if file.is_file())
    elif is_dicom_slide(path):
        files = files_of_dicom_slide(path)
    if len(files) == 1:
        return sha256_file(path)
    lines = [f"{sha256_file(file)} {file.relative_to(path.parent).as_posix()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _held(path: Path, pixel_size: PixelSize | None) -> Slide:
    """An image that is held as a whole, and is its only level."""
    pixels, notes = decode(path)
    level = Level(len(pixels), pixels.shape[1], lambda y, x, h, w: pixels[y : y + h, x : x + w])
    return Slide(path, (level,), pixel_size, tuple(notes))


def _starts_as_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(TIFF_MAGIC)
    except OSError as error:
        raise BadImageError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error


@contextmanager
def _scanned(path: Path, given: PixelSize | None) -> Iterator[Slide]:
    """Opens a slide of a scanner by OpenSlide."""
    if find_spec("openslide") is None:
        raise UserError(f"{path}: is a slide, and reading it needs the package openslide-python; {_INSTALL}")
    import openslide

    _check_whole(path)
    try:
        file = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise BadImageError(path, "is no slide that OpenSlide reads (truncated or damaged?)", REPLACE) from error
    except openslide.OpenSlideError as error:
        raise BadImageError(path, f"cannot be opened as a slide ({error})", REPLACE) from error
    except OSError as error:
        raise BadImageError(path, "cannot be read", "check the path and its permissions") from error
    with file:
        said = file.properties
        whole = (0, 0, *file.dimensions)
        names = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
        x, y, width, height = [int(said.get(name, usual)) for name, usual in zip(names, whole, strict=True)]
        colour = said.get("openslide.background-color", "ffffff")
        background = np.array([int(colour[at : at + 2], 16) for at in (0, 2, 4)], np.float32)
        levels = []
        for number, down in enumerate(file.level_downsamples):
            full = (width, height) == file.dimensions
            size = file.level_dimensions[number] if full else (round(width / down), round(height / down))
            read = _reader(path, file, number, (x, y, down), background)
            levels.append(Level(max(1, size[1]), max(1, size[0]), read))
        notes = [f"is read from ({x}, {y}), where its scanner found tissue"] if (x, y) != (0, 0) else []
        mpp = [float(said.get(f"openslide.mpp-{axis}", 0)) for axis in "xy"]
        pixel_size = (mpp[0], mpp[1]) if all(0 < one < np.inf for one in mpp) else None
        yield Slide(path, tuple(levels), given or pixel_size, tuple(notes))


def _reader(
    path: Path, file: Any, level: int, place: tuple[int, int, float], background: NDArray[np.float32]
) -> Callable[[int, int, int, int], Pixels]:
    """``Level.read`` of a level: ``place`` is where it begins in the finest one, and how many times larger that is."""
    left, top, down = place

    def read(y: int, x: int, height: int, width: int) -> Pixels:
        from openslide import OpenSlideError

        try:
            at = (left + round(x * down), top + round(y * down))
            region = np.asarray(file.read_region(at, level, (width, height)))
        except OpenSlideError as error:
            what = f"cannot be read at ({round(x * down)}, {round(y * down)}) (truncated or damaged: {error})"
            raise BadImageError(path, what, REPLACE) from error
        opacity = region[..., 3:]
        if opacity.min() == 255:
            return region[..., :3]
        # What was not scanned is transparent; viewers show the slide's own background there.
        share = opacity.astype(np.float32) / 255
        return np.round(region[..., :3] * share + background * (1 - share)).astype(np.uint8)

    def read_blocks(y: int, x: int, height: int, width: int) -> Pixels:
        out = np.empty((height, width, 3), np.uint8)
        for row in range(y - y % _BLOCK, y + height, _BLOCK):
            for column in range(x - x % _BLOCK, x + width, _BLOCK):
                y0, x0, y1, x1 = (
                    max(y, row),
                    max(x, column),
                    min(y + height, row + _BLOCK),
                    min(x + width, column + _BLOCK),
                )
                block = read(row, column, y1 - row, x1 - column)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - row :, x0 - column :]
        return out

    # OpenSlide is told where to read in pixels of the finest level. If those of another one begin between them, it
    # interpolates by a fraction of a pixel that depends on where reading begins, which must not be where we were asked.
    return read if down == round(down) else read_blocks


def _check_whole(path: Path) -> None:
    """Refuses, before any work, what OpenSlide would stumble over halfway.

    Raises:
        BadImageError: a MIRAX slide without its folder, or a file whose pieces lie beyond its end.
    """
    if path.suffix.lower() == ".mrxs" and not (path.with_suffix("") / "Slidedat.ini").is_file():
        folder = path.with_suffix("").name
        raise BadImageError(path, f"comes without its folder {folder}, which holds the slide", "put it beside the file")
    if not _starts_as_tiff(path):
        return
    try:
        with tifffile.TiffFile(path) as tiff:
            ends = [
                offset + count
                for page in tiff.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            size = tiff.filehandle.size
    except Exception:  # a structure of the scanner's own, which OpenSlide knows better
        return
    if not ends or max(ends) > size:
        raise BadImageError(path, "is truncated or damaged: a part of it lies beyond the end of the file", REPLACE)


@contextmanager
def _tiff(path: Path, pixel_size: PixelSize | None) -> Iterator[Slide]:
    """Opens a TIFF at the levels that tifffile finds in it, and reads it by our own code."""
    with open_tiff(path) as first:
        images = [first, *_smaller(path, first)]
        if any(image.dtype not in (np.uint8, bool) or image.orientation != 1 for image in images):
            if formats.too_many_pixels(first.height, first.width):
                raise BadImageError(path, "is not plain", "save it as upright 8-bit RGB or grey")
            yield _held(path, pixel_size)
            return

        def reader(image: TiffImage) -> Callable[[int, int, int, int], Pixels]:
            def read(y: int, x: int, height: int, width: int) -> Pixels:
                return to_rgb(path, image.stored(image.rows(y, y + height, x, x + width)).shown())[0]

            return read

        levels = tuple(Level(image.height, image.width, reader(image)) for image in images)
        yield Slide(path, levels, pixel_size, tuple(first.notes))


def _smaller(path: Path, first: TiffImage) -> list[TiffImage]:
    """The further levels of a TIFF, as far as they can be read like the first."""
    try:
        pages = [level.keyframe for level in first.file.series[0].levels[1:]]
        images = [TiffImage(path, first.file, page) for page in pages]
    except Exception:  # they only save time
        return []
    like = (first.channels, first.dtype, first.photometric)
    sizes = [first.width, *(image.width for image in images)]
    fits = all((image.channels, image.dtype, image.photometric) == like for image in images)
    return images if fits and sizes == sorted(sizes, reverse=True) else []
