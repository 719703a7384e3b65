"""Outlines drawn in Aperio ImageScope -> masks, all alike or by the names of their layers."""

__all__ = ["Outline", "covered_pixels", "outlines_of", "rasterise", "rasterise_part", "read_aperio"]

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError
from textdiff.readers.corners import Corners, check_work, ellipse, inside
from textdiff.readers.outlines import Drawn

_MAX_BYTES = 32 << 20
_ELLIPSE, _LINES = "2", {"3": "arrows", "4": "rulers"}
"""ImageScope's types of regions; all others are polygons."""


@dataclass(frozen=True)
class Outline:
    """One region."""

    corners: Corners
    layer: int = 0
    excluded: bool = False
    """Whether it is cut out of the others of its layer."""
    name: str | None = None
    """What its layer is called; None without a name."""
    place: str = ""
    """Where it stands in its file."""


def outlines_of(path: str | os.PathLike[str], data: bytes) -> tuple[list[Outline], list[str]]:
    """The regions in an ImageScope file, in its order, and what a user should know, one phrase each.

    A freehand region or a rectangle is a polygon; an ellipse is given by two corners of its box, and becomes a polygon
    of 180 corners. Rulers, arrows and polygons of fewer than three corners enclose nothing and are left out.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Raises:
        BadImageError: not XML, not ImageScope's, XML with entities or other definitions, too large, or a corner
            without numbers.
    """
    outlines, notes = _regions(path, data)
    layers = {outline.layer: outline.name or f"layer {outline.layer + 1}" for outline in outlines}
    if len(layers) > 1:
        names = ", ".join(layers.values())
        notes.insert(0, f"has {len(layers)} annotation layers ({names}): the outlines of all of them are taken")
    return outlines, notes


def read_aperio(path: str | os.PathLike[str], data: bytes) -> tuple[list[Drawn], list[str]]:
    """The regions in an ImageScope file as objects whose class is what their layer is called, and notes.

    A layer has its own name, or that of its first attribute with one, as MoNuSAC writes it
    (https://monusac-2020.grand-challenge.org/Data/); the attribute ``Description``, which ImageScope adds, has its
    value for a name.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Raises:
        BadImageError: as ``outlines_of``.
    """
    outlines, notes = _regions(path, data)
    cut: dict[int, list[Corners]] = {}
    for outline in outlines:
        if outline.excluded:
            cut.setdefault(outline.layer, []).append(outline.corners)
    drawn = []
    for outline in outlines:
        if not outline.excluded:
            low, high = outline.corners.min(0), outline.corners.max(0)
            holes = [hole for hole in cut.get(outline.layer, ()) if np.all((hole.max(0) > low) & (hole.min(0) < high))]
            drawn.append(Drawn(outline.place, outline.name, ((outline.corners, *holes),)))
    return drawn, notes


def _regions(path: str | os.PathLike[str], data: bytes) -> tuple[list[Outline], list[str]]:
    """What ``outlines_of`` gives, with nothing said of the layers."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    fix = "export the annotations from ImageScope again"
    if len(data) > _MAX_BYTES:
        raise BadImageError(path, f"has {len(data) >> 20} MB, too many for the outlines in one image", "split them")
    try:
        tree = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        # Entities can expand to gigabytes or read other files; ImageScope writes none.
        raise BadImageError(path, "defines XML entities, which outlines never need", fix) from error
    except (ParseError, ValueError, LookupError) as error:
        raise BadImageError(path, f"is not XML ({error})", fix) from error
    if tree.tag != "Annotations":
        raise BadImageError(path, f"is not an ImageScope file (its root is {tree.tag})", fix)
    outlines, left_out = list[Outline](), Counter[str]()
    layers = [layer for layer in tree.iter("Annotation") if next(layer.iter("Region"), None) is not None]
    for number, layer in enumerate(layers):
        name, where = _layer_name(layer), f"layer {layer.get('Id', 'without Id')}"
        for region in layer.iter("Region"):
            points = _points(path, region, fix)
            kind = region.get("Type", "0")
            if kind == _ELLIPSE and len(points) == 2:
                points = ellipse(points)
            if kind in _LINES:
                left_out[f"{_LINES[kind]} (Type {kind})"] += 1
            elif len(points) < 3:
                left_out["polygons of fewer than three corners"] += 1
            else:
                place = f"region {region.get('Id', 'without Id')} of {where}"
                outlines.append(Outline(points, number, _is_excluded(path, region, fix), name, place))
    total = len(outlines) + sum(left_out.values())
    if total != sum(1 for _ in tree.iter("Region")):
        raise BadImageError(path, "has outlines outside of its layers (Annotation)", fix)
    notes = [
        f"{count} of {total} outlines are {what}, which enclose nothing (ignored)" for what, count in left_out.items()
    ]
    if cut := sum(outline.excluded for outline in outlines):
        notes.append(f"{cut} of {total} outlines are excluded areas (NegativeROA): cut out of their layer")
    return outlines, notes


def _layer_name(layer: Any) -> str | None:
    names = [layer.get("Name")]
    for attribute in layer.iterfind("Attributes/Attribute"):
        name, value = attribute.get("Name"), attribute.get("Value")
        names.append(value if name == "Description" else name or value)
    return next((name for name in names if name and name.strip()), None)


def _points(path: str | os.PathLike[str], region: Any, fix: str) -> Corners:
    name = region.get("Id", "without Id")
    try:
        points = [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
    except (KeyError, ValueError) as error:
        raise BadImageError(path, f"region {name} has a corner without X and Y", fix) from error
    corners = np.array(points, np.float64).reshape(-1, 2)
    if not (np.abs(corners) < 1e9).all():
        raise BadImageError(path, f"region {name} has a corner that is not finite", fix)
    return corners


def _is_excluded(path: str | os.PathLike[str], region: Any, fix: str) -> bool:
    value = region.get("NegativeROA", "0").strip().lower()
    if value not in ("", "0", "1", "false", "true"):
        raise BadImageError(path, f"region {region.get('Id', 'without Id')} has NegativeROA {value}, not 0 or 1", fix)
    return value in ("1", "true")


def rasterise(
    path: str | os.PathLike[str], outlines: Sequence[Outline], height: int, width: int
) -> tuple[NDArray[np.uint32], list[str]]:
    """Numbers the pixels inside each outline by its place in the list, from 1, excluded ones not counted.

    Where outlines overlap the first one keeps its pixels, as in the challenge's own script. Excluded areas are cut out
    of their layer first.

    Returns:
        (height, width) uint32, and what a user should know, one phrase each.

    Raises:
        BadImageError: no outline is in the image, or they would take minutes.
    """
    instances = np.zeros((height, width), np.uint32)
    kept = [outline for outline in outlines if not outline.excluded]
    check_work(path, [outline.corners for outline in outlines], height, width)
    outside = covered = 0
    layer, holes = -1, None
    for number, outline in enumerate(kept, 1):
        if outline.layer != layer:
            layer, holes = outline.layer, _holes(outlines, outline.layer, height, width)
        box, held, _ = inside(outline.corners, height, width)
        free = held & (instances[box] == 0)
        if holes is not None:
            free &= ~holes[box]
        instances[box][free] = number
        beyond = outline.corners.max(0) <= 0, outline.corners.min(0) >= (width, height)
        outside += bool(np.any(beyond))
        covered += not np.any(beyond) and not free.any()
    if kept and outside == len(kept):
        size = f"{width}x{height}"
        raise BadImageError(path, f"has all its outlines outside the image of {size} pixels", "is it another image's?")
    notes = [f"{outside} of {len(kept)} outlines lie outside the image (ignored)"] if outside else []
    if covered:
        notes.append(f"{covered} of {len(kept)} outlines hold no pixel of their own (ignored)")
    return instances, notes


def rasterise_part(outlines: Sequence[Outline], y: int, x: int, height: int, width: int) -> NDArray[np.uint32]:
    """What ``rasterise`` draws in the part (height, width) of a larger image that begins at (y, x), uint32."""
    near: list[tuple[int, Outline]] = []
    number = 0
    for outline in outlines:
        number += not outline.excluded
        low, high = outline.corners.min(0), outline.corners.max(0)
        if high[0] > x and high[1] > y and low[0] < x + width and low[1] < y + height:
            near.append((number, Outline(outline.corners - (x, y), outline.layer, outline.excluded)))
    instances = np.zeros((height, width), np.uint32)
    holes = {layer: _holes([one for _, one in near], layer, height, width) for layer in {one.layer for _, one in near}}
    for number, outline in near:
        if not outline.excluded:
            box, held, _ = inside(outline.corners, height, width)
            free = held & (instances[box] == 0)
            if (cut := holes[outline.layer]) is not None:
                free &= ~cut[box]
            instances[box][free] = number
    return instances


def covered_pixels(outlines: Sequence[Outline], height: int, width: int) -> int:
    """About how many pixels of an image the outlines enclose, by their areas; overlaps count twice."""
    total = 0.0
    for outline in outlines:
        x, y = outline.corners.clip(0, (width, height)).T
        area = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
        total += -area if outline.excluded else area
    return max(0, round(total))


def _holes(outlines: Sequence[Outline], layer: int, height: int, width: int) -> NDArray[np.bool_] | None:
    """Which pixels are excluded from a layer; None if it has no excluded areas."""
    excluded = [outline for outline in outlines if outline.excluded and outline.layer == layer]
    if not excluded:
        return None
    holes = np.zeros((height, width), bool)
    for outline in excluded:
        box, held, _ = inside(outline.corners, height, width)
        holes[box] |= held
    return holes
