"""Results in the formats of the programs that a laboratory uses: see ``docs/outputs.md``."""

__all__ = ["FORMATS", "Format", "Found", "Segmentation", "refusal", "require", "segmentation", "write_output"]

import importlib.util
from pathlib import Path

from textdiff.errors import UserError
from textdiff.outputs import geojson, nifti, ome_zarr, png, rois
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Found, Segmentation, segmentation

FORMATS = {
    "png": png.FORMAT,
    "geojson": geojson.FORMAT,
    "ome-zarr": ome_zarr.FORMAT,
    "nifti": nifti.FORMAT,
    "roi": rois.FORMAT,
}
"""The formats by the names that ``--format`` takes."""


def require(kind: str) -> None:
    """Checks, before any work, that a format is known and can be written here.

    Raises:
        UserError: it is not one of ``FORMATS``, or its package is missing.
    """
    if kind not in FORMATS:
        raise UserError(f"--format {kind}: unknown; formats are {', '.join(FORMATS)}")
    package = FORMATS[kind].package
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"--format {kind}: needs the package {package}; pip install 'textdiff[{kind}]'")


def refusal(kind: str, segmented: Segmentation, numbered: bool = False) -> str:
    """Why a format cannot hold a result, and which can, as one line; empty if it can."""
    reason = FORMATS[kind].refusal(segmented, numbered)
    able = [name for name, other in FORMATS.items() if name != "png" and not other.refusal(segmented, True)]
    return f"{reason}; use --format {' or '.join(able)}" if reason else ""


def write_output(kind: str, path: Path, segmented: Segmentation, *, numbered: bool = False) -> None:
    """Writes one of ``FORMATS``, atomically, replacing what is there.

    Args:
        kind: a key of ``FORMATS``.
        path: of the file or directory.
        segmented: what was found in one image.
        numbered: where a file holds one map only, it holds the numbers of objects instead of classes.

    Raises:
        UserError: the format cannot hold the image.
    """
    if reason := refusal(kind, segmented, numbered):
        raise UserError(reason)
    FORMATS[kind].write(path, segmented, numbered)
