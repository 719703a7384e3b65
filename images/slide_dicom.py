"""Whole slides as DICOM (part 3, A.32.8): a file for each level, for label and overview, all of one series."""

__all__ = ["dicom_slides", "files_of_dicom_slide", "further_files", "is_dicom_slide"]

from collections.abc import Iterable
from pathlib import Path

from textdiff.errors import UserError

DICOM = (".dcm", ".dicom")
"""Endings that files of a slide are looked for by, in lower case."""
_KIND = b"\x02\x00\x02\x00UI\x1e\x001.2.840.10008.5.1.4.1.1.77.1.6"
"""The element (0002,0002) with the class of slides, which annotations and segmentations of slides name elsewhere."""
_WANTED = ["SeriesInstanceUID", "ImageType", "TotalPixelMatrixRows", "TotalPixelMatrixColumns"]


def is_dicom_slide(path: Path) -> bool:
    """Whether a file is a part of a slide, by the kind of object that its head names."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    return start[128:132] == b"DICM" and _KIND in start


def dicom_slides(files: Iterable[Path]) -> dict[Path, list[Path]]:
    """The slides among files: by the file that holds the finest level of one all that are of its series and folder.

    Raises:
        UserError: there are some, and pydicom is not installed.
    """
    series: dict[tuple[Path, str], list[tuple[int, Path]]] = {}
    for path in files:
        if path.suffix.lower() in DICOM and is_dicom_slide(path):
            of, pixels = _facts(path)
            series.setdefault((path.parent, of), []).append((-pixels, path))
    return {min(parts)[1]: sorted(path for _, path in parts) for parts in series.values()}


def further_files(slides: dict[Path, list[Path]]) -> set[Path]:
    """The files of ``dicom_slides`` for which another one stands."""
    return {part for slide, files in slides.items() for part in files if part != slide}


def files_of_dicom_slide(path: Path) -> list[Path]:
    """The files of the slide that a file is of.

    Raises:
        UserError: as ``dicom_slides``.
    """
    beside = sorted(file for file in path.parent.iterdir() if file.is_file())
    return next((parts for parts in dicom_slides(beside).values() if path in parts), [path])


def _facts(path: Path) -> tuple[str, int]:
    """Of which series a file is, and how many pixels it has of the slide; of a damaged one a series of its own."""
    try:
        from pydicom import dcmread
    except ImportError:
        raise UserError(
            f"{path}: is a slide in DICOM, and finding its files needs pydicom; pip install 'textdiff[wsi]'"
        ) from None
    try:
        file = dcmread(path, stop_before_pixels=True, specific_tags=_WANTED)
        pixels = int(file.TotalPixelMatrixRows) * int(file.TotalPixelMatrixColumns)
        return str(file.SeriesInstanceUID), pixels if "VOLUME" in file.ImageType else 0
    except Exception:  # reading the slide says what is wrong with it
        return str(path), 0
