"""``predictions.csv``, a line per object, and ``images.csv``, a line per image."""

__all__ = ["IMAGE_COLUMNS", "OBJECTS", "image_record", "write_tables"]

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from textdiff.errors import UserError
from textdiff.files import atomic_path
from textdiff.outputs.objects import OBJECT_COLUMNS, Segmentation, significant
from textdiff.tables import CsvWriter

IMAGE_COLUMNS = (
    *("image", "file", "group", "text", "width", "height", "objects", "area", "share", "probability", "counts"),
    *("mean_area", "mean_eccentricity", "mean_solidity", "mean_haematoxylin"),
    *("pixel_width_um", "pixel_height_um", "area_um2", "area_mm2", "tissue_mm2", "objects_per_mm2", "mean_area_um2"),
    *("distance", "expected_dice", "flagged", "notes", "error"),
)
"""Columns of ``images.csv``; means are over the objects, and ``objects_per_mm2`` is of a slide's tissue."""
OBJECTS = ".objects"
"""How a file ends that has a line of JSON for each object of an image, where they may be too many to be held."""


def image_record(segmented: Segmentation) -> dict[str, str | int | float]:
    """What was found, for a line of ``images.csv``.

    ``area`` is that of all objects in pixels, ``share`` its part of the image, ``probability`` the mean over it (left
    out where there is none), and ``counts`` the number of objects of each class, as in ``nucleus=12 stroma=3``. Means
    are over the objects, whatever their class, and ``objects_per_mm2`` is of the whole image.
    """
    height, width = segmented.objects.shape
    area = sum(found.area for found in segmented.found)
    likely = sum(found.probability * found.area for found in segmented.found)
    counts = Counter(found.class_number for found in segmented.found)
    record: dict[str, str | int | float] = {
        "objects": len(segmented.found),
        "area": area,
        "share": round(area / (width * height), 6),
        "counts": " ".join(f"{name}={counts[number]}" for number, name in enumerate(segmented.class_names, start=1)),
    }
    if area:
        record["probability"] = round(likely / area, 6)
        record["mean_area"] = significant(area / len(segmented.found))
    for name in ("eccentricity", "solidity", "haematoxylin"):
        values = [value for found in segmented.found if (value := getattr(found, name)) is not None]
        if values:
            record[f"mean_{name}"] = round(sum(values) / len(values), 6)
    if segmented.pixel_size:
        square = area * segmented.pixel_area
        record |= {"area_um2": significant(square), "area_mm2": significant(square / 1e6)}
        record["objects_per_mm2"] = significant(len(segmented.found) / (width * height * segmented.pixel_area / 1e6))
        if area:
            record["mean_area_um2"] = significant(square / len(segmented.found))
    return record


def write_tables(folder: Path, records: Iterable[Path], errors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Puts both tables together, atomically, and returns the lines of ``images.csv`` that have no error.

    To each comes the ``sha256`` of the image's file, where its record has it.

    Args:
        folder: where to write.
        records: JSON files, one for each image: ``image``, its line of ``images.csv``, and ``objects``, those of
            ``predictions.csv``, unless they are in a file beside it (``OBJECTS``); what is not known is left out, and
            so is an image of which nothing is.
        errors: for each image that could not be segmented, why.

    Raises:
        UserError: a record is damaged.
    """
    written: list[dict[str, Any]] = []
    with (
        atomic_path(folder / "predictions.csv") as objects_path,
        atomic_path(folder / "images.csv") as images_path,
        objects_path.open("w", encoding="utf-8", newline="") as objects_file,
        images_path.open("w", encoding="utf-8", newline="") as images_file,
    ):
        objects, images = CsvWriter(objects_file, OBJECT_COLUMNS), CsvWriter(images_file, IMAGE_COLUMNS)
        for path in records:
            # One at a time: a thousand slides have more objects than memory.
            try:
                record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise UserError(f"{path}: damaged, it is not JSON; remove it, and predict its image again") from None
            if "image" in record and record["image"]["image"] not in errors:
                for found in _objects(path, record):
                    objects.write(found)
                images.write(record["image"])
                written.append(record["image"] | ({"sha256": record["sha256"]} if "sha256" in record else {}))
        for name, error in errors.items():
            images.write({"image": name, "error": error})
    return written


def _objects(path: Path, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not record.get("large"):
        yield from record["objects"]
        return
    with path.with_suffix(OBJECTS).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
