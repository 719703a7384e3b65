"""The metadata of an OME-Zarr: NGFF 0.5, https://ngff.openmicroscopy.org/0.5/."""

__all__ = ["CHUNK", "LABELS", "SMALLEST", "class_properties", "image_attributes", "label_attributes"]

from collections.abc import Sequence
from typing import Any

from textdiff.outputs.colours import class_colours

PixelSize = tuple[float, float]
_VERSION = "0.5"
LABELS = {"ome": {"version": _VERSION, "labels": ["classes", "objects"]}}
"""The attributes of the group that holds the maps of labels."""
CHUNK = 512
SMALLEST = 512
"""Levels are added until one fits this many pixels a side: what viewers show at once."""


def image_attributes(name: str, size: PixelSize | None, levels: int) -> dict[str, Any]:
    """The metadata of an RGB image of so many levels, whose pixels have ``size`` micrometres on the first one."""
    channels = [
        {"label": label, "color": colour, "active": True, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    return _multiscales(size, name, ["c", "y", "x"], levels) | {"omero": {"channels": channels}}


def label_attributes(
    name: str, size: PixelSize | None, levels: int, properties: list[dict[str, Any]]
) -> dict[str, Any]:
    """The metadata of a map of labels, with what is known of each label."""
    colours = [{key: one[key] for key in ("label-value", "rgba")} for one in properties if "rgba" in one]
    others = [{key: value for key, value in one.items() if key != "rgba"} for one in properties]
    # The standard wants at least one entry in each list, so that empty ones are left out.
    known = {key: value for key, value in (("colors", colours), ("properties", others)) if value}
    return _multiscales(size, name, ["y", "x"], levels) | {"image-label": {"source": {"image": "../../"}} | known}


def class_properties(names: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of the labels 1, 2, ... that are classes."""
    return [
        {"label-value": number, "class": name, "rgba": [*colour, 255]}
        for number, (name, colour) in enumerate(zip(names, class_colours(len(names)), strict=True), start=1)
    ]


def _multiscales(size: PixelSize | None, name: str, axes: list[str], levels: int) -> dict[str, Any]:
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
