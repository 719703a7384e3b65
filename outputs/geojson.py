"""Objects as GeoJSON that QuPath opens: polygons with holes along the edges of pixels."""

__all__ = ["FORMAT", "stream_geojson", "write_geojson"]

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TextIO

from textdiff.files import atomic_path
from textdiff.outputs.colours import class_colours
from textdiff.outputs.format import Format, Sink, Streamed
from textdiff.outputs.objects import Found, Segmentation, Subject, significant
from textdiff.outputs.polygons import Polygon

_NAMESPACE = uuid.UUID("5a0a6e63-4a3c-5a0f-9f5e-0c1f0d1c7b11")


def write_geojson(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes one feature per object, atomically: the schema is that of QuPath 0.4 and later.

    Coordinates are pixels of the image at its full size, from the outer corner of its top left pixel, y pointing down.
    A feature is a ``Polygon``, or a ``MultiPolygon`` where parts of an object meet only at corners (or not at all). It
    is a ``detection``, QuPath's kind of object for what there are thousands of, with the class as its classification.
    Its measurements are its area, in µm² too where the size of a pixel is known, and its mean probability. The same
    segmentation gives the same bytes.
    """
    with _collection(path, segmented, (1.0, 1.0)) as collection:
        for found, polygons in segmented.outlines():
            collection.found(found, polygons)


def stream_geojson(path: Path, streamed: Streamed) -> AbstractContextManager[Sink]:
    """Writes what ``write_geojson`` does as objects come, in their order, in pixels of the image's finest level."""
    return _collection(path, streamed, streamed.scale)


@contextmanager
def _collection(path: Path, subject: Subject, scale: tuple[float, float]) -> Iterator[Sink]:
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        yield _Writer(file, subject, scale)
        file.write("\n]}\n")


class _Writer(Sink):
    """Writes objects alone."""

    def __init__(self, file: TextIO, subject: Subject, scale: tuple[float, float]) -> None:
        self._file, self._subject, self._scale, self._separator = file, subject, scale, "\n"
        self._colours = class_colours(len(subject.class_names))

    def found(self, found: Found, polygons: Sequence[Polygon]) -> None:
        """A feature."""
        feature = _feature(self._subject, found, polygons, self._colours[found.class_number - 1], self._scale)
        self._file.write(self._separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
        self._separator = ",\n"


def _feature(
    segmented: Subject,
    found: Found,
    polygons: Sequence[Polygon],
    colour: tuple[int, int, int],
    scale: tuple[float, float],
) -> dict[str, Any]:
    def place(x: int, y: int) -> list[float]:
        # Corners of pixels that are resized lie between those of the finest level; a thousandth of one is enough.
        return [_short(x * scale[0]), _short(y * scale[1])]

    parts = [
        [[place(x, y) for x, y in [*ring, ring[0]]] for ring in (shell.tolist(), *(h.tolist() for h in holes))]
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


def _short(value: float) -> float:
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


FORMAT = Format("GeoJSON", ".geojson", write_geojson, stream=stream_geojson)
