"""DICOM files -> the picture a viewer would show."""

__all__ = ["dicom_pixels"]

import io
import math
import os
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.images.formats import MAX_BYTES, REPLACE, BadImageError, check_size, dark_note, too_large

_NEEDED = (
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
)
_COLOURS = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1"


def dicom_pixels(path: str | os.PathLike[str], data: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    """Decodes a DICOM file as far as 8 bits, by the standard's own pipeline (part 3, C.11).

    Grey: the modality's rescaling (slope and intercept, or its table), then the first window of the file (or its
    table), MONOCHROME1 inverted. Without a window the whole range that the stored bits can hold is shown, so that all
    images of a scanner are treated alike. Colour: palettes and YBR become RGB. Of several frames the first is read.
    A file without the preamble is read too.

    Returns:
        (H, W) or (H, W, 3) uint8, and what a user should know about the file, one phrase each.

    Raises:
        UserError: pydicom is not installed.
        BadImageError: damaged, without pixels, too large, or compressed in a way that cannot be decoded here.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut
    except ImportError:
        raise UserError(f'{path}: is DICOM, which needs pydicom; pip install "textdiff[dicom]"') from None
    # What departs from the standard without a consequence for the picture is common, and of no interest.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    notes: list[str] = []
    try:
        file = pydicom.dcmread(io.BytesIO(_inflated(path, data)), force=True)
        stored = _stored(path, file, notes)
        if file.PhotometricInterpretation == "PALETTE COLOR":
            # Tables of 8 bits may lie in words of 16.
            all_colours = apply_color_lut(np.arange(2 ** int(file.BitsStored)).astype(stored.dtype), file)
            return (apply_color_lut(stored, file) >> (8 if all_colours.max() > 255 else 0)).astype(np.uint8), notes
        if stored.ndim == 3:  # pydicom has turned YBR into RGB
            bits = int(file.BitsStored)
            if stored.dtype.kind != "u" or stored.max() >> bits:
                raise ValueError("there are values of more bits than are stored, or negative ones")
            return (stored if bits <= 8 else stored >> (bits - 8)).astype(np.uint8), notes
        _check_numbers(path, file)
        return _grey(file, stored, notes), notes
    except (BadImageError, MemoryError):
        raise
    # A damaged file shows as any of a dozen kinds of errors.
    except Exception as error:
        raise BadImageError(path, "is not a readable DICOM image (truncated or damaged)", REPLACE) from error


def _inflated(path: str | os.PathLike[str], data: bytes) -> bytes:
    """The file without the compression of all its tags, which pydicom would undo to any size."""
    if data[128:132] != b"DICM" or data[132:138] != b"\2\0\0\0UL":
        return data
    end = 144 + int.from_bytes(data[140:144], "little")
    if _DEFLATED not in data[132:end]:
        return data
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    tags = stream.decompress(data[end:], MAX_BYTES)
    if not stream.eof:
        raise too_large(path, f"more than {MAX_BYTES >> 20} MiB, if it is not damaged")
    return data[:end].replace(_DEFLATED, _EXPLICIT.ljust(len(_DEFLATED), b"\0")) + tags


def _stored(path: str | os.PathLike[str], file: Any, notes: list[str]) -> NDArray[Any]:
    """The numbers of the first frame, (H, W) or (H, W, 3)."""
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    height, width = int(file.get("Rows") or 0), int(file.get("Columns") or 0)
    if "PixelData" not in file or not height * width:
        raise BadImageError(path, "is DICOM without an image", "leave it out")
    if missing := [name for name in _NEEDED if file.get(name) is None]:
        raise BadImageError(path, f"is DICOM without {missing[0]}, which its pixels need", "export it again")
    kind, samples = str(file.PhotometricInterpretation), int(file.SamplesPerPixel)
    if samples != (3 if kind.startswith("YBR_") else _COLOURS.get(kind)):
        what = f"is DICOM with {samples} samples of the kind {kind!r}, which are not read"
        raise BadImageError(path, what, "export it as grey or RGB")
    if int(file.BitsAllocated) > (16 if kind == "PALETTE COLOR" else 32):
        raise BadImageError(
            path, f"is DICOM of {file.BitsAllocated} bits, which are not read", "export it with 16 bits"
        )
    check_size(path, height, width)
    if int(file.HighBit) != int(file.BitsStored) - 1:
        raise BadImageError(path, "is DICOM whose HighBit is not that of its BitsStored", "export it again")
    frames = int(file.get("NumberOfFrames") or 1)
    if frames > 1:
        notes.append(f"{frames} frames (only the first is read)")
    if "TransferSyntaxUID" not in file.file_meta:
        file.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if file.original_encoding[0] else ExplicitVRLittleEndian
        )
    syntax = file.file_meta.TransferSyntaxUID
    try:
        return np.asarray(pixel_array(file, index=0))
    except (RuntimeError, NotImplementedError) as error:
        if not syntax.is_compressed:
            raise
        fix = "install a decoder (pip install pylibjpeg[all]), or export it uncompressed"
        raise BadImageError(path, f"is compressed as {syntax.name}, which cannot be decoded here", fix) from error


def _check_numbers(path: str | os.PathLike[str], file: Any) -> None:
    """Refuses a rescaling and a window that show nothing, whatever is stored."""
    for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        for value in _numbers(file, name)[:1]:
            zero = value == 0 if name == "RescaleSlope" else name == "WindowWidth" and value <= 0
            if zero or not math.isfinite(value):
                what = f"is DICOM whose {name} is {value:g}"
                raise BadImageError(path, what, "correct it, or export the image again")


def _grey(file: Any, stored: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    """(H, W) stored values as grey levels, through rescaling and window."""
    from pydicom.pixels.processing import apply_modality_lut

    table, bits = file.get("ModalityLUTSequence"), int(file.BitsStored)
    slope = next(iter(_numbers(file, "RescaleSlope")), 1.0)
    intercept = next(iter(_numbers(file, "RescaleIntercept")), 0.0)

    def rescaled(values: NDArray[Any]) -> NDArray[np.float64]:
        if table:
            return np.asarray(apply_modality_lut(values, file), np.float64)
        return values * slope + intercept

    half = 2 ** (bits - 1) if file.PixelRepresentation else 0
    ends = np.array([-half, 2**bits - 1 - half])
    if stored.min() < ends[0] or stored.max() > ends[1]:
        raise ValueError("there are values of more bits than are stored")
    shown = _shown(file, rescaled, stored, ends, notes)
    levels = np.empty(stored.shape, np.uint8)
    step = max(1, (1 << 22) // stored.shape[1])  # some rows at a time, since a number in between takes eight bytes
    for first in range(0, len(stored), step):
        share = shown(rescaled(stored[first : first + step]))
        levels[first : first + step] = np.floor(np.clip(share, 0, 1) * 255 + 0.5)
    return ~levels if file.PhotometricInterpretation == "MONOCHROME1" else levels


def _shown(
    file: Any,
    rescaled: Callable[[NDArray[Any]], NDArray[np.float64]],
    stored: NDArray[Any],
    ends: NDArray[Any],
    notes: list[str],
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """What makes rescaled values shares of white: 0 is black, 1 is white, what lies beyond is cut off later."""
    from pydicom.pixels.processing import apply_voi

    if tables := file.get("VOILUTSequence"):
        notes.append("DICOM lookup table (applied)")
        white = 2.0 ** int(tables[0].LUTDescriptor[2]) - 1
        return lambda values: apply_voi(values.astype(np.int64), file) / white
    centres, widths = _numbers(file, "WindowCenter"), _numbers(file, "WindowWidth")
    if centres and widths:
        count = max(len(centres), len(widths))
        notes.append("DICOM window (applied)" if count < 2 else f"{count} DICOM windows (the first applied)")
        return _window(_find(file, "VOILUTFunction") or "LINEAR", centres[0], widths[0])
    bits = int(file.BitsStored)
    low, high = np.sort(rescaled(ends.astype(stored.dtype)))
    largest = rescaled(np.array([stored.min(), stored.max()])).max()
    notes.append(f"DICOM without a window ({bits} bits scaled to 8)" + dark_note(largest - low, high - low))
    return lambda values: (values - low) / (high - low)


def _window(function: str, centre: float, width: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Part 3, C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return lambda values: (values - centre) / width + 0.5
    return lambda values: (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5


def _find(file: Any, name: str) -> Any:
    """The value of an element, of the whole file or, in the enhanced kinds, of its first frame; None if it is empty."""
    if (value := file.get(name)) not in (None, ""):
        return value
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (file.get(groups) or [])[:1]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in (group.get(macro) or [])[:1]:
                    if (value := item.get(name)) not in (None, ""):
                        return value
    return None


def _numbers(file: Any, name: str) -> list[float]:
    """The numbers in an element; one of several that is left empty is nan."""
    value = _find(file, name)
    values = [] if value is None else value if hasattr(value, "append") else [value]
    return [math.nan if one in (None, "") else float(one) for one in values]
