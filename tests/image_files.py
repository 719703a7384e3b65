"""Images and masks as files hold them, also in ways in which Pillow writes none."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

MASK = (np.hypot(*np.mgrid[-20:20, -24:24]) < 14).astype(np.uint8)
INSIDE = MASK.astype(bool)
RGB = np.random.default_rng(11).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]
SQUARES = np.zeros((40, 48), np.uint8)
SQUARES[3:9, 3:9], SQUARES[12:18, 30:36], SQUARES[22:38, 4:40] = 1, 2, 3


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def painted(labels: np.ndarray, *values: object, dtype: type = np.uint8) -> np.ndarray:
    """``labels`` with the value, or the colour, of each number."""
    return np.array(values, dtype)[labels]


def png(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return png(pixels, format="JPEG", quality=quality)


def palette(indices: np.ndarray, *colours: tuple[int, ...], **options: object) -> bytes:
    image, file = Image.fromarray(indices, "P"), io.BytesIO()
    image.putpalette([level for colour in colours for level in colour])
    image.save(file, "PNG", **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "minisblack", **options})
    return file.getvalue()


def png_by_hand(rows: list[bytes], width: int, bits: int, kind: int) -> bytes:
    """A PNG that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    )
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + data


def shallow_png(numbers: np.ndarray, bits: int) -> bytes:
    """Grey of 1, 2 or 4 bits."""
    spread = (numbers[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(len(numbers), -1), axis=1)
    return png_by_hand([row.tobytes() for row in rows], numbers.shape[1], bits, 0)


def deep_png(colours: np.ndarray) -> bytes:
    """Colours of 16 bits."""
    return png_by_hand([row.astype(">u2").tobytes() for row in colours], colours.shape[1], 16, 2)


BLACK, WHITE, RED, GREEN, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
TWO_CLASSES = {
    "0 and 255": png(MASK * 255),
    "0 and 1": png(MASK),
    "0 and 128": png(MASK * np.uint8(128)),
    "1 bit": png(INSIDE),
    "2 bits": shallow_png(MASK * 3, 2),
    "4 bits": shallow_png(MASK, 4),
    "bmp": png(MASK * 255, format="BMP"),
    "1-bit bmp": png(INSIDE, format="BMP"),
    "rgb": png(np.stack([MASK * 255] * 3, -1)),
    "dark red": png(painted(MASK, BLACK, (128, 0, 0))),
    "a pale colour": png(painted(MASK, BLACK, (240, 200, 120))),
    "opaque green": png(painted(MASK, (*BLACK, 255), (*GREEN, 255))),
    "0 and 1 of 16 bits": tiff(MASK.astype(np.uint16)),
    "0 and 65535": tiff(MASK.astype(np.uint16) * 65535),
    "1000 of 16 bits": tiff(MASK.astype(np.uint16) * 1000),
    "32 bits": tiff(MASK.astype(np.uint32) * 70_000),
    "signed": tiff(MASK.astype(np.int16)),
    "floating point": tiff(MASK.astype(np.float32)),
    "half precision": tiff(MASK.astype(np.float16)),
    "1-bit tiff": tiff(INSIDE),
    "lzw": png(MASK * 255, format="TIFF", compression="tiff_lzw"),
    "palette": palette(MASK, BLACK, (128, 0, 0)),
    "palette of which white is the background": palette(MASK, WHITE, RED),
    "palette whose numbers begin at 1": palette(MASK + np.uint8(1), RED, BLACK, WHITE),
    "palette with transparency": palette(MASK, BLACK, WHITE, transparency=bytes([0, 255])),
    "shape in the alpha of white": png(np.dstack([np.full((40, 48, 3), 255, np.uint8), MASK * 255])),
    "shape in the alpha of black": png(np.dstack([np.zeros((40, 48, 3), np.uint8), MASK * 255])),
    "shape in the alpha of grey": png(np.dstack([np.full((40, 48), 9, np.uint8), MASK * 255])),
    "white on transparent black": png(painted(MASK, (*BLACK, 0), (*WHITE, 255))),
    "half transparent": png(painted(MASK, (*BLACK, 0), (*WHITE, 128))),
    "white is zero": tiff(255 - MASK * 255, photometric="miniswhite"),
    "white is zero, 1 bit": tiff(~INSIDE, photometric="miniswhite", software="a scanner"),
    "a boolean array by tifffile": tiff(INSIDE, photometric=None),
    "white is zero, lzw": tiff(255 - MASK * 255, photometric="miniswhite", compression="lzw"),
    "inverted by ImageJ": tiff(MASK * 255, photometric="miniswhite", description="ImageJ=1.54f\n"),
}
