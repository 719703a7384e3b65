"""Results in the formats of the programs that a laboratory uses: see ``docs/outputs.md``."""

__all__ = ["FORMATS", "Found", "Segmentation", "require", "segmentation", "write_output"]

import importlib.util
from pathlib import Path

from textdiff.errors import UserError
from textdiff.outputs.objects import Found, Segmentation, segmentation

FORMATS = {
    "png": ".png",
    "geojson": ".geojson",
    "ome-zarr": ".ome.zarr",
    "nifti": ".nii.gz",
    "roi": ".roi.zip",
}
"""The formats, and what a file of each is called after the image's name."""


_PACKAGES = {"nifti": "nibabel", "roi": "roifile"}


def require(kind: str) -> None:
    """Checks, before any work, that a format is known and can be written here.

    Raises:
        UserError: it is not one of ``FORMATS``, or its package is missing.
    """
    if kind not in FORMATS:
        raise UserError(f"--format {kind}: unknown; formats are {', '.join(FORMATS)}")
    package = _PACKAGES.get(kind)
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"--format {kind}: needs the package {package}; pip install 'textdiff[{kind}]'")


def write_output(kind: str, path: Path, segmented: Segmentation, *, numbered: bool = False) -> None:
    """Writes one of ``FORMATS``, atomically, replacing what is there.

    Args:
        kind: a key of ``FORMATS``.
        path: of the file or directory.
        segmented: what was found in one image.
        numbered: PNG and NIfTI hold the numbers of objects instead of classes; the other formats hold both anyway.

    Raises:
        UserError: the format cannot hold the image.
    """
    # Only what is asked for is imported: two of the formats need packages that are optional.
    if kind == "png":
        from textdiff.outputs.png import write_png

        write_png(path, segmented, numbered=numbered)
    elif kind == "geojson":
        from textdiff.outputs.geojson import write_geojson

        write_geojson(path, segmented)
    elif kind == "ome-zarr":
        from textdiff.outputs.ome_zarr import write_ome_zarr

        write_ome_zarr(path, segmented)
    elif kind == "nifti":
        from textdiff.outputs.nifti import write_nifti

        write_nifti(path, segmented, numbered=numbered)
    elif kind == "roi":
        from textdiff.outputs.rois import write_rois

        write_rois(path, segmented)
    else:
        raise ValueError(f"format {kind!r} is not one of {', '.join(FORMATS)}")
