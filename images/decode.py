"""Image files -> 8-bit RGB. What had to be changed on the way is said in notes."""

__all__ = ["decode", "to_rgb"]

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError, alpha_note, dark_note, is_dicom, open_stored, read_bytes


def decode(path: str | os.PathLike[str], data: bytes | None = None) -> tuple[NDArray[np.uint8], list[str]]:
    """Reads an image as 8-bit RGB.

    * 16 and 32-bit integers are scaled by the full range of their type, so that all images of a data set are treated
      alike (16 bits: x / 257, rounded). A 12-bit camera's values in a 16-bit file therefore come out dark: a note says
      so. Of a 16-bit *colour* PNG the high byte is taken (at most one level away), because Pillow reads no more.
    * Floating point is taken as 0..1 if no value exceeds 1, otherwise as 0..255; a note says so if the image comes out
      dark, as 0..1 with a value just above 1 does. Other ranges, NaN and signed integers
      (CT in Hounsfield units) have no natural brightness and are refused.
    * Alpha is dropped, not composited: pixels keep the colours that are stored, as OpenCV reads them.
    * DICOM is seen through its rescaling and its window; see ``dicom_pixels``.
    * Grey is replicated, palettes and CMYK are converted, the EXIF orientation is applied, and of several pages the
      first is read. Three pages that an OME-TIFF or an ImageJ TIFF calls channels are the colours.

    ``data`` is the file's bytes, if they have been read already.

    Returns:
        The image (H, W, 3) uint8, and what a user should know about the file, one phrase each.

    Raises:
        BadImageError: not an image, damaged, too large, or without a natural 8-bit form.
    """
    data = read_bytes(path) if data is None else data
    alpha = None
    if is_dicom(data):
        from textdiff.images.dicom import dicom_pixels

        shown, notes = dicom_pixels(path, data)
    else:
        stored = open_stored(path, data)
        shown, notes, alpha = stored.shown(), stored.notes, stored.alpha
    pixels, more = to_rgb(path, shown)
    said = [] if alpha is None else [alpha_note(alpha.min(), alpha.max())]
    return pixels, notes + more + said


def to_rgb(path: str | os.PathLike[str], stored: NDArray[Any]) -> tuple[NDArray[np.uint8], list[str]]:
    """Stored pixels (H, W) or (H, W, C) of any type as 8-bit RGB, by the rules of ``decode``.

    Returns:
        The image (H, W, 3) uint8, and what a user should know about it, one phrase each.

    Raises:
        BadImageError: there is no natural 8-bit form.
    """
    notes: list[str] = []
    pixels = _to_8_bit(path, stored, notes)
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        notes.append("grey (replicated to RGB)")
        pixels = np.repeat((pixels if pixels.ndim == 2 else pixels[..., 0])[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3]), notes


def _to_8_bit(path: str | os.PathLike[str], pixels: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u":
        bits, largest = 8 * pixels.dtype.itemsize, int(pixels.max())
        full = 2**bits - 1
        notes.append(f"{bits}-bit (scaled to 8){dark_note(largest, full)}")
        return _scaled(pixels, 255 / full)
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 255):
            raise BadImageError(
                path, f"has values from {low:g} to {high:g}", "rescale it to 0..1 or 0..255, without NaN"
            )
        dark = f", and dark: the largest value is {high:.4g} of 0..255" if 1 < high <= 255 // 8 else ""
        notes.append(f"floating point (scaled to 8 bits){dark}")
        return _scaled(pixels, 255.0 if high <= 1 else 1.0)
    raise BadImageError(path, f"has signed pixels ({pixels.dtype})", "choose a window and save it with 8 bits")


def _scaled(pixels: NDArray[Any], factor: float) -> NDArray[np.uint8]:
    """Some rows at a time, since a number in between takes eight bytes."""
    out = np.empty(pixels.shape, np.uint8)
    step = max(1, (1 << 22) * len(pixels) // max(1, pixels.size))
    for first in range(0, len(pixels), step):
        out[first : first + step] = np.floor(pixels[first : first + step] * factor + 0.5)
    return out
