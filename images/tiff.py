"""The first image of a TIFF, as a whole or some rows at a time: both are read in one way, and so are the same."""

__all__ = ["TiffImage", "open_tiff"]

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from textdiff.images.formats import REPLACE, BadImageError, Stored, pages_note
from textdiff.images.tiff_pieces import JPEG, Pieces, name_of

_KINDS = tifffile.PHOTOMETRIC
_COLOURS = {_KINDS.RGB: 3, _KINDS.YCBCR: 3, _KINDS.SEPARATED: 4}
_GREY = (_KINDS.MINISWHITE, _KINDS.MINISBLACK)


class TiffImage:
    """The first image of an open TIFF, or that of another ``page`` of it, such as a smaller level; see ``open_tiff``.

    Attributes:
        height: in pixels.
        width: the same.
        channels: stored for each pixel.
        dtype: of the stored numbers; of few bits the smallest type of NumPy that holds them.
        photometric: how the numbers are shown, in TIFF's words.
        orientation: 1 if upright, up to 8 if turned or mirrored.
        alpha: the channel that is the alpha; None without one.
        lossy: whether it is compressed as JPEG.
        notes: what a user should know about the file, one phrase each.
        unread: its further pages, if they are not the first one made smaller; "" without any.
        file: the open TIFF.

    Raises:
        BadImageError: it is of a kind that is not read.
    """

    def __init__(self, path: str | os.PathLike[str], tiff: tifffile.TiffFile, page: Any = None) -> None:
        self._path, self.file = path, tiff
        channels = _channels_in_pages(path, tiff) if page is None else [page]
        self._pages = [Pieces(path, tiff, one) for one in channels]
        page = self._page = self._pages[0].page
        self.height, self.width, self.dtype = int(page.imagelength), int(page.imagewidth), self._pages[0].dtype
        self.photometric, turned = page.photometric, page.tags.valueof(274, 1)
        self.orientation = turned if turned in range(1, 9) else 1
        self.channels, self.notes = int(page.samplesperpixel), list[str]()
        self.alpha: int | None = None
        self.unread = ""
        self.lossy = page.compression == JPEG
        extra = tuple(page.extrasamples)
        if len(self._pages) > 1:
            if any((p.page.shape, p.dtype) != (page.shape, self.dtype) for p in self._pages):
                raise BadImageError(path, "has channels in pages that are not alike", "save it as RGB")
            self.channels, self.photometric, extra = len(self._pages), _KINDS.RGB, ()
            self.notes.append(f"{self.channels} pages that are channels (read as red, green and blue)")
        elif (pages := max(len(tiff.pages), _number_in(page, "images"))) > 1:
            self.notes.append(pages_note(pages))
            pyramid = len(tiff.pages) > 1 and getattr(tiff.pages[1], "is_reduced", False)
            self.unread = "" if pyramid else f"{pages} pages"
        self._check_colours(path)
        # Grey with as many channels as colours, and no word on what they are, is how some programs write RGB.
        colours = self.photometric == _KINDS.MINISBLACK and not extra and self.channels >= 3
        self._shown = 3 if colours else _COLOURS.get(self.photometric, 1)
        if self.photometric == _KINDS.SEPARATED and self.dtype == np.uint16:
            self.notes.append("16-bit (scaled to 8)")
        if self.channels < self._shown:
            raise BadImageError(path, f"has {self.channels} channels, too few for {name_of(self.photometric)}", REPLACE)
        if self.channels > self._shown:
            if extra and extra[-1] != tifffile.EXTRASAMPLE.UNSPECIFIED:
                self.alpha = self.channels - 1
            else:
                self.notes.append(f"{self.channels} channels (only the first {self._shown} read)")

    @property
    def nbytes(self) -> int:
        """What all the stored numbers take in memory."""
        return int(self.height * self.width * self.channels * self.dtype.itemsize)

    @property
    def piece_rows(self) -> int:
        """Rows that are decoded at once, whatever is asked for."""
        return 1 if self._pages[0].plain else self._pages[0].height

    @property
    def piece_bytes(self) -> int:
        """What decoding holds beside the rows that are asked for."""
        return int(self.piece_rows * self._pages[0].row_bytes)

    def rows(self, first: int, end: int, left: int = 0, right: int | None = None) -> NDArray[Any]:
        """The stored numbers of the rows ``first`` ... ``end`` - 1, (end - first, width, channels).

        If they are given, of the columns ``left`` ... ``right`` - 1 only.

        Raises:
            BadImageError: the file is damaged there.
        """
        out = np.empty((end - first, (self.width if right is None else right) - left, self.channels), self.dtype)
        planes = [(pieces, plane) for pieces in self._pages for plane in range(pieces.planes)]
        try:
            for number, (pieces, plane) in enumerate(planes):
                pieces.fill(plane, first, out[..., number : number + 1] if len(planes) > 1 else out, left)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they stumble over
            what = f"cannot be read at rows {first} to {end - 1} (truncated or damaged)"
            raise BadImageError(self._path, what, REPLACE) from error
        return out

    def stored(self, rows: NDArray[Any]) -> Stored:
        """What rows hold, not yet turned.

        Args:
            rows: (h, width, channels), as of :meth:`rows`.
        """
        pixels = rows[..., 0] if self._shown == 1 else rows[..., : self._shown]
        bits, full, palette, scale = self._page.bitspersample, 8 * self.dtype.itemsize, None, 1.0
        if self.photometric == _KINDS.PALETTE:
            colours = np.moveaxis(self._page.colormap, 0, -1)
            palette = np.full((len(colours), 4), 255, np.uint8)
            palette[:, :3] = colours >> (8 if colours.max() > 255 else 0)  # some programs write 8 bits instead of 16
            pixels = pixels.view(np.uint8)
        elif self.dtype.kind == "u" and bits < full:
            scale = (2**full - 1) / (2**bits - 1)
        elif self.photometric == _KINDS.SEPARATED:
            if self.dtype == np.uint16:
                pixels = np.floor(pixels / np.float32(257) + np.float32(0.5)).astype(np.uint8)
            inks = Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes())
            pixels = np.asarray(inks.convert("RGB"))
        alpha = None if self.alpha is None else rows[..., self.alpha]
        inverted = self.photometric == _KINDS.MINISWHITE
        unread = self.unread
        others = rows[..., self._shown : self.alpha]
        if others.size and np.any(others != others[:1, :1]):
            unread = unread or f"{self.channels} channels"
        return Stored(pixels, list(self.notes), palette, alpha, inverted, scale, self._writer(), self.lossy, unread)

    def _writer(self) -> str:
        """``Stored.writer``. Boolean arrays become pictures whose white is 0 by tifffile, and by imageio, unasked."""
        if self._page.is_imagej:
            return "ImageJ"
        return "tifffile" if self._page.bitspersample == 1 and self._page.software.startswith("tifffile") else ""

    def _check_colours(self, path: str | os.PathLike[str]) -> None:
        page, kind = self._page, self.photometric
        if kind not in (*_COLOURS, *_GREY, _KINDS.PALETTE):
            raise BadImageError(path, f"has colours of the kind {name_of(kind)}", "save it as RGB")
        if kind == _KINDS.SEPARATED and (page.tags.valueof(332, 1) != 1 or self.dtype not in (np.uint8, np.uint16)):
            what = f"has inks ({self.dtype}) that are not cyan, magenta, yellow and black of 8 or 16 bits"
            raise BadImageError(path, what, "save it as RGB")
        palette = self.dtype in (np.uint8, bool) and page.colormap is not None
        if kind == _KINDS.PALETTE and not (palette and page.colormap.shape == (3, 2**page.bitspersample)):
            raise BadImageError(path, "has a palette that does not fit its pixels", "save it as RGB")


@contextmanager
def open_tiff(path: str | os.PathLike[str], data: bytes | None = None) -> Iterator[TiffImage]:
    """Opens a TIFF at its first image. Three pages that are the channels of one image are its colours.

    Args:
        path: of the file.
        data: its bytes, if they have been read already.

    Raises:
        BadImageError: the file is damaged, or of a kind that is not read, which is named.
    """
    with contextlib.ExitStack() as stack:
        try:
            tiff = stack.enter_context(tifffile.TiffFile(Path(path) if data is None else io.BytesIO(data)))
            image = TiffImage(path, tiff)
        except (BadImageError, MemoryError):
            raise
        except OSError as error:
            fix = "check the path and its permissions"
            raise BadImageError(path, f"cannot be read ({error.strerror})", fix) from error
        except Exception as error:  # the parser raises whatever it stumbles over
            raise BadImageError(path, "is not a readable TIFF (truncated or damaged)", REPLACE) from error
        yield image


def _channels_in_pages(path: str | os.PathLike[str], tiff: tifffile.TiffFile) -> list[Any]:
    """The pages that are the channels of the first image; the first page alone if it is an image by itself.

    Raises:
        BadImageError: there are other than three, or a stack of them, or the first page is a thumbnail.
    """
    page: Any = tiff.pages.first
    pages: Any = tiff.pages
    # Some programs call every page a reduced one.
    if page.is_reduced and any(other.keyframe.imagelength > page.imagelength for other in pages):
        raise BadImageError(
            path, "begins with a smaller copy of its image", "save the image as the first page, or alone"
        )
    channels, planes = 1, 1
    if page.is_ome:
        channels, planes = _ome_sizes(page)
        channels //= max(1, page.samplesperpixel)
    elif page.is_imagej:
        channels, planes = _number_in(page, "channels"), _number_in(page, "slices") * _number_in(page, "frames")
    elif page.is_shaped:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(page.description)
            sizes = dict(zip(said["axes"], map(int, said["shape"]), strict=True))
            channels = sizes.get("C", 1)
            planes = math.prod(size for axis, size in sizes.items() if axis not in "YXSC")
    if channels < 2:
        return [page]
    if channels != 3 or planes != 1 or page.samplesperpixel != 1 or len(tiff.pages) < 3:
        what = f"has {channels} channels in pages of their own" + (f", {planes} of each" if planes > 1 else "")
        raise BadImageError(path, what, "save it as RGB, or one channel of it alone")
    return [tiff.pages[number] for number in range(3)]


def _ome_sizes(page: Any) -> tuple[int, int]:
    """Channels, and planes of depth or time, of the first image in OME-XML; one each if it cannot be understood."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        elements = fromstring(page.description, forbid_dtd=True).iter()
        pixels = next(element for element in elements if element.tag.endswith("}Pixels"))
        channels, depth, times = (int(pixels.get(name, 1)) for name in ("SizeC", "SizeZ", "SizeT"))
    except (DefusedXmlException, ParseError, StopIteration, ValueError):
        return 1, 1
    return channels, depth * times


def _number_in(page: Any, name: str) -> int:
    """A number in the description of an image of ImageJ's; 1 if it is not there."""
    found = re.search(rf"^{name}=(\d{{1,9}})\s*$", page.description, re.MULTILINE) if page.is_imagej else None
    return int(found[1]) if found else 1
