"""Results in the formats of the programs that a laboratory uses: see ``docs/outputs.md``."""

__all__ = ["FORMATS", "Format", "Found", "Segmentation", "refusal", "require", "segmentation", "write_output"]

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from textdiff.errors import UserError, choose
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Found, Segmentation, segmentation
from textdiff.plugins import on_demand, registry

FORMATS: Mapping[str, Format] = registry(
    "formats",
    on_demand(
        {
            "png": "textdiff.outputs.png:FORMAT",
            "geojson": "textdiff.outputs.geojson:FORMAT",
            "ome-zarr": "textdiff.outputs.ome_zarr:FORMAT",
            "nifti": "textdiff.outputs.nifti:FORMAT",
            "roi": "textdiff.outputs.rois:FORMAT",
        }
    ),
    Format,
)
"""The formats by the names that ``--format`` takes."""
_ABLE = ("geojson", "ome-zarr", "nifti", "roi")
"""Formats that are named where another one cannot hold a result."""


def require(kind: str) -> None:
    """Checks, before any work, that a format is known and can be written here.

    Raises:
        UserError: it is not one of ``FORMATS``, or its package is missing.
    """
    package = choose("--format", kind, FORMATS).package
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"--format {kind}: needs the package {package}; pip install 'textdiff[{kind}]'")


def refusal(kind: str, segmented: Segmentation, numbered: bool = False) -> str:
    """Why a format cannot hold a result, and which can, as one line; empty if it can."""
    reason = FORMATS[kind].refusal(segmented, numbered)
    able = [name for name in _ABLE if not FORMATS[name].refusal(segmented, True)]
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
