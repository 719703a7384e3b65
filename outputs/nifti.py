"""Masks as NIfTI, for ITK-SNAP and whatever else reads volumes."""

__all__ = ["FORMAT", "write_nifti"]

import gzip
from pathlib import Path

import numpy as np

from textdiff.files import atomic_path
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Segmentation


def write_nifti(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes the class numbers (uint8) as a NIfTI-1 volume of one slice, atomically.

    With ``numbered`` it is the numbers of objects, uint16, or uint32 beyond 65535.
    The array is (W, H, 1): NIfTI's first axis is x. Voxels are 1 x 1 x 1 without a unit, and the orientation is the one
    that ITK gives to a PNG or TIFF (x to the patient's left, y to the back: the affine is diag(-1, -1, 1)), so that the
    mask lies on its image in ITK-SNAP.
    """
    import nibabel

    values = segmented.labels
    if numbered:
        values = segmented.objects.astype(np.uint16 if len(segmented.found) < 2**16 else np.uint32)
    volume = nibabel.Nifti1Image(values.T[..., None], np.diag([-1.0, -1.0, 1.0, 1.0]))
    volume.header.set_xyzt_units("unknown")
    with atomic_path(path) as partial:
        # Without a time in it, the same mask has the same bytes.
        partial.write_bytes(gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0))


# The sizes of its axes are signed 16-bit numbers.
FORMAT = Format("NIfTI-1", ".nii.gz", write_nifti, package="nibabel", side=2**15 - 1, objects=2**32 - 1, single=True)
