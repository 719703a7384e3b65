"""Outlines drawn in Aperio ImageScope -> objects, all alike or by the names of their layers."""

__all__ = ["read_aperio"]

import os
from collections import Counter
from typing import Any

import numpy as np

from textdiff.images.formats import BadImageError
from textdiff.readers.corners import Corners, ellipse
from textdiff.readers.outlines import Drawn

_MAX_BYTES = 32 << 20
_ELLIPSE, _LINES = "2", {"3": "arrows", "4": "rulers"}
"""ImageScope's types of regions; all others are polygons."""
_FIX = "export the annotations from ImageScope again"


def read_aperio(path: str | os.PathLike[str], data: bytes, by_layer: bool) -> tuple[list[Drawn], list[str]]:
    """The regions in an ImageScope file as objects, in its order, and what a user should know, one phrase each.

    A freehand region or a rectangle is a polygon; an ellipse is given by two corners of its box, and becomes a polygon
    of 180 corners. Rulers, arrows and polygons of fewer than three corners enclose nothing and are left out. Excluded
    areas are cut out of the others of their layer.

    A layer has its own name, or that of its first attribute with one, as MoNuSAC writes it
    (https://monusac-2020.grand-challenge.org/Data/); the attribute ``Description``, which ImageScope adds, has its
    value for a name.

    Args:
        path: of the file; names it in errors.
        data: its bytes.
        by_layer: the class of an object is what its layer is called; if not, it has none.

    Raises:
        BadImageError: not XML, not ImageScope's, XML with entities or other definitions, too large, or a corner
            without numbers.
    """
    tree = _parsed(path, data)
    drawn, names, left_out, excluded = list[Drawn](), list[str](), Counter[str](), 0
    layers = [layer for layer in tree.iter("Annotation") if next(layer.iter("Region"), None) is not None]
    for number, layer in enumerate(layers, 1):
        name, where = _layer_name(layer), f"layer {layer.get('Id', 'without Id')}"
        shells, holes = list[tuple[str, Corners]](), list[Corners]()
        for region in layer.iter("Region"):
            points = _points(path, region)
            kind = region.get("Type", "0")
            if kind == _ELLIPSE and len(points) == 2:
                points = ellipse(points)
            if kind in _LINES:
                left_out[f"{_LINES[kind]} (Type {kind})"] += 1
            elif len(points) < 3:
                left_out["polygons of fewer than three corners"] += 1
            elif _is_excluded(path, region):
                holes.append(points)
            else:
                shells.append((f"region {region.get('Id', 'without Id')} of {where}", points))
        names += [name or f"layer {number}"] if shells or holes else []
        excluded += len(holes)
        for place, shell in shells:
            low, high = shell.min(0), shell.max(0)
            cut = [hole for hole in holes if np.all((hole.max(0) > low) & (hole.min(0) < high))]
            drawn.append(Drawn(place, name if by_layer else None, ((shell, *cut),)))
    total = len(drawn) + excluded + sum(left_out.values())
    if total != sum(1 for _ in tree.iter("Region")):
        raise BadImageError(path, "has outlines outside of its layers (Annotation)", _FIX)
    notes = [
        f"{count} of {total} outlines are {what}, which enclose nothing (ignored)" for what, count in left_out.items()
    ]
    if len(names) > 1 and not by_layer:
        notes.insert(
            0, f"has {len(names)} annotation layers ({', '.join(names)}): the outlines of all of them are taken"
        )
    if excluded:
        notes.append(f"{excluded} of {total} outlines are excluded areas (NegativeROA): cut out of their layer")
    return drawn, notes


def _parsed(path: str | os.PathLike[str], data: bytes) -> Any:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if len(data) > _MAX_BYTES:
        raise BadImageError(path, f"has {len(data) >> 20} MB, too many for the outlines in one image", "split them")
    try:
        tree = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        # Entities can expand to gigabytes or read other files; ImageScope writes none.
        raise BadImageError(path, "defines XML entities, which outlines never need", _FIX) from error
    except (ParseError, ValueError, LookupError) as error:
        raise BadImageError(path, f"is not XML ({error})", _FIX) from error
    if tree.tag != "Annotations":
        raise BadImageError(path, f"is not an ImageScope file (its root is {tree.tag})", _FIX)
    return tree


def _layer_name(layer: Any) -> str | None:
    names = [layer.get("Name")]
    for attribute in layer.iterfind("Attributes/Attribute"):
        name, value = attribute.get("Name"), attribute.get("Value")
        names.append(value if name == "Description" else name or value)
    return next((name for name in names if name and name.strip()), None)


def _points(path: str | os.PathLike[str], region: Any) -> Corners:
    name = region.get("Id", "without Id")
    try:
        points = [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
    except (KeyError, ValueError) as error:
        raise BadImageError(path, f"region {name} has a corner without X and Y", _FIX) from error
    corners = np.array(points, np.float64).reshape(-1, 2)
    if not (np.abs(corners) < 1e9).all():
        raise BadImageError(path, f"region {name} has a corner that is not finite", _FIX)
    return corners


def _is_excluded(path: str | os.PathLike[str], region: Any) -> bool:
    value = region.get("NegativeROA", "0").strip().lower()
    if value not in ("", "0", "1", "false", "true"):
        raise BadImageError(path, f"region {region.get('Id', 'without Id')} has NegativeROA {value}, not 0 or 1", _FIX)
    return value in ("1", "true")
