"""Image and labels together as OME-Zarr: NGFF 0.5 (https://ngff.openmicroscopy.org/0.5/) on Zarr v3."""

__all__ = ["FORMAT", "write_ome_zarr"]

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.files import atomic_directory
from textdiff.outputs.colours import class_colours
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Segmentation

_VERSION = "0.5"
_CHUNK = 512
_SMALLEST = 512
"""Levels are added until one fits this many pixels a side: what viewers show at once."""


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
    names = segmented.class_names
    colours = class_colours(len(names))
    with atomic_directory(path) as partial:
        root = zarr.create_group(partial, zarr_format=3)
        levels = list(_image_levels(np.moveaxis(segmented.image, -1, 0)))
        attributes = _multiscales(segmented, segmented.name, ["c", "y", "x"], len(levels))
        attributes["omero"] = {
            "channels": [
                {
                    "label": label,
                    "color": colour,
                    "active": True,
                    "window": {"min": 0, "max": 255, "start": 0, "end": 255},
                }
                for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
            ]
        }
        _write(root, attributes, levels, ["c", "y", "x"])
        labels = root.create_group(
            "labels", attributes={"ome": {"version": _VERSION, "labels": ["classes", "objects"]}}
        )
        classes = [
            {"label-value": number, "class": name, "rgba": [*colour, 255]}
            for number, (name, colour) in enumerate(zip(names, colours, strict=True), start=1)
        ]
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
            ("classes", segmented.labels, classes),
            ("objects", segmented.objects, objects),
        ):
            levels = list(_label_levels(values))
            attributes = _multiscales(segmented, name, ["y", "x"], len(levels))
            attributes["image-label"] = _image_label(properties)
            _write(labels.create_group(name), attributes, levels, ["y", "x"])


def _image_label(properties: list[dict[str, Any]]) -> dict[str, Any]:
    """Empty lists are left out: the standard wants at least one entry in each."""
    colours = [{key: one[key] for key in ("label-value", "rgba")} for one in properties if "rgba" in one]
    others = [{key: value for key, value in one.items() if key != "rgba"} for one in properties]
    optional = {"colors": colours, "properties": others}
    return {"source": {"image": "../../"}} | {key: value for key, value in optional.items() if value}


def _multiscales(segmented: Segmentation, name: str, axes: list[str], levels: int) -> dict[str, Any]:
    size = segmented.pixel_size
    length = dict(zip("xy", size or (1.0, 1.0), strict=True))
    datasets = []
    for level in range(levels):
        factor = 2.0**level
        scale = [factor * length[axis] if axis != "c" else 1.0 for axis in axes]
        # The centre of this level's first pixel, from that of the first level's.
        shift = [(factor - 1) / 2 * length[axis] if axis != "c" else 0.0 for axis in axes]
        transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations[: 2 if level else 1]})
    space = {"type": "space"} | ({"unit": "micrometer"} if size else {})
    kinds = [{"name": axis, **({"type": "channel"} if axis == "c" else space)} for axis in axes]
    return {"version": _VERSION, "multiscales": [{"name": name, "axes": kinds, "datasets": datasets}]}


def _write(group: zarr.Group, attributes: dict[str, Any], levels: list[NDArray[Any]], axes: list[str]) -> None:
    group.attrs["ome"] = attributes
    for level, values in enumerate(levels):
        chunks = tuple(min(size, _CHUNK) for size in values.shape)
        # A missing chunk would read as background as well, but no reader should have to wonder whether it was lost.
        array = group.create_array(
            str(level),
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunks,
            dimension_names=axes,
            config={"write_empty_chunks": True},
        )
        array[...] = values


def _image_levels(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """(c, H, W), then levels of half the size, rounded up."""
    yield image
    while max(image.shape[1:]) > _SMALLEST:
        padded = np.pad(image, ((0, 0), (0, image.shape[1] % 2), (0, image.shape[2] % 2)), mode="edge")
        quarters = [padded[:, y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1)]
        image = ((sum(quarters[1:], quarters[0]) + 2) // 4).astype(np.uint8)
        yield image


def _label_levels(labels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """(H, W), then levels of half the size, rounded up. A mean of labels would be another label."""
    yield labels
    while max(labels.shape) > _SMALLEST:
        labels = labels[::2, ::2]
        yield labels


FORMAT = Format("OME-Zarr", ".ome.zarr", write_ome_zarr)
