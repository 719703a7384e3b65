"""Image and labels together as OME-Zarr: NGFF 0.5 (https://ngff.openmicroscopy.org/0.5/) on Zarr v3."""

__all__ = ["FORMAT", "write_ome_zarr"]

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.files import atomic_directory
from textdiff.outputs.format import Format
from textdiff.outputs.ngff import CHUNK, LABELS, SMALLEST, class_properties, image_attributes, label_attributes
from textdiff.outputs.objects import Segmentation
from textdiff.outputs.ome_zarr_stream import halved, stream_ome_zarr


def write_ome_zarr(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes a directory ``path``: the image, and beside it ``labels/classes`` and ``labels/objects``.

    The image is (c, y, x) uint8, labels are (y, x), uint8 and int32. Large ones get further levels of half the size
    each (images by the mean of 2 x 2 pixels, labels by one pixel of them), with the scale and translation that put each
    on the first one: in micrometres where the size of a pixel is known, otherwise in pixels, without a unit. ``path``
    appears complete or not at all; one that is there is replaced.

    Raises:
        UserError: ``path`` is something else than an OME-Zarr of before.
    """
    if path.exists() and not (path / "zarr.json").is_file():
        raise UserError(f"{path}: there already, and no OME-Zarr; move it away or choose another --out")
    size, names = segmented.pixel_size, segmented.class_names
    with atomic_directory(path) as partial:
        root = zarr.create_group(partial, zarr_format=3)
        levels = _levels(np.moveaxis(segmented.image, -1, 0), halved)
        _write(root, image_attributes(segmented.name, size, len(levels)), levels)
        labels = root.create_group("labels", attributes=LABELS)
        objects = [
            {
                "label-value": found.number,
                "class": names[found.class_number - 1],
                "area": found.area,
                "probability": round(found.probability, 6),
            }
            for found in segmented.found
        ]
        for name, values, properties in (
            ("classes", segmented.labels, class_properties(names)),
            ("objects", segmented.objects, objects),
        ):
            # A mean of labels would be another label.
            levels = _levels(values, lambda finer: finer[::2, ::2])
            _write(labels.create_group(name), label_attributes(name, size, len(levels), properties), levels)


def _levels(pixels: NDArray[Any], smaller: Callable[[NDArray[Any]], NDArray[Any]]) -> list[NDArray[Any]]:
    """(..., H, W), then levels of half the size, rounded up."""
    levels = [pixels]
    while max(levels[-1].shape[-2:]) > SMALLEST:
        levels.append(smaller(levels[-1]))
    return levels


def _write(group: zarr.Group, attributes: dict[str, Any], levels: list[NDArray[Any]]) -> None:
    group.attrs["ome"] = attributes
    for level, values in enumerate(levels):
        # A missing chunk would read as background as well, but no reader should have to wonder whether it was lost.
        array = group.create_array(
            str(level),
            shape=values.shape,
            dtype=values.dtype,
            chunks=tuple(min(size, CHUNK) for size in values.shape),
            dimension_names=["c", "y", "x"][-values.ndim :],
            config={"write_empty_chunks": True},
        )
        array[...] = values


FORMAT = Format("OME-Zarr", ".ome.zarr", write_ome_zarr, stream=stream_ome_zarr)
