"""The pieces of a TIFF's page, strips or tiles -> the numbers that are stored in them.

tifffile reads the structure. The pieces are decompressed here one by one, by zlib, lzma and Pillow, and never to more
than a piece may hold: so every machine reads the same of a file, and a small file cannot ask for a large memory.
"""

__all__ = ["JPEG", "Pieces", "name_of"]

import contextlib
import ctypes
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from textdiff.images.formats import MAX_BYTES, REPLACE, BadImageError, check_scans

# libtiff, which is inside Pillow, prints what it stumbles over; the error that is raised says it. A build that hides
# the function goes on printing.
with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]

_FAX = (2, 3, 4)
_LIBTIFF = (5, 32773, 50000)  # LZW, PackBits, Zstandard
_PICTURES = {7: "JPEG", 33003: "JPEG2000", 33004: "JPEG2000", 33005: "JPEG2000", 34712: "JPEG2000", 50001: "WEBP"}
JPEG, _APERIO_YCBCR = 7, 33003
_BITS = {"u": (*range(2, 17), 32, 64), "b": (1,), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
_BAND = 1 << 24
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Pieces:
    """How a page is cut into pieces, and what is in them.

    Args:
        path: of the file; names it in errors.
        tiff: the file.
        page: one of its pages.

    Attributes:
        height: of a piece, in rows.
        row_bytes: of a row of a piece, decompressed.
        plain: whether rows lie in the file as they are.
        planes: that the page has; each is ``per_plane`` pieces of its own.
        per_plane: the number of pieces of a plane.

    Raises:
        BadImageError: the page is of a kind that is not read, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], tiff: tifffile.TiffFile, page: Any) -> None:
        _check_kind(path, page)
        self.page, self._file, self._byteorder = page, tiff.filehandle, tiff.byteorder
        self.dtype: np.dtype[Any] = np.dtype(page.dtype)
        separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        samples = int(page.samplesperpixel)
        self.planes, self._channels = (samples, 1) if separate else (1, samples)
        self.height = int(page.tilelength if page.is_tiled else page.rowsperstrip)
        self._width = int(page.tilewidth if page.is_tiled else page.imagewidth)
        if min(self.height, self._width, self._channels) < 1:
            raise ValueError("pieces without pixels")
        self.plain = page.compression == 1 and not page.is_tiled
        self.row_bytes = -(-self._width * self._channels * page.bitspersample // 8)
        self._across = -(-page.imagewidth // self._width)
        self.per_plane = self._across * -(-page.imagelength // self.height)
        self._check(path)

    def fill(self, plane: int, first: int, out: NDArray[Any], left: int = 0) -> None:
        """Fills ``out`` (h, w, channels) with a plane's rows from ``first`` on, of each the columns from ``left`` on.

        Raises:
            Exception: of many kinds, if the file is damaged there.
        """
        end, length = first + len(out), self.page.imagelength
        for down in range(first // self.height, -(-end // self.height)):
            top = down * self.height
            height = min(self.height, length - top)
            y0, y1 = max(first, top), min(end, top + height)
            for across in range(left // self._width, -(-(left + out.shape[1]) // self._width)):
                number, x = plane * self.per_plane + down * self._across + across, across * self._width
                start, stop = max(left, x), min(left + out.shape[1], x + self._width)
                target = out[y0 - first : y1 - first, start - left : stop - left]
                if self.plain:
                    self._fill_plain(number, y0 - top, target, start)
                else:
                    piece = self._decoded(number, height, min(self._width, self.page.imagewidth - x))
                    target[...] = piece[y0 - top : y1 - top, start - x : stop - x]

    def _check(self, path: str | os.PathLike[str]) -> None:
        page, end = self.page, self._file.size
        offsets, counts = page.dataoffsets, page.databytecounts
        if len(offsets) != self.per_plane * self.planes or len(counts) != len(offsets):
            raise BadImageError(
                path, "is truncated or damaged: it does not have a place for each of its pieces", REPLACE
            )
        # What is missing must not be taken for black, and a piece that is used again and again is how a small file
        # claims to be a large one.
        if any(count == 0 or offset + count > end for offset, count in zip(offsets, counts, strict=True)):
            raise BadImageError(path, "is truncated or damaged: a piece of it lies beyond the end of the file", REPLACE)
        if sum(counts) > end:
            raise BadImageError(path, "is damaged: its pieces overlap", REPLACE)
        piece = self.height * self.row_bytes
        image = page.imagelength * page.imagewidth * page.samplesperpixel * page.bitspersample // 8
        if not self.plain and (piece > MAX_BYTES or piece * len(offsets) > 4 * image + MAX_BYTES):
            raise BadImageError(path, f"has pieces of {self._width}x{self.height} pixels", "save it in smaller tiles")

    def _read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data: bytes = self._file.read(count)
        if len(data) < count:
            raise ValueError("the file ends too early")
        backwards = self.page.fillorder == tifffile.FILLORDER.LSB2MSB and self.page.compression not in _PICTURES
        return data.translate(_REVERSED) if backwards else data

    def _fill_plain(self, number: int, first: int, out: NDArray[Any], left: int) -> None:
        """Reads rows of an uncompressed strip, some at a time, since a strip may be the whole image."""
        end = first + len(out)
        if self.page.databytecounts[number] < end * self.row_bytes:
            raise ValueError("a strip is too short")
        step = max(1, _BAND // self.row_bytes)
        for y in range(first, end, step):
            rows = min(step, end - y)
            data = self._read(self.page.dataoffsets[number] + y * self.row_bytes, rows * self.row_bytes)
            out[y - first : y - first + rows] = self._numbers(data, rows)[:, left : left + out.shape[1]]

    def _decoded(self, number: int, height: int, width: int) -> NDArray[Any]:
        """A piece of which ``height`` x ``width`` pixels lie in the image; it may hold more."""
        page = self.page
        data = self._read(page.dataoffsets[number], page.databytecounts[number])
        if page.compression in _PICTURES:
            return self._picture(data, (height, width))
        rows = self.height if page.is_tiled else height
        size = rows * self.row_bytes
        decompress = _DECOMPRESS.get(page.compression)
        raw = decompress(data, size) if decompress else self._libtiff(data, rows)
        if len(raw) < size:
            raise ValueError("a piece is too short")
        return self._numbers(raw, rows)

    def _numbers(self, raw: bytes, rows: int) -> NDArray[Any]:
        """Decompressed bytes as numbers (rows, width, channels) in the machine's byte order."""
        bits, itemsize, count = self.page.bitspersample, self.dtype.itemsize, self._width * self._channels
        lines = np.frombuffer(raw, np.uint8, rows * self.row_bytes).reshape(rows, self.row_bytes)
        shape = (rows, self._width, self._channels)
        if bits < 8 * itemsize:
            numbers = np.empty((rows, count), self.dtype)
            step = max(1, _BAND // (count * 8 * itemsize))  # some rows at a time, since each bit becomes a byte
            for first in range(0, rows, step):
                digits = np.unpackbits(lines[first : first + step], axis=1, count=count * bits).reshape(-1, count, bits)
                padded = np.zeros((len(digits), count, 8 * itemsize), np.uint8)
                padded[..., -bits:] = digits
                numbers[first : first + step] = np.packbits(padded, axis=2).view(f">u{itemsize}")[..., 0]
            return numbers.reshape(shape)
        if self.page.predictor == tifffile.PREDICTOR.FLOATINGPOINT:
            summed = np.cumsum(lines.reshape(rows, -1, self._channels), axis=1, dtype=np.uint8)
            # The bytes of a row are sorted by their place in the number, the highest first.
            big = np.ascontiguousarray(summed.reshape(rows, itemsize, count).swapaxes(1, 2))
            return big.view(self.dtype.newbyteorder(">")).reshape(shape).astype(self.dtype)
        values = lines.view(self.dtype.newbyteorder(self._byteorder)).reshape(shape).astype(self.dtype, copy=False)
        if self.page.predictor == tifffile.PREDICTOR.HORIZONTAL:
            whole = values.view(f"u{itemsize}")
            values = np.cumsum(whole, axis=1, dtype=whole.dtype).view(self.dtype)
        return values

    def _libtiff(self, data: bytes, rows: int) -> bytes:
        """Decompresses a piece as the only strip of a TIFF of its own, whose pixels are bytes, or the bits of a fax."""
        compression, fax = self.page.compression, self.page.compression in _FAX
        # Four bytes to a pixel keep below the number of pixels that Pillow opens.
        samples = 4 if not fax and self.row_bytes % 4 == 0 else 1
        shown = tifffile.PHOTOMETRIC.SEPARATED if samples == 4 else tifffile.PHOTOMETRIC.MINISBLACK
        width = self._width * self._channels if fax else self.row_bytes // samples
        end = 8 + 2 + 12 * 10 + 4  # of the tags, where the bits of four samples lie, and then the strip
        tags = (
            (256, 4, 1, width),
            (257, 4, 1, rows),
            (258, 3, 4, end) if samples == 4 else (258, 3, 1, 1 if fax else 8),
            (259, 3, 1, compression),
            (262, 3, 1, shown),
            (273, 4, 1, end + 8),
            (277, 3, 1, samples),
            (278, 4, 1, rows),
            (279, 4, 1, len(data)),
            (292, 4, 1, self.page.tags.valueof(292, 0)),  # how lines of a fax are coded
        )
        head = struct.pack("<4sIH", b"II*\0", 8, len(tags)) + b"".join(struct.pack("<2H2I", *tag) for tag in tags)
        strip = bytes(4) + struct.pack("<4H", 8, 8, 8, 8) + data
        with Image.open(io.BytesIO(head + strip), formats=["TIFF"]) as image:
            return image.tobytes()

    def _picture(self, data: bytes, least: tuple[int, int]) -> NDArray[Any]:
        """Decodes a piece that is a JPEG, JPEG 2000 or WebP file, at least ``least`` in size: (h, w, channels)."""
        page, kind, most = self.page, _PICTURES[self.page.compression], (self.height, self._width)
        if kind == "JPEG":
            check_scans(data)
            if page.jpegtables:
                data = page.jpegtables[:-2] + data[2:]
            if self._channels == 3:
                # Without this marker decoders guess whether the three are RGB or YCbCr.
                ycbcr = bytes([page.photometric == tifffile.PHOTOMETRIC.YCBCR])
                data = data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + ycbcr + data[2:]
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if not all(low <= side <= high for low, side, high in zip(least, image.size[::-1], most, strict=True)):
                raise ValueError("a piece has another size than the file says")
            # Pillow takes each JPEG of four channels for one of Adobe's, which are inverted.
            pixels = ~np.asarray(image) if image.mode == "CMYK" else np.asarray(image)
            if page.compression == _APERIO_YCBCR and image.mode == "RGB":
                pixels = np.asarray(Image.frombytes("YCbCr", image.size, pixels.tobytes()).convert("RGB"))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if kind == "WEBP" and pixels.shape[2] == 3 and self._channels == 4:  # an opaque alpha is left out
            pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        if pixels.shape[2] != self._channels or pixels.dtype != self.dtype:
            raise ValueError("a piece has other channels than the file says")
        return pixels


def _check_kind(path: str | os.PathLike[str], page: Any) -> None:
    """Refuses what is not read, by its name, before anything is allocated for it."""
    compression, bits, kind = page.compression, page.bitspersample, None if page.dtype is None else page.dtype.kind
    anew, jpeg = "save it anew with LZW, deflate or no compression", compression in _PICTURES
    if page.imagewidth < 1 or page.imagelength < 1:
        raise BadImageError(path, "has no pixels", REPLACE)
    if page.jpegheader is not None:
        raise BadImageError(path, "is a Hamamatsu NDPI slide, which is not read", "save regions of it as TIFF")
    if compression not in (*_DECOMPRESS, *_FAX, *_LIBTIFF, *_PICTURES):
        raise BadImageError(path, f"is compressed with {name_of(compression)}, which is not read", anew)
    if kind is None or bits not in _BITS.get(kind, ()):
        what = f"has samples of {bits} bits in the format {name_of(page.sampleformat)}, which are not read"
        raise BadImageError(path, what, "save it with 8 or 16 bits")
    if page.imagedepth != 1 or (page.is_tiled and page.tiledepth != 1):
        raise BadImageError(path, f"is not a flat image (axes {page.axes})", "save one plane of it")
    channels = 1 if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else page.samplesperpixel
    picture = kind == "u" and (bits == 8 or (bits == 16 and channels == 1 and compression != JPEG))
    picture = picture and channels in ((1, 3, 4) if compression == JPEG else (1, 2, 3, 4))
    if (jpeg and not picture) or (compression in _FAX and (bits != 1 or channels != 1)):
        what = f"is compressed with {name_of(compression)} of {channels} x {bits} bits, which is not read"
        raise BadImageError(path, what, anew)
    predicts = {1: True, 2: bits in (8, 16, 32, 64), 3: kind == "f"}
    if not jpeg and not predicts.get(page.predictor, False):
        raise BadImageError(path, f"has the predictor {name_of(page.predictor)}, which is not read", anew)
    if page.photometric == tifffile.PHOTOMETRIC.YCBCR and not jpeg:
        raise BadImageError(path, "has colours of the kind YCBCR", "save it as RGB")
    if page.samplesperpixel > 64:
        raise ValueError("a damaged header asks for any amount of memory")


def name_of(value: Any) -> str:
    """A tag's value by its name in the standard."""
    return getattr(value, "name", None) or str(value)


def _whole(stream: Any, data: bytes, size: int) -> bytes:
    # One byte more than is wanted makes the stream go to its end, where its checksum is.
    raw: bytes = stream.decompress(data, size + 1)
    if len(raw) <= size and not stream.eof:
        raise ValueError("a stream ends too early")
    return raw


_DECOMPRESS: dict[int, Callable[[bytes, int], bytes]] = {
    1: lambda data, size: data,
    8: lambda data, size: _whole(zlib.decompressobj(), data, size),
    32946: lambda data, size: _whole(zlib.decompressobj(), data, size),
    34925: lambda data, size: _whole(lzma.LZMADecompressor(memlimit=MAX_BYTES), data, size),
}
