"""What is reported of a study: measurements by patient, and their means over patients with intervals."""

__all__ = ["GROUP_COLUMNS", "MEASURES", "SUMMARY_COLUMNS", "doubts", "group_lines", "summary_lines", "write_summaries"]

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textdiff.console import form, some
from textdiff.errors import few
from textdiff.files import write_text
from textdiff.metrics.intervals import bootstrap_mean
from textdiff.outputs.objects import significant
from textdiff.readers.splits import alike_groups
from textdiff.tables import csv_table

MEASURES = (
    *("objects", "share", "objects_per_mm2", "mean_area", "mean_area_um2"),
    *("mean_eccentricity", "mean_solidity", "mean_haematoxylin"),
)
"""What is summed up, by the names of columns of ``images.csv``."""
GROUP_COLUMNS = ("group", "images", *MEASURES)
SUMMARY_COLUMNS = ("measurement", "mean", "low", "high", "n", "over")
_OF_OBJECTS = {"mean_area": "area", "mean_area_um2": "area_um2"} | dict.fromkeys(
    ("mean_eccentricity", "mean_solidity", "mean_haematoxylin"), ""
)
"""Means over objects, and the column that has their sum, where there is one."""

_NAMED = 5

Line = Mapping[str, Any]


def group_lines(images: Iterable[Line]) -> list[dict[str, Any]]:
    """One line for each group with ``GROUP_COLUMNS``, in the order of their names; what is not known is left out.

    Objects and areas of a group's images are added up before they are divided, so that each object and each square
    millimetre counts once, however they are spread over images. An image without a group is one by itself.

    Args:
        images: lines of ``images.csv``. Those without objects told apart are left out.
    """
    groups: dict[tuple[str, bool], list[Line]] = {}
    for line in images:
        if "objects" in line:
            # An image and a group of the same name are not the same thing.
            alone = not line.get("group")
            groups.setdefault((line["image"] if alone else line["group"], alone), []).append(line)
    return [{"group": name, "images": len(lines), **_together(lines)} for (name, _), lines in sorted(groups.items())]


def summary_lines(groups: Sequence[Line], over: str) -> list[dict[str, Any]]:
    """One line for each measurement with its mean over groups and its interval, as ``SUMMARY_COLUMNS``.

    Args:
        groups: of ``group_lines``; one that has no value of a measurement does not count for it.
        over: what they are, in the plural.
    """
    lines = []
    for name in MEASURES:
        if values := [group[name] for group in groups if name in group]:
            mean, low, high, count = bootstrap_mean(values)
            ends = {side: significant(end) for side, end in (("low", low), ("high", high)) if end is not None}
            lines.append({"measurement": name, "mean": significant(mean), **ends, "n": count, "over": over})
    return lines


def write_summaries(folder: Path, images: Sequence[Line]) -> list[Path]:
    """Writes ``summary.csv``, and ``groups.csv`` where images have groups; returns the paths of those written.

    One that is there from before and has nothing to say any more is removed.
    """
    grouped = any(line.get("group") for line in images)
    groups = group_lines(images)
    tables = {
        "groups.csv": csv_table(groups, GROUP_COLUMNS) if grouped and groups else "",
        "summary.csv": csv_table(summary_lines(groups, "groups" if grouped else "images"), SUMMARY_COLUMNS)
        if groups
        else "",
    }
    for name, text in tables.items():
        if text:
            write_text(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name, text in tables.items() if text]


def doubts(images: Sequence[Line], asked: Collection[str]) -> list[str]:
    """What is to be known of the tables before they are trusted, a line each: they are of all that is in a folder.

    Args:
        images: lines of ``images.csv``.
        asked: the names of the images that were asked for this time.
    """
    found, total = [], len(images)
    if others := [line["image"] for line in images if line["image"] not in asked]:
        here = f"{some(len(others), total, 'image', 'is', 'are')} here from before, and in the tables too"
        them = form(len(others), "it", "them")
        found.append(f"{here} ({few(others, _NAMED)}); choose another --out to leave {them} out")
    first: dict[Any, str] = {}
    named = [(line["image"], first.setdefault(line.get("sha256", line["image"]), line["image"])) for line in images]
    if twice := [f"{name} of {one}" for name, one in named if name != one]:
        are = some(len(twice), total, "image", "is a copy of another", "are copies of others")
        counts = form(len(twice), "counts as one of its own", "count as ones of their own")
        found.append(f"{are} ({few(twice, _NAMED)}), and {counts}")
    unsized = sum("pixel_width_um" not in line for line in images)
    if 0 < unsized < total:
        says = some(unsized, total, "image", "says", "say")
        found.append(f"{says} no size of a pixel: micrometres, and objects per mm², are of the others (--own-mpp)")
    for one, other in alike_groups(line.get("group", "") for line in images):
        what = f"the groups {one} and {other} differ in capitals or spaces only, and count as two"
        found.append(f"{what}; write them alike if they are one")
    return found


def _together(lines: Sequence[Line]) -> dict[str, Any]:
    """``MEASURES`` of several images as if they were one."""
    found: dict[str, Any] = {"objects": sum(line["objects"] for line in lines)}
    # A square millimetre counts once at any magnification, where all of them are known.
    squares_of_one = [line.get("pixel_width_um", 0) * line.get("pixel_height_um", 0) for line in lines]
    weights = squares_of_one if all(squares_of_one) else [1] * len(lines)
    covered = sum(weight * line.get("area", 0) for weight, line in zip(weights, lines, strict=True))
    whole = sum(weight * line["width"] * line["height"] for weight, line in zip(weights, lines, strict=True))
    found["share"] = round(covered / whole, 6)
    squares = [(line["objects"], square) for line in lines if (square := _square(line))]
    if squares:
        found["objects_per_mm2"] = significant(sum(n for n, _ in squares) / sum(square for _, square in squares))
    for name, total in _OF_OBJECTS.items():
        measured = [line for line in lines if (total or name) in line and line["objects"]]
        if count := sum(line["objects"] for line in measured):
            sums = (line[total] if total else line[name] * line["objects"] for line in measured)
            found[name] = significant(sum(sums) / count)
    return found


def _square(line: Line) -> float | None:
    """The square millimetres that an image's density is of: of a slide its tissue, else the whole image."""
    if "tissue_mm2" in line:
        return float(line["tissue_mm2"])
    if "pixel_width_um" not in line:
        return None
    return float(line["width"] * line["height"] * line["pixel_width_um"] * line["pixel_height_um"] / 1e6)
