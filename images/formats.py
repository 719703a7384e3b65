"""Image files -> the pixels that are stored in them, whole or not at all.

PNG, JPEG and BMP are read by Pillow, TIFF by the module ``tiff``. A damaged file is an error that names it, never a
half-grey picture.
"""

__all__ = [
    "MAX_BYTES",
    "MAX_MEGAPIXELS",
    "REGIONS",
    "REPLACE",
    "TIFF_MAGIC",
    "TILES",
    "BadImageError",
    "Stored",
    "alpha_note",
    "check_scans",
    "check_size",
    "dark_note",
    "is_dicom",
    "is_shape",
    "open_stored",
    "pages_note",
    "read_bytes",
    "too_large",
    "too_many_pixels",
]

import io
import logging
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from textdiff.errors import UserError

MAX_MEGAPIXELS = 80
"""Largest image that is read whole, in millions of pixels: three of them decoded still fit a small machine."""

MAX_BYTES = 1 << 29
"""Most that the stored numbers of an image, or a piece of it, may take: 80 megapixels of 16-bit RGB."""

_OTHERS = {
    rb"GIF8": "a GIF",
    rb"RIFF....WEBP": "a WebP",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "a JPEG 2000",
    rb"\0\0\0\x0cJXL |\xff\x0a": "a JPEG XL",
    rb"II\xbc": "a JPEG XR",
    rb"\xff\xd8.{0,64}?\xff\xf7\0": "a JPEG-LS",
    rb"....ftyp": "a HEIC or AVIF",
    rb"8BPS": "a Photoshop file",
    rb"P[1-7]\s": "a PNM",
    rb"%PDF": "a PDF",
    rb"\x89HDF": "an HDF5 file",
    rb"\x93NUMPY": "a NumPy array",
    rb"ZISRAWFILE": "a CZI",
    rb"\xda\xce\xbe\x0a": "an ND2",
    rb"\x70\0\0\0": "a LIF",
    rb"\x5c\x01\0\0|\0\0\x01\x5c|\x1f\x8b": "a NIfTI or gzip file",
    rb"PK": "a zip archive",
}
_JPEG_FRAME = rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..([\x08-\x10])"

_MAX_FILE = 1 << 30
_MAX_SCANS = 200

# Without a handler of its own tifffile's complaints go to the terminal, beside the error that is raised here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_INSTEAD = {
    rb"version https://git-lfs\.": ("a pointer of Git LFS", "fetch it with `git lfs pull`"),
    rb"\s*<(!doctype html|html)": ("a web page", "download the image again"),
}
_JPEG_MAGIC = b"\xff\xd8"

REPLACE = "replace it by an intact copy"
"""What to do with a damaged file."""

REGIONS = "cut regions out of it, or save it as a TIFF and use --tile, which reads that in parts"
"""What to do with a file that has too many pixels."""

TILES = "cut regions out of it, or use --tile, which reads it in parts"
"""What to do with a TIFF that has too many pixels."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class BadImageError(UserError):
    """A file that cannot be used as an image or a mask.

    Attributes:
        what: is wrong with it.
        fix: what the user can do.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, fix: str) -> None:
        super().__init__(f"{path}: {what}; {fix}")
        self.what, self.fix = what, fix


def is_dicom(data: bytes) -> bool:
    """Whether a file is DICOM: by its mark, or, where that was left out, by the groups of tags that stand first."""
    return data[128:132] == b"DICM" or data[:2] in (b"\2\0", b"\x08\0")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; ``BadImageError`` if it cannot be read, or is too large to be held."""
    try:
        if (size := Path(path).stat().st_size) > _MAX_FILE:
            raise BadImageError(path, f"has {size >> 20} MiB, too many to be read as a whole", REGIONS)
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
    scale: float = 1
    """What the numbers are multiplied by when they are shown, where their bits do not fill their type."""
    writer: str = ""
    """ImageJ or tifffile, if it wrote the file and calls white 0 whatever the numbers mean; empty otherwise."""
    lossy: bool = False
    """Whether it went through a JPEG, which changes numbers."""
    unread: str = ""
    """What else the file holds that may be part of a mask: further pages, channels that are not all one number."""

    def shown(self) -> NDArray[Any]:
        """The pixels as a viewer sees them: (H, W) or (H, W, C)."""
        if self.palette is not None:
            return np.asarray(self.palette[self.pixels][..., :3])
        pixels = self.pixels
        if self.scale != 1:
            pixels = np.floor(pixels * self.scale + 0.5).astype(pixels.dtype)
        if not self.inverted:
            return pixels
        return ~pixels if pixels.dtype.kind in "bu" else np.asarray(pixels.max() - pixels)


def open_stored(path: str | os.PathLike[str], data: bytes) -> Stored:
    """What is in an image file, from its bytes.

    Raises:
        BadImageError: not an image, damaged, or larger than ``MAX_MEGAPIXELS``.
    """
    if not data:
        raise BadImageError(path, "is empty (0 bytes)", REPLACE)
    for magic, (name, fix) in _INSTEAD.items():
        if re.match(magic, data, re.I):
            raise BadImageError(path, f"is {name} in place of an image", fix)
    try:
        stored = _open_tiff(path, data) if data.startswith(TIFF_MAGIC) else _open_pillow(path, data)
    except (BadImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    # The decoders raise whatever their parsers stumble over: struct.error, IndexError, SyntaxError, zlib.error ...
    except Exception as error:
        if other := _other_kind(data):
            raise BadImageError(path, f"is {other}, which is not read", "save it as PNG or TIFF") from error
        raise BadImageError(
            path, "is not a readable PNG, JPEG, BMP or TIFF image (truncated or damaged)", REPLACE
        ) from error
    if stored.pixels.size == 0:
        raise BadImageError(path, "has no pixels", REPLACE)
    return stored


def _other_kind(data: bytes) -> str | None:
    """What a file is that could not be read, if it may be whole and of a kind that is not read."""
    if data.startswith(_JPEG_MAGIC) and (frame := re.search(_JPEG_FRAME, data, re.DOTALL)) and frame[1] != b"\x08":
        return f"a JPEG of {frame[1][0]} bits"
    if is_dicom(data):
        return "DICOM"
    return next((name for magic, name in _OTHERS.items() if re.match(magic, data, re.DOTALL)), None)


def check_scans(data: bytes) -> None:
    """Refuses a JPEG that goes over its picture again and again: a few bytes for each take as long as the whole.

    Raises:
        ValueError: it does.
    """
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise ValueError("there are more scans than any camera or program writes")


def _open_pillow(path: str | os.PathLike[str], data: bytes) -> Stored:
    notes: list[str] = []
    scale, palette, alpha, unread, deep = 1, None, None, "", False
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP")) as file:
        check_size(path, *file.size[::-1])
        if data.startswith(_JPEG_MAGIC):
            check_scans(data)
        if (frames := getattr(file, "n_frames", 1)) > 1:
            notes.append(pages_note(frames))
            unread = f"{frames} pages"
        file.load()
        image: Image.Image = file
        if file.format == "PNG":
            _check_png(data)
            bits = data[24]
            deep = bits == 16 and image.mode in ("RGB", "RGBA", "LA")  # Pillow takes the high bytes
            if bits in (2, 4) and image.mode == "L":
                scale = 255 // (2**bits - 1)
        if image.getexif().get(0x0112, 1) != 1:
            notes.append("EXIF orientation (applied)")
            image = ImageOps.exif_transpose(image)
        if image.mode == "P":
            opaque = not image.has_transparency_data
            image.apply_transparency()
            colours = np.frombuffer(bytes(image.getpalette("RGBA") or []), np.uint8).reshape(-1, 4)
            palette = np.zeros((256, 4), np.uint8)
            palette[: len(colours)] = colours
            alpha = None if opaque else palette[np.asarray(image)][..., 3]
        elif image.mode == "CMYK":
            image = image.convert("RGB")
        pixels = np.asarray(image)
        if image.mode in ("LA", "RGBA"):
            pixels, alpha = pixels[..., :-1], pixels[..., -1]
        if deep:
            notes.append(f"16-bit (scaled to 8){dark_note(int(pixels.max()), 255)}")
        lossy = data.startswith(_JPEG_MAGIC)
    pixels = pixels // np.uint8(scale) if scale > 1 else pixels
    return Stored(pixels, notes, palette, alpha, scale=scale, lossy=lossy, unread=unread)


def _open_tiff(path: str | os.PathLike[str], data: bytes) -> Stored:
    from textdiff.images.tiff import open_tiff

    with open_tiff(path, data) as tiff:
        check_size(path, tiff.height, tiff.width, TILES)
        if tiff.nbytes > MAX_BYTES:
            what = f"takes {tiff.nbytes >> 20} MiB, more than {MAX_MEGAPIXELS} megapixels of 16-bit RGB"
            raise BadImageError(path, what, REGIONS)
        stored = tiff.stored(tiff.rows(0, tiff.height))
    if tiff.orientation == 1:
        return stored
    alpha = None if stored.alpha is None else _orient(stored.alpha, tiff.orientation)
    notes = [*stored.notes, "EXIF orientation (applied)"]
    return stored._replace(pixels=_orient(stored.pixels, tiff.orientation), alpha=alpha, notes=notes)


def pages_note(count: int) -> str:
    """What is said of a file with several images."""
    return f"{count} pages (only the first is read)"


def dark_note(largest: float, full: float) -> str:
    """What follows a note on the scaling of an image to 8 bits, if it comes out nearly black."""
    if largest > full // 8:
        return ""
    return f", and dark: the largest value is {largest:.10g} of {full:.10g}, as from a camera of fewer bits"


def is_shape(alpha: NDArray[Any], pixels: NDArray[Any]) -> bool:
    """Whether the shape of a mask is in its alpha (H, W), since its ``pixels`` (H, W, ...) are of one colour.

    That holds of a transparent sheet on which nothing was painted, too, but not of an opaque one.
    """
    return bool(alpha.min() == 0 or alpha.min() < alpha.max()) and bool(np.all(pixels == pixels[:1, :1]))


def alpha_note(lowest: int, highest: int) -> str:
    """What is said of a file with an alpha channel of these extremes."""
    return "alpha (dropped)" if lowest == highest else "alpha that is not opaque (dropped; colours kept)"


def too_many_pixels(height: int, width: int) -> bool:
    """Whether an image is beyond ``MAX_MEGAPIXELS``, and so not to be held as a whole."""
    return height * width > MAX_MEGAPIXELS * 1_000_000


def check_size(path: str | os.PathLike[str], height: int, width: int, fix: str = REGIONS) -> None:
    """Refuses an image that has ``too_many_pixels``, by ``too_large``."""
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
