"""TIFF files that are read a few rows at a time: images and masks too large to be held."""

__all__ = ["RowSource", "is_large", "large_size", "open_mask_rows", "open_rows"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from textdiff.pipeline.imaging import formats
from textdiff.pipeline.imaging.formats import JPEG_COMPRESSIONS, TIFF_COMPRESSIONS, TIFF_MAGIC, BadImageError
from textdiff.pipeline.imaging.masks import inverted_note

MAX_PIECE_BYTES = 1 << 28
BAND_BYTES = 1 << 25

_KINDS = tifffile.PHOTOMETRIC


@dataclass(frozen=True)
class RowSource:
    """A TIFF of which some rows can be read alone."""

    height: int
    width: int
    stored: Callable[[int, int], NDArray[Any]]
    """``stored(first, end)`` gives these rows as they are in the file: (end - first, width, channels)."""
    shown: Callable[[NDArray[Any]], NDArray[Any]]
    """What is to be seen of stored rows: RGB (h, width, 3) uint8 of an image, (h, width) of a mask."""
    step: int
    """Rows that are best read at once: about ``BAND_BYTES``, and no piece of the file is decoded twice."""
    notes: tuple[str, ...] = ()
    """What a user should know about the file, one phrase each."""
    alpha_at: int | None = None
    """Where among ``notes`` one on the alpha belongs, the last stored channel; None without one."""
    lossy: bool = False
    """Whether it is compressed as JPEG."""

    def read(self, first: int, end: int) -> NDArray[Any]:
        """The rows ``first`` ... ``end`` - 1 as they are ``shown``.

        Raises:
            BadImageError: the file is damaged there.
        """
        return self.shown(self.stored(first, end))

    def bands(self) -> Iterator[tuple[int, int]]:
        """(first, end) of bands of ``step`` rows, from the top to the bottom."""
        for first in range(0, self.height, self.step):
            yield first, min(first + self.step, self.height)


def is_large(path: Path) -> bool:
    """Whether the file is a TIFF of more than ``MAX_MEGAPIXELS``; only such a file is read in parts."""
    return large_size(path) is not None


def large_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of a file that ``is_large``, None for all others.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF_MAGIC):
            return None
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            height, width = page.imagelength, page.imagewidth
    except Exception:  # whatever is wrong with the file, reading it as a whole says so in one line
        return None
    return (height, width) if formats.too_many_pixels(height, width) else None


@contextmanager
def open_rows(path: Path) -> Iterator[RowSource]:
    """Opens a TIFF to read its first page by rows: 8 bits, grey or RGB, alpha dropped; in tiles, strips or as it is.

    Rows are those that ``decode`` gives of the whole file, and so are the notes, but for one on the alpha.

    Raises:
        BadImageError: damaged, another kind of TIFF, or compressed in pieces too large to be read in parts.
    """
    with _open(path) as tiff:
        page = tiff.pages.first
        jpeg = page.photometric == _KINDS.YCBCR and page.compression not in TIFF_COMPRESSIONS
        plain = page.dtype == np.uint8 and page.axes in ("YX", "YXS")
        _check(
            path,
            page,
            plain and (jpeg or page.photometric in (_KINDS.MINISBLACK, _KINDS.MINISWHITE, _KINDS.RGB)),
            "save it as upright 8-bit RGB or grey",
        )
        inverted = page.photometric == _KINDS.MINISWHITE
        extra = () if inverted else page.extrasamples
        colours = page.samplesperpixel - len(extra)

        def shown(rows: NDArray[Any]) -> NDArray[Any]:
            rows = ~rows if inverted else rows
            return np.repeat(rows[..., :1], 3, axis=2) if colours < 3 else rows[..., :3]

        notes, alpha_at = _pages(tiff), None
        if extra and extra[-1] == tifffile.EXTRASAMPLE.UNSPECIFIED:
            notes.append(formats.channels_note(page.samplesperpixel, colours))
        elif extra:
            alpha_at = len(notes)
        if colours < 3:
            notes.append(formats.GREY_NOTE)
        yield _source(path, tiff, shown, notes, alpha_at)


@contextmanager
def open_mask_rows(path: Path, numbers: bool) -> Iterator[RowSource]:
    """Opens a TIFF to read the mask on its first page by rows, (h, W) as it is stored: one channel of whole numbers.

    Args:
        path: the file.
        numbers: it holds numbers of classes or objects, of any width. Those of a palette are its indices; how a number
            is shown does not change it. A mask of two classes has 1, 8 or 16 bits and no palette.

    Raises:
        BadImageError: as ``open_rows``.
    """
    with _open(path) as tiff:
        page = tiff.pages.first
        dtype = np.dtype(page.dtype)
        kinds = (_KINDS.MINISBLACK, _KINDS.MINISWHITE, *([_KINDS.PALETTE] if numbers else []))
        fits = dtype.kind in "bui" if numbers else dtype.kind in "bu" and dtype.itemsize <= 2
        what = "one upright channel of whole numbers" if numbers else "one upright channel of 8 bits, 0 and 255"
        _check(path, page, fits and page.axes == "YX" and page.photometric in kinds, f"save it as {what}")
        if numbers and page.compression in JPEG_COMPRESSIONS:
            raise BadImageError(path, "is a JPEG, which does not keep numbers", "export it without")
        white_is_zero = page.photometric == _KINDS.MINISWHITE and not numbers
        inverted = white_is_zero and not tiff.is_imagej

        def shown(rows: NDArray[Any]) -> NDArray[Any]:
            return ~rows[..., 0] if inverted else rows[..., 0]

        notes = _pages(tiff) + ([inverted_note(bool(tiff.is_imagej))] if white_is_zero else [])
        source = _source(path, tiff, shown, notes)
        yield replace(source, lossy=page.compression in JPEG_COMPRESSIONS)


@contextmanager
def _open(path: Path) -> Iterator[tifffile.TiffFile]:
    try:
        tiff = tifffile.TiffFile(path)
    except OSError as error:
        raise BadImageError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    except tifffile.TiffFileError as error:
        raise BadImageError(path, "is not a readable TIFF (truncated or damaged)", formats.REPLACE) from error
    with tiff:
        yield tiff


def _source(
    path: Path,
    tiff: tifffile.TiffFile,
    shown: Callable[[NDArray[Any]], NDArray[Any]],
    notes: list[str],
    alpha_at: int | None = None,
) -> RowSource:
    page: Any = tiff.pages.first
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    row_bytes = width * channels * np.dtype(page.dtype).itemsize
    if page.is_contiguous:
        start, dtype, piece = page.dataoffsets[0], np.dtype(page.dtype).newbyteorder(tiff.byteorder), 1

        def taken(first: int, end: int) -> NDArray[Any]:
            # Read rather than mapped: pages of a mapped file would count as memory until the system takes them.
            count = (end - first) * width * channels
            return np.fromfile(path, dtype, count, offset=start + first * row_bytes)
    else:
        end_of_file = path.stat().st_size
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            # What is missing would be filled with zeros.
            if count == 0 or offset + count > end_of_file:
                raise BadImageError(
                    path, "is truncated: a piece of it lies beyond the end of the file", formats.REPLACE
                )
        array: Any = zarr.open(page.aszarr(), mode="r")
        piece = array.chunks[0]
        if np.prod(array.chunks) * np.dtype(page.dtype).itemsize > MAX_PIECE_BYTES:
            raise BadImageError(path, "is compressed in one piece too large to be read in parts", "save it in tiles")

        def taken(first: int, end: int) -> NDArray[Any]:
            rows: NDArray[Any] = array[first:end]
            return rows

    def stored(first: int, end: int) -> NDArray[Any]:
        try:
            return taken(first, end).reshape(end - first, width, channels)
        except Exception as error:  # decoders raise whatever they stumble over
            raise BadImageError(path, f"cannot be read at rows {first} to {end - 1}", formats.REPLACE) from error

    step = max(1, BAND_BYTES // (row_bytes * piece)) * piece
    return RowSource(height, width, stored, shown, step, tuple(notes), alpha_at)


def _pages(tiff: tifffile.TiffFile) -> list[str]:
    return [formats.pages_note(len(tiff.pages))] if len(tiff.pages) > 1 else []


def _check(path: Path, page: Any, plain: bool, fix: str) -> None:
    if page.compression not in TIFF_COMPRESSIONS and find_spec("imagecodecs") is None:
        name = tifffile.COMPRESSION(page.compression).name
        raise BadImageError(path, f"is compressed with {name}", "`pip install imagecodecs` to read it, or save it anew")
    orientation = page.tags.get(274)
    if not plain or (orientation is not None and orientation.value != 1):
        raise BadImageError(path, f"has more than {formats.MAX_MEGAPIXELS} megapixels and is not plain", fix)
