"""Results in the formats of the programs that a laboratory uses: see ``docs/outputs.md``."""

__all__ = ["FORMATS", "Found", "Segmentation", "segmentation", "write_output"]

from pathlib import Path

from textdiff.outputs.objects import Found, Segmentation, segmentation

FORMATS = {
    "png": ".png",
    "geojson": ".geojson",
    "ome-zarr": ".ome.zarr",
    "nifti": ".nii.gz",
    "roi": ".roi.zip",
}
"""The formats, and what a file of each is called after the image's name."""


def write_output(kind: str, path: Path, segmented: Segmentation, *, numbered: bool = False) -> None:
    """Writes one of ``FORMATS``, atomically, replacing what is there.

    Args:
        kind: a key of ``FORMATS``.
        path: of the file or directory.
        segmented: what was found in one image.
        numbered: PNG and NIfTI hold the numbers of objects instead of classes; the other formats hold both anyway.

    Raises:
        UserError: the format's package is missing, or the format cannot hold the image.
    """
    # Only what is asked for is imported: two of the formats need a package that is optional.
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
