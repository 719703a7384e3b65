"""DICOM files -> the picture a viewer would show."""

__all__ = ["dicom_pixels"]

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.pipeline.imaging.formats import BadImageError, too_large, too_many_pixels

_WINDOW = ("WindowCenter", "WindowWidth")
_EXTRA = 'needs pydicom; pip install "textdiff[dicom]"'


def dicom_pixels(path: str | os.PathLike[str], data: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    """Decodes a DICOM file as far as 8 bits, by the standard's own pipeline (part 3, C.11).

    Grey: the modality's rescaling (slope and intercept, or its table), then the first window of the file (or its
    table), MONOCHROME1 inverted. Without a window the whole range that the stored bits can hold is shown, so that all
    images of a scanner are treated alike. Colour: palettes and YBR become RGB. Of several frames the first is read.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Returns:
        (H, W) or (H, W, 3) uint8, and what a user should know about the file, one phrase each.

    Raises:
        UserError: pydicom is not installed.
        BadImageError: damaged, without pixels, too large, or compressed in a way that cannot be decoded here.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise UserError(f"{path}: is DICOM, which {_EXTRA}") from None
    # Strings that are longer than the standard allows are common, and of no interest for the picture.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    notes: list[str] = []
    try:
        file = pydicom.dcmread(io.BytesIO(data))
        height, width = int(file.get("Rows") or 0), int(file.get("Columns") or 0)
        if "PixelData" not in file or not height * width:
            raise BadImageError(path, "is DICOM without an image", "leave it out")
        if too_many_pixels(height, width):
            raise too_large(path, f"{width}x{height} pixels")
        frames = int(file.get("NumberOfFrames") or 1)
        if frames > 1:
            notes.append(f"{frames} frames (only the first is read)")
        syntax = file.file_meta.TransferSyntaxUID
        try:
            stored = pixel_array(file, index=0)
        except (RuntimeError, NotImplementedError) as error:
            if not syntax.is_compressed:
                raise
            fix = "install a decoder (pip install pylibjpeg[all]), or export it uncompressed"
            raise BadImageError(path, f"is compressed as {syntax.name}, which cannot be decoded here", fix) from error
        if file.PhotometricInterpretation == "PALETTE COLOR":
            coloured = apply_color_lut(stored, file)
            return (coloured >> 8 if coloured.dtype == np.uint16 else coloured).astype(np.uint8), notes
        if stored.ndim == 3:  # pydicom has turned YBR into RGB
            bits = int(file.BitsStored)
            return (stored if bits <= 8 else stored >> (bits - 8)).astype(np.uint8), notes
        return _grey(file, stored, notes), notes
    except (BadImageError, MemoryError):
        raise
    # A damaged file shows as any of a dozen kinds of errors.
    except Exception as error:
        raise BadImageError(
            path, "is not a readable DICOM image (truncated or damaged)", "replace it by an intact copy"
        ) from error


def _grey(file: Any, stored: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    """(H, W) stored values as grey levels, through rescaling and window."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = np.asarray(apply_modality_lut(stored, file), np.float64)
    bits = int(file.BitsStored)
    if table := file.get("VOILUTSequence"):
        notes.append("DICOM lookup table (applied)")
        shown = apply_voi_lut(values.astype(np.int64), file) / (2.0 ** int(table[0].LUTDescriptor[2]) - 1)
    elif file.get("WindowCenter") is not None and file.get("WindowWidth") is not None:
        count = file["WindowCenter"].VM
        notes.append("DICOM window (applied)" if count < 2 else f"{count} DICOM windows (the first applied)")
        shown = _windowed(file, values)
    else:
        notes.append(f"DICOM without a window ({bits} bits scaled to 8)")
        half = 2 ** (bits - 1) if file.PixelRepresentation else 0
        ends = np.array([-half, 2**bits - 1 - half]).astype(stored.dtype)
        low, high = np.sort(np.asarray(apply_modality_lut(ends, file), np.float64))
        shown = (values - low) / (high - low)
    levels: NDArray[np.uint8] = np.floor(np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
    return ~levels if file.PhotometricInterpretation == "MONOCHROME1" else levels


def _windowed(file: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Part 3, C.11.2.1.2 and C.11.2.1.3: 0 is black, 1 is white, what lies beyond is cut off later."""
    several = file["WindowCenter"].VM > 1
    centre, width = (float(file[name].value[0] if several else file[name].value) for name in _WINDOW)
    function = file.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    return (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
