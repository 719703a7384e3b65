"""GeoJSON as QuPath exports it (0.2 and later), and as ``predict --format geojson`` writes it -> objects.

QuPath writes a FeatureCollection or a bare list of features. Coordinates are pixels of the image at its full size.
Rectangles and ellipses are polygons; since 0.4 (https://github.com/qupath/qupath/pull/1099) the geometry of an ellipse
has the member ``isEllipse``, and its polygon only gives the box it lies in. A class is ``classification.name``, or
``names`` of a derived one; in QuPath names that end in ``*`` are no classes, ``Ignore*`` and ``Region*`` among them.
"""

__all__ = ["is_geojson", "read_geojson"]

import os
from collections import Counter
from typing import Any

import numpy as np

from textdiff.images.formats import BadImageError
from textdiff.readers.corners import Corners, as_corners, ellipse
from textdiff.readers.outlines import Drawn

_FIX = "export the objects as GeoJSON again"
_AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")
_LINES = ("Point", "MultiPoint", "LineString", "MultiLineString")
_GEOMETRIES = (*_AREAS, *_LINES)
_PLACES = ("tmaCore", "root", "TMACoreObject", "PathRootObject")
"""QuPath's objects that say where something is, and not what."""


def is_geojson(content: Any) -> bool:
    """Whether JSON is GeoJSON, or a bare list of features."""
    return isinstance(content, list) or (
        isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature", *_GEOMETRIES)
    )


def read_geojson(path: str | os.PathLike[str], content: Any) -> tuple[list[Drawn], list[str]]:
    """The objects in a GeoJSON file, in its order, those inside of others after them, and what a user should know.

    Lines and points are strokes. TMA cores, ``Region*`` and what lies on other planes of a stack are left out. Of a
    cell its outline counts and not that of its nucleus.

    ``content`` is what ``json`` makes of the file.

    Raises:
        BadImageError: not GeoJSON, or a geometry that is none.
    """
    drawn, left_out, nuclei = list[Drawn](), Counter[str](), 0
    to_do = [(feature, place) for feature, place in _features(path, content)][::-1]
    while to_do:
        feature, place = to_do.pop()
        if not isinstance(feature, dict):
            raise BadImageError(path, f"has no object at {place}", _FIX)
        properties = feature.get("properties") or {}
        geometry = feature.get("geometry")
        if not isinstance(properties, dict) or not isinstance(geometry, dict | None):
            raise BadImageError(path, f"has properties or a geometry that are none at {place}", _FIX)
        children = properties.get("childObjects") or properties.get("children") or []
        if isinstance(children, list):
            inner = [(child, f"{place}.childObjects[{number}]") for number, child in enumerate(children)]
            to_do += inner[::-1]
        name = _class_of(path, properties, place)
        kind = properties.get("objectType", properties.get("object_type", feature.get("id")))
        nuclei += "nucleusGeometry" in feature
        if geometry is None:
            left_out["without a geometry"] += kind not in _PLACES
        elif kind in _PLACES:
            left_out["TMA cores"] += 1
        elif name is not None and name.casefold() == "region*":
            left_out["Region*, which names a place and no class"] += 1
        elif any((geometry.get("plane") or {}).get(axis, 0) for axis in "zt"):
            left_out["on other planes of a stack"] += 1
        elif geometry.get("type") in _LINES:
            drawn.append(Drawn(place, name, strokes=tuple(_strokes(path, geometry, place))))
        else:
            drawn.append(Drawn(place, name, tuple(_polygons(path, geometry, place))))
    total = len(drawn) + sum(left_out.values())
    notes = [f"{count} of {total} objects are {what} (ignored)" for what, count in left_out.items() if count]
    if nuclei:
        notes.append(f"{nuclei} cells have an outlined nucleus, too: the cells' outlines are taken")
    return drawn, notes


def _features(path: str | os.PathLike[str], content: Any) -> list[tuple[Any, str]]:
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [(content, "the feature")]
    if isinstance(content, dict) and content.get("type") in _GEOMETRIES:
        return [({"geometry": content}, "the geometry")]
    features = content if isinstance(content, list) else content.get("features")
    if not isinstance(features, list):
        raise BadImageError(path, "is a FeatureCollection without a list of features", _FIX)
    return [(feature, f"features[{number}]") for number, feature in enumerate(features)]


def _class_of(path: str | os.PathLike[str], properties: dict[str, Any], place: str) -> str | None:
    found = properties.get("classification")
    if isinstance(found, dict):
        found = found.get("name") if found.get("name") is not None else found.get("names")
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        found = ": ".join(found)  # QuPath's own way to write a derived class
    if found is not None and not isinstance(found, str):
        raise BadImageError(path, f"has a class that is no name at {place}", _FIX)
    return found or None


def _strokes(path: str | os.PathLike[str], geometry: dict[str, Any], place: str) -> list[Corners]:
    """The lines in a geometry; a point is one of one corner."""
    kind, inside = geometry["type"], geometry.get("coordinates")
    try:
        if kind == "MultiLineString":
            if not isinstance(inside, list):
                raise ValueError("no coordinates")
            return list(map(as_corners, inside))
        corners = as_corners([inside] if kind == "Point" else inside)
    except ValueError as error:
        raise BadImageError(path, f"has {error} at {place}", _FIX) from error
    return [corners] if kind == "LineString" else [point[None] for point in corners]


def _polygons(path: str | os.PathLike[str], geometry: dict[str, Any], place: str) -> list[tuple[Corners, ...]]:
    """The polygons in a geometry, each an outline and its holes."""
    found, to_do = list[tuple[Corners, ...]](), [geometry]
    while to_do:
        part = to_do.pop(0)
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _AREAS:
            what = kind if isinstance(kind, str) else "no type"
            raise BadImageError(path, f"has a geometry of {what} at {place}, and not a polygon", _FIX)
        inside = part.get("geometries" if kind == "GeometryCollection" else "coordinates")
        try:
            if not isinstance(inside, list):
                raise ValueError("no coordinates")
            if kind == "GeometryCollection":
                to_do += inside
                continue
            for rings in [inside] if kind == "Polygon" else inside:
                if not isinstance(rings, list):
                    raise ValueError("a polygon without rings")
                if rings:
                    corners = tuple(map(as_corners, rings))
                    if part.get("isEllipse") is True and len(corners[0]):
                        corners = (ellipse(np.stack([corners[0].min(0), corners[0].max(0)])),)
                    found.append(corners)
        except ValueError as error:
            raise BadImageError(path, f"has {error} at {place}", _FIX) from error
    return found
