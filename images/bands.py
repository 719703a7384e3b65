"""TIFF files and slides that are read in bands of rows, or in parts of them: images and masks too large to be held."""

__all__ = ["BandedImage", "large_size", "open_image_bands", "open_mask_bands"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from textdiff.images import formats
from textdiff.images.decode import to_rgb
from textdiff.images.formats import TIFF_MAGIC, BadImageError
from textdiff.images.masks import check_single, inverted_note
from textdiff.images.scaled import Scaled
from textdiff.images.slide import SlideView
from textdiff.images.slide_files import open_view
from textdiff.images.tiff import TiffImage, open_tiff

MAX_PIECE_BYTES = 1 << 28
BAND_BYTES = 1 << 25


@dataclass(frozen=True)
class BandedImage:
    """An image of which some rows can be read alone."""

    height: int
    width: int
    stored: Callable[..., NDArray[Any]]
    """``stored(first, end)`` gives these rows as they are in the file: (end - first, width, channels). If two further
    numbers are given, of the columns between them only."""
    shown: Callable[[NDArray[Any]], NDArray[Any]]
    """What is to be seen of stored rows: RGB (h, width, 3) uint8 of an image, (h, width) of a mask."""
    step: int
    """Rows that are best read at once: about ``BAND_BYTES``, and no piece of the file is decoded twice."""
    notes: tuple[str, ...] = ()
    """What a user should know about the file, one phrase each."""
    alpha: bool = False
    """Whether the last stored channel is an alpha, of which ``notes`` say nothing."""
    lossy: bool = False
    """Whether it is compressed as JPEG."""
    view: SlideView | None = None
    """What is read of a slide; None of a TIFF at its own resolution."""

    def region(self, y: int, x: int, height: int, width: int) -> NDArray[Any]:
        """The part of the image that begins at (y, x) and lies in it, (height, width) of what is ``shown``.

        Raises:
            BadImageError: the file is damaged there.
        """
        return self.shown(self.stored(y, y + height, x, x + width))

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


def large_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of a TIFF of more than ``MAX_MEGAPIXELS``, which is read in bands; None of all other files.

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
def open_image_bands(path: Path | Scaled) -> Iterator[BandedImage]:
    """Opens a TIFF to read its first image in bands: upright, 8 bits or fewer; in tiles, strips or as it is.

    Rows are those that ``decode`` gives of the whole file, and so are the notes, but for one on the alpha. What is
    ``Scaled``, such as a slide, is read at the resolution that it names.

    Raises:
        BadImageError: damaged, another kind of TIFF, or compressed in pieces too large to be read in bands; of a slide
            as ``open_view``.
    """
    if isinstance(path, Scaled):
        with open_view(path) as view:

            def rows(first: int, end: int, left: int = 0, right: int = view.width) -> NDArray[np.uint8]:
                return view.region(first, left, end - first, right - left)

            step = max(1, BAND_BYTES // (3 * view.width))
            yield BandedImage(view.height, view.width, rows, np.asarray, step, view.slide.notes, view=view)
        return
    with open_tiff(path) as tiff:
        fits = tiff.dtype in (np.uint8, bool) and tiff.orientation == 1
        step = _step(path, tiff, fits, "save it as upright 8-bit RGB or grey")

        def shown(rows: NDArray[Any]) -> NDArray[Any]:
            return to_rgb(path, tiff.stored(rows).shown())[0]

        notes = (*tiff.notes, *to_rgb(path, tiff.stored(np.zeros((1, 1, tiff.channels), tiff.dtype)).shown())[1])
        yield BandedImage(tiff.height, tiff.width, tiff.rows, shown, step, notes, tiff.alpha is not None)


@contextmanager
def open_mask_bands(path: Path, numbers: bool) -> Iterator[BandedImage]:
    """Opens a TIFF to read the mask in it in bands, (h, W) as it is stored: one channel of whole numbers.

    Args:
        path: the file.
        numbers: it holds numbers of classes or objects, of any width. Those of a palette are its indices; how a number
            is shown does not change it. A mask of two classes has 1, 8 or 16 bits and no palette.

    Raises:
        BadImageError: as ``open_image_bands``.
    """
    with open_tiff(path) as tiff:
        check_single(path, tiff.unread)
        if numbers and tiff.lossy:
            raise BadImageError(path, "is a JPEG, which does not keep numbers", "export it without")
        whole, plain = tiff.dtype.kind in "bui", tiff.dtype in (bool, np.uint8, np.uint16)
        fits = whole if numbers else plain and tiff.photometric != tifffile.PHOTOMETRIC.PALETTE
        what = "one upright channel of whole numbers" if numbers else "one upright channel of 8 bits, 0 and 255"
        step = _step(path, tiff, fits and tiff.channels == 1 and tiff.orientation == 1, f"save it as {what}")

        def shown(rows: NDArray[Any]) -> NDArray[Any]:
            stored = tiff.stored(rows)
            return stored.pixels if numbers or (stored.inverted and stored.writer) else stored.shown()

        notes, sample = list(tiff.notes), tiff.stored(np.zeros((1, 1, 1), tiff.dtype))
        if sample.inverted and not numbers:
            notes.append(inverted_note(sample.writer))
        yield BandedImage(tiff.height, tiff.width, tiff.rows, shown, step, tuple(notes), lossy=tiff.lossy)


def _step(path: Path, tiff: TiffImage, plain: bool, fix: str) -> int:
    """Rows that are best read at once.

    Raises:
        BadImageError: the file is not ``plain``, or its pieces are too large.
    """
    if not plain:
        raise BadImageError(path, f"has more than {formats.MAX_MEGAPIXELS} megapixels and is not plain", fix)
    if tiff.piece_bytes > MAX_PIECE_BYTES:
        raise BadImageError(path, "is compressed in one piece too large to be read in parts", "save it in tiles")
    row_bytes = tiff.nbytes // tiff.height
    return max(1, BAND_BYTES // (row_bytes * tiff.piece_rows)) * tiff.piece_rows
