"""Objects as a zip of ImageJ ROIs, as the ROI Manager saves and opens them."""

__all__ = ["FORMAT", "write_rois"]

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from textdiff.files import atomic_path
from textdiff.outputs.colours import class_colours
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Found, Segmentation
from textdiff.outputs.polygons import Polygon

_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # the segments of java.awt.geom.PathIterator, as ImageJ stores composite ROIs


def write_rois(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes one ROI per object, atomically: ``<class>-<number>.roi``, in the class's colour.

    An object without holes is a traced polygon, as the wand makes it; one with holes or of several parts is a composite
    selection. Corners lie on the edges of pixels, where ImageJ has them. The same segmentation gives the same bytes.
    """
    import roifile

    colours = class_colours(len(segmented.class_names))
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for found, polygons in segmented.outlines():
            name = f"{segmented.class_names[found.class_number - 1]}-{found.number:05d}"
            roi = _roi(roifile, name, found, polygons)
            roi.stroke_color = bytes((255, *colours[found.class_number - 1]))
            # A fixed time: a zip of the same objects has the same bytes. ImageJ takes the name from the entry.
            archive.writestr(zipfile.ZipInfo(f"{name.replace('/', '_')}.roi"), roi.tobytes(), zipfile.ZIP_DEFLATED)


def _roi(roifile: Any, name: str, found: Found, polygons: list[Polygon]) -> Any:
    left, top, width, height = found.box
    roi = roifile.ImagejRoi(left=left, top=top, right=left + width, bottom=top + height, name=name)
    if len(polygons) == 1 and not polygons[0].holes:
        roi.roitype = roifile.ROI_TYPE.TRACED
        # Unlike those of a composite selection, these corners are counted from the box's.
        roi.integer_coordinates = polygons[0].shell.astype(np.int32) - (left, top)
        roi.n_coordinates = len(polygons[0].shell)
        return roi
    roi.roitype = roifile.ROI_TYPE.RECT
    rings = (ring for shell, holes in polygons for ring in (shell, *holes))
    roi.multi_coordinates = np.array(list(_path(rings)), np.float32)
    roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _path(rings: Iterable[Any]) -> Iterable[float]:
    for ring in rings:
        for index, (x, y) in enumerate(ring.tolist()):
            yield from (_LINE if index else _MOVE, x, y)
        yield _CLOSE


# The corners of a bounding box are signed 16-bit numbers.
FORMAT = Format("an ImageJ ROI", ".roi.zip", write_rois, package="roifile", side=2**15 - 1)
