"""Image files -> the pixels that are stored in them, whole or not at all.

PNG, JPEG and BMP are read by Pillow, TIFF by tifffile (by Pillow where the compression needs it: LZW, JPEG). A damaged
file is an error that names it, never a half-grey picture.
"""

__all__ = [
    "DICOM_MAGIC",
    "GREY_NOTE",
    "JPEG_COMPRESSIONS",
    "MAX_MEGAPIXELS",
    "REGIONS",
    "REPLACE",
    "TIFF_COMPRESSIONS",
    "TIFF_MAGIC",
    "TILES",
    "BadImageError",
    "Stored",
    "alpha_note",
    "channels_note",
    "open_pixels",
    "open_stored",
    "pages_note",
    "read_bytes",
    "too_large",
    "too_many_pixels",
]

import io
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from textdiff.errors import UserError

MAX_MEGAPIXELS = 80
"""Largest image that is read whole, in millions of pixels: three of them decoded still fit a small machine."""

# Without a handler of its own tifffile's complaints go to the terminal, beside the error that is raised here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

DICOM_MAGIC = b"DICM"
"""What a DICOM file holds after 128 bytes of any kind."""

GREY_NOTE = "grey (replicated to RGB)"

REPLACE = "replace it by an intact copy"
"""What to do with a damaged file."""

REGIONS = "cut regions out of it, or save it as a TIFF and use --tile, which reads that in parts"
"""What to do with a file that has too many pixels."""

TILES = "cut regions out of it, or use --tile, which reads it in parts"
"""What to do with a TIFF that has too many pixels."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# tifffile decodes these by itself. Others need its optional companion; asking Pillow instead gives every machine the
# same pixels whether the companion is installed or not.
TIFF_COMPRESSIONS = (1, 8, 32773, 32946)

JPEG_COMPRESSIONS = (6, 7)
"""Of a TIFF: JPEG, as it was and as it is."""


class BadImageError(UserError):
    """A file that cannot be used as an image or a mask.

    Attributes:
        what: is wrong with it.
        fix: what the user can do.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, fix: str) -> None:
        super().__init__(f"{path}: {what}; {fix}")
        self.what, self.fix = what, fix


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; ``BadImageError`` if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadImageError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error


class Stored(NamedTuple):
    """What an image file holds, upright, without CMYK."""

    pixels: NDArray[Any]
    """(H, W) or (H, W, C) of any dtype, the numbers in the file: of a palette the indices."""
    notes: list[str]
    """What a user should know about the file, one phrase each; nothing of the alpha."""
    palette: NDArray[np.uint8] | None = None
    """(N, 4), the colours and the opacity of the indices."""
    alpha: NDArray[Any] | None = None
    """(H, W), of a file with an alpha channel."""
    inverted: bool = False
    """Whether white is 0."""
    scale: int = 1
    """What the numbers are multiplied by to be shown with 8 bits, where there are 2 or 4."""
    imagej: bool = False
    """Whether ImageJ wrote it."""
    lossy: bool = False
    """Whether it went through a JPEG, which changes numbers."""

    def shown(self) -> NDArray[Any]:
        """The pixels as a viewer sees them: (H, W) or (H, W, C)."""
        if self.palette is not None:
            return np.asarray(self.palette[self.pixels][..., :3])
        pixels = self.pixels if self.scale == 1 else self.pixels * np.uint8(self.scale)
        if not self.inverted:
            return pixels
        return ~pixels if pixels.dtype.kind in "bu" else np.asarray(pixels.max() - pixels)


def open_pixels(path: str | os.PathLike[str], data: bytes) -> tuple[NDArray[Any], list[str]]:
    """The pixels of an image file as a viewer sees them, without alpha; see ``open_stored``.

    Returns:
        (H, W) or (H, W, C) of any dtype, and what a user should know about the file, one phrase each.
    """
    stored = open_stored(path, data)
    alpha = [] if stored.alpha is None else [alpha_note(stored.alpha.min(), stored.alpha.max())]
    return stored.shown(), stored.notes + alpha


def open_stored(path: str | os.PathLike[str], data: bytes) -> Stored:
    """What is in an image file.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Raises:
        BadImageError: not an image, damaged, or larger than ``MAX_MEGAPIXELS``.
    """
    if not data:
        raise BadImageError(path, "is empty (0 bytes)", REPLACE)
    try:
        stored = _open_tiff(path, data) if data.startswith(TIFF_MAGIC) else _open_pillow(path, data)
    except (BadImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    # The decoders raise whatever their parsers stumble over: struct.error, IndexError, SyntaxError, zlib.error ...
    except Exception as error:
        raise BadImageError(
            path, "is not a readable PNG, JPEG, BMP or TIFF image (truncated or damaged)", REPLACE
        ) from error
    if stored.pixels.size == 0:
        raise BadImageError(path, "has no pixels", REPLACE)
    return stored


def _open_pillow(path: str | os.PathLike[str], data: bytes) -> Stored:
    notes: list[str] = []
    scale, palette, alpha = 1, None, None
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP", "TIFF")) as file:
        _check_size(path, *file.size)
        file.load()
        image: Image.Image = file
        if file.format == "PNG":
            _check_png(data)
            if data[24] == 16 and image.mode in ("RGB", "RGBA", "LA"):
                notes.append("16-bit (scaled to 8)")
            if data[24] in (2, 4) and image.mode == "L":
                scale = 255 // (2 ** data[24] - 1)
        if file.format != "TIFF" and image.getexif().get(0x0112, 1) != 1:
            notes.append("EXIF orientation (applied)")
            image = ImageOps.exif_transpose(image)
        if image.mode == "P":
            opaque = not image.has_transparency_data
            image.apply_transparency()
            colours = np.frombuffer(bytes(image.getpalette("RGBA") or []), np.uint8).reshape(-1, 4)
            palette = np.zeros((256, 4), np.uint8)
            palette[: len(colours)] = colours
            alpha = None if opaque else palette[np.asarray(image)][..., 3]
        elif image.mode in ("CMYK", "YCbCr", "LAB", "RGBX"):
            image = image.convert("RGB")
        pixels = np.asarray(image)
        if image.mode in ("LA", "RGBA"):
            pixels, alpha = pixels[..., :-1], pixels[..., -1]
        lossy = file.format == "JPEG"
    return Stored(pixels // np.uint8(scale) if scale > 1 else pixels, notes, palette, alpha, scale=scale, lossy=lossy)


def _open_tiff(path: str | os.PathLike[str], data: bytes) -> Stored:
    notes: list[str] = []
    palette = alpha = None
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        _check_size(path, page.imagewidth, page.imagelength, TILES)
        # tifffile fills pieces that are missing with zeros.
        pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not pieces or any(count == 0 or offset + count > len(data) for offset, count in pieces):
            raise ValueError("a piece of the image lies beyond the end of the file")
        if page.samplesperpixel > 64:
            raise ValueError("a damaged header asks for any amount of memory")
        if len(tiff.pages) > 1:
            notes.append(pages_note(len(tiff.pages)))
        inverted, lossy = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE, page.compression in JPEG_COMPRESSIONS
        imagej = bool(tiff.is_imagej)
        if page.compression not in TIFF_COMPRESSIONS or page.bitspersample not in (1, 8, 16, 32, 64):
            stored = _open_pillow(path, data)
            notes += stored.notes
            pixels, scale = stored.pixels, 1
            if np.dtype(page.dtype).itemsize == 2 and pixels.dtype == np.uint8:
                notes.append("16-bit (scaled to 8)")
            # Pillow has inverted what has no more than 8 bits, and scaled what has fewer.
            if inverted and pixels.dtype in (bool, np.uint8):
                pixels = ~pixels
            if page.bitspersample in (2, 4) and stored.palette is None and pixels.ndim == 2:
                scale = 255 // (2**page.bitspersample - 1)
                pixels = pixels // np.uint8(scale)
            return Stored(
                pixels, notes, stored.palette, stored.alpha, inverted, scale=scale, imagej=imagej, lossy=lossy
            )
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise BadImageError(path, f"is not a flat image (axes {page.axes})", "save one plane of it")
        orientation = page.tags.get(274)
        photometric, colours, extra = page.photometric, page.colormap, page.extrasamples
    if photometric == tifffile.PHOTOMETRIC.PALETTE and colours is not None:
        palette = np.full((colours.shape[1], 4), 255, np.uint8)
        palette[:, :3] = np.moveaxis(colours, 0, -1) >> 8
        pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    elif inverted:
        pass
    elif photometric == tifffile.PHOTOMETRIC.SEPARATED:
        pixels = np.asarray(Image.fromarray(pixels[..., :4], "CMYK").convert("RGB"))
    elif photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
        raise BadImageError(path, f"has colours of the kind {tifffile.PHOTOMETRIC(photometric).name}", "save it as RGB")
    elif extra and pixels.ndim == 3:
        if extra[-1] == tifffile.EXTRASAMPLE.UNSPECIFIED:
            notes.append(channels_note(pixels.shape[2], pixels.shape[2] - len(extra)))
        else:
            alpha = pixels[..., -1]
        pixels = pixels[..., : pixels.shape[2] - len(extra)]
    if orientation is not None and orientation.value != 1:
        notes.append("EXIF orientation (applied)")
        pixels = _orient(pixels, orientation.value)
        alpha = None if alpha is None else _orient(alpha, orientation.value)
    return Stored(pixels, notes, palette, alpha, inverted, imagej=imagej, lossy=lossy)


def pages_note(count: int) -> str:
    """Of a file with several images."""
    return f"{count} pages (only the first is read)"


def channels_note(stored: int, read: int) -> str:
    """Of a file with channels that are neither colours nor alpha."""
    return f"{stored} channels (only the first {read} read)"


def alpha_note(lowest: int, highest: int) -> str:
    """Of a file with an alpha channel of these extremes."""
    return "alpha (dropped)" if lowest == highest else "alpha that is not opaque (dropped; colours kept)"


def too_many_pixels(height: int, width: int) -> bool:
    """Whether an image is beyond ``MAX_MEGAPIXELS``, and so not to be held as a whole."""
    return height * width > MAX_MEGAPIXELS * 1_000_000


def _check_size(path: str | os.PathLike[str], width: int, height: int, fix: str = REGIONS) -> None:
    if too_many_pixels(height, width):
        raise too_large(path, f"{width}x{height} pixels", fix)


def too_large(path: str | os.PathLike[str], size: str = "too many pixels", fix: str = REGIONS) -> BadImageError:
    """The error that names the file.

    Args:
        path: of the file.
        size: what it has of pixels.
        fix: ``REGIONS`` or ``TILES``.
    """
    return BadImageError(path, f"has {size}, more than {MAX_MEGAPIXELS} megapixels", fix)


def _check_png(data: bytes) -> None:
    """Compares the checksum of every chunk: Pillow skips those of the pixels."""
    at = 8
    while at + 12 <= len(data):
        (count,) = struct.unpack_from(">I", data, at)
        end = at + 8 + count
        if zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError("a chunk does not have its checksum")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4
    raise ValueError("the file ends before its last chunk")


def _orient(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undoes the orientation 2..8 of the TIFF and EXIF standards."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
