"""Scores as people read them (a table beside the published numbers) and as programs do (CSV and JSON)."""

__all__ = ["ScoreRow", "percent", "score_table", "write_scores"]

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textdiff.files import write_json, write_text
from textdiff.metrics.intervals import Interval
from textdiff.pipeline.evaluation.published import Published
from textdiff.tables import csv_table, markdown_table, text_table

_WIDTH = 80
_HEADER = ("", "labels", "Dice %", "IoU %", "images", "pixels %")
_ALIGN = "lrllrr"


class ScoreRow(NamedTuple):
    """One line of a score table: what was scored, and its means over the images."""

    name: str
    dice: Interval | None
    """None where no image has what it is the mean of."""
    iou: Interval | None
    labels: int | None = None
    """Number of annotated training images, where it is known."""
    pixels: str = ""
    """The share of the pixels that count in percent, where these are not all."""


def score_table(rows: Sequence[ScoreRow], published: Sequence[Published] = (), *, markdown: bool = False) -> str:
    """Our scores with their intervals, then the published ones, marked as such.

    Args:
        rows: scores in [0, 1]; shown in percent with two decimals.
        published: rows of ``PUBLISHED``, shown as the papers print them.
        markdown: a GitHub table; otherwise aligned text, at most 80 columns wide.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    ours = [
        (
            row.name,
            "" if row.labels is None else str(row.labels),
            percent(row.dice),
            percent(row.iou),
            str(row.dice.n if row.dice else 0),
            row.pixels,
        )
        for row in rows
    ]
    theirs = [(row.method, str(row.labels), f"{row.dice:.2f}", f"{row.iou:.2f}", "", "") for row in published]
    # Of full masks all pixels count, which needs no column.
    used = len(_HEADER) if any(row.pixels for row in rows) else len(_HEADER) - 1
    header, align = _HEADER[:used], _ALIGN[:used]
    own, others = ([line[:used] for line in part] for part in (ours, theirs))
    if markdown:
        return markdown_table(header, [*own, *((f"published: {name}", *cells) for name, *cells in others)], align)
    lines = [*own, *([None, ("published:", *[""] * (used - 1)), *others] if others else [])]
    return text_table(header, lines, align, width=_WIDTH)


def write_scores(
    directory: str | os.PathLike[str],
    per_image: Iterable[Mapping[str, Any]],
    summary: Mapping[str, Any],
    *,
    suffix: str = "",
) -> tuple[Path, Path]:
    """Writes ``scores.csv``, one row per image, and ``scores.json``, the summary and the same rows under ``images``.

    A score that is undefined (``None``, NaN or infinite) is an empty cell and ``null``. Intervals become
    ``{"mean", "low", "high", "n"}``. Each file is written atomically, and neither unless both can be formed.

    Args:
        directory: is made if it is not there.
        per_image: for every image its columns (id, split, text, scores ...); a column that only some images have is
            empty for the others. Columns keep the order in which they first appear.
        summary: any nesting of mappings, sequences, numbers (NumPy's too), intervals, paths and strings.
        suffix: goes into both names, before the dot.

    Returns:
        The paths of the two files.

    Raises:
        TypeError: a value has no JSON form.
        ValueError: ``summary`` has an entry called ``images``.
    """
    images = [_plain(image) for image in per_image]
    if "images" in summary:
        raise ValueError("the summary's entry 'images' would hide the per-image scores")
    value = {**_plain(summary), "images": images}
    as_csv, as_json = Path(directory) / f"scores{suffix}.csv", Path(directory) / f"scores{suffix}.json"
    write_text(as_csv, csv_table(images))
    write_json(as_json, value)
    return as_csv, as_json


def percent(interval: Interval | None, scale: float = 100) -> str:
    """A mean and its interval as they are shown, ``78.67 [75.02, 81.90]``; a dash where there is none."""
    if interval is None:
        return "-"
    ends = [f"{scale * end:.2f}" for end in (interval.low, interval.high) if end is not None]
    return f"{scale * interval.mean:.2f}" + (f" [{', '.join(ends)}]" if ends else "")


def _plain(value: Any) -> Any:
    """``value`` with only what JSON has: NumPy scalars unwrapped, named tuples as objects, non-finite floats null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")
