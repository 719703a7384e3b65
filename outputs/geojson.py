"""Objects as GeoJSON that QuPath opens: polygons with holes along the edges of pixels."""

__all__ = ["FORMAT", "write_geojson"]

import json
import uuid
from pathlib import Path
from typing import Any

from textdiff.files import atomic_path
from textdiff.outputs.colours import class_colours
from textdiff.outputs.format import Format
from textdiff.outputs.objects import Found, Segmentation, significant
from textdiff.outputs.polygons import Polygon, trace

_NAMESPACE = uuid.UUID("5a0a6e63-4a3c-5a0f-9f5e-0c1f0d1c7b11")


def write_geojson(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes one feature per object, atomically: the schema is that of QuPath 0.4 and later.

    Coordinates are pixels of the image at its full size, from the outer corner of its top left pixel, y pointing down.
    A feature is a ``Polygon``, or a ``MultiPolygon`` where parts of an object meet only at corners (or not at all). It
    is a ``detection``, QuPath's kind of object for what there are thousands of, with the class as its classification.
    Its measurements are its area, in µm² too where the size of a pixel is known, and its mean probability. The same
    segmentation gives the same bytes.
    """
    colours = class_colours(len(segmented.class_names))
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for index, found in enumerate(segmented.found):
            left, top, width, height = found.box
            part = segmented.objects[top : top + height, left : left + width] == found.number
            feature = _feature(segmented, found, trace(part), colours[found.class_number - 1])
            file.write((",\n" if index else "\n") + json.dumps(feature, ensure_ascii=False, allow_nan=False))
        file.write("\n]}\n")


def _feature(
    segmented: Segmentation, found: Found, polygons: list[Polygon], colour: tuple[int, int, int]
) -> dict[str, Any]:
    left, top = found.box[:2]
    parts = [
        [[[x + left, y + top] for x, y in [*ring, ring[0]]] for ring in (shell.tolist(), *(h.tolist() for h in holes))]
        for shell, holes in polygons
    ]
    single = len(parts) == 1
    measured = {} if segmented.pixel_size is None else {"Area µm^2": significant(found.area * segmented.pixel_area)}
    return {
        "type": "Feature",
        # QuPath wants a UUID: made from the names, so that a second run gives the same.
        "id": str(uuid.uuid5(_NAMESPACE, f"{segmented.name}\n{found.number}")),
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": parts[0] if single else parts,
        },
        "properties": {
            "objectType": "detection",
            "name": str(found.number),
            "classification": {"name": segmented.class_names[found.class_number - 1], "color": list(colour)},
            "measurements": {"Area px^2": found.area, **measured, "Mean probability": round(found.probability, 6)},
        },
    }


FORMAT = Format("GeoJSON", ".geojson", write_geojson)
