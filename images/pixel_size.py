"""How large a pixel is, as far as the image file says so itself."""

__all__ = ["PixelSize", "file_pixel_size"]

import math
import re
from pathlib import Path
from typing import Any

import tifffile
from defusedxml import ElementTree
from PIL import Image

from textdiff.images.formats import TIFF_MAGIC, is_dicom

PixelSize = tuple[float, float]
"""Width and height of a pixel in micrometres."""
COARSEST_OF_TAGS = 10.0
"""Programs write 72, 96, 300 or 1200 dots an inch into files that nobody calibrated: 353 to 21 micrometres. Pixels
of microscopes are smaller, so a resolution in dots that says more than this is taken for one of those."""

_UNITS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_UNITS |= {"inch": 25400.0, "in": 25400.0, "\\u00b5m": 1.0}
_OF_DOTS = ("inch", "in", "cm")
"""What ImageJ takes over from the tags of a file that it opened, 300 dots an inch say, and writes into its own."""
_TURNED = (5, 6, 7, 8)
_ORIENTATION = 274


def file_pixel_size(path: Path) -> PixelSize | None:
    """The pixel size that a file states, of the image as it is read, upright.

    Looked at are a DICOM's PixelSpacing, an OME-TIFF's PhysicalSizeX and Y, the unit in an ImageJ TIFF, the MPP of an
    Aperio slide, and the resolution of TIFF, PNG (pHYs), JPEG and BMP, the last, and inches and centimetres of ImageJ,
    only up to ``COARSEST_OF_TAGS``.

    Returns:
        None where it states none, or no possible one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(132)
        if is_dicom(start) or path.suffix.lower() in (".dcm", ".dicom"):
            size = _of_dicom(path)
        else:
            size = _of_tiff(path) if start.startswith(TIFF_MAGIC) else _of_picture(path)
    # The picture was read. What is said beside it may be damaged in any way, and then says nothing.
    except Exception:
        return None
    return size if size and all(0 < length < math.inf for length in size) else None


def _of_dicom(path: Path) -> PixelSize | None:
    import pydicom

    file = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    for groups in file.get("SharedFunctionalGroupsSequence", [])[:1]:  # whole slides, and other files of many frames
        file = next(iter(groups.get("PixelMeasuresSequence", [])), file)
    spacing = file.get("PixelSpacing")
    return (1000 * float(spacing[1]), 1000 * float(spacing[0])) if spacing else None


def _of_tiff(path: Path) -> PixelSize | None:
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages.first
        size = _stated_size(tiff, page)
        unit = {2: 25400.0, 3: 10000.0}.get(page.tags.valueof("ResolutionUnit", 2))
        if size is None and unit and not tiff.is_imagej:
            size = _plausible(_resolution(page, unit))
        return size and (size[::-1] if page.tags.valueof(_ORIENTATION, 1) in _TURNED else size)


def _stated_size(tiff: tifffile.TiffFile, page: Any) -> PixelSize | None:
    """What a TIFF says in words beside its tags."""
    if tiff.is_ome and tiff.ome_metadata:
        for element in ElementTree.fromstring(tiff.ome_metadata).iter():
            if element.tag.rsplit("}", 1)[-1] == "Pixels":
                lengths = [
                    float(element.get(f"PhysicalSize{axis}", "nan"))
                    * _UNITS.get(element.get(f"PhysicalSize{axis}Unit", "µm"), math.nan)
                    for axis in "XY"
                ]
                return None if any(map(math.isnan, lengths)) else (lengths[0], lengths[1])
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", "")).strip().lower()
        size = _resolution(page, _UNITS[unit]) if unit in _UNITS else None
        return _plausible(size) if unit in _OF_DOTS else size
    if found := re.search(r"\|\s*MPP\s*=\s*([\d.]+)", page.description):
        return float(found[1]), float(found[1])
    return None


def _resolution(page: Any, unit: float) -> PixelSize | None:
    """From the tags that count pixels in a unit of so many micrometres."""
    counts = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if not all(counts) or not all(count[0] and count[1] for count in counts):
        return None
    return unit * counts[0][1] / counts[0][0], unit * counts[1][1] / counts[1][0]


def _of_picture(path: Path) -> PixelSize | None:
    with Image.open(path, formats=("PNG", "JPEG", "BMP")) as image:
        dots = image.info.get("dpi")
        if not dots or not all(dots):
            return None
        size = (25400 / float(dots[0]), 25400 / float(dots[1]))
        return _plausible(size[::-1] if image.getexif().get(_ORIENTATION, 1) in _TURNED else size)


def _plausible(size: PixelSize | None) -> PixelSize | None:
    return size if size and max(size) <= COARSEST_OF_TAGS else None
