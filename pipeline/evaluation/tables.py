"""Scores as people read them (a table beside the published numbers) and as programs do (CSV and JSON)."""

__all__ = ["ScoreRow", "score_table", "write_scores"]

import csv
import io
import math
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textdiff.files import write_json, write_text
from textdiff.pipeline.evaluation.bootstrap import Interval
from textdiff.pipeline.evaluation.published import Published

_WIDTH = 80
_HEADER = ("", "labels", "Dice %", "IoU %", "images")
_ALIGN = (":--", "--:", ":--", ":--", "--:")


class ScoreRow(NamedTuple):
    """One line of a score table: what was scored, and its means over the images."""

    name: str
    dice: Interval
    iou: Interval
    labels: int | None = None
    """Number of annotated training images, where it is known."""


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
            _percent(row.dice),
            _percent(row.iou),
            str(row.dice.n),
        )
        for row in rows
    ]
    theirs = [(row.method, str(row.labels), f"{row.dice:.2f}", f"{row.iou:.2f}", "") for row in published]
    if markdown:
        theirs = [(f"published: {line[0]}", *line[1:]) for line in theirs]
        # A name with a bar in it would otherwise end its cell.
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in (_HEADER, _ALIGN, *ours, *theirs)]
        return "\n".join("| " + " | ".join(line) + " |" for line in escaped)

    widths = [max(len(line[i]) for line in (_HEADER, *ours, *theirs)) for i in range(len(_HEADER))]
    widths[0] = min(widths[0], _WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    rule = "  ".join("-" * width for width in widths)
    lines = [*_aligned(_HEADER, widths), rule, *(text for line in ours for text in _aligned(line, widths))]
    if theirs:
        lines += [rule, "published:", *(text for line in theirs for text in _aligned(line, widths))]
    return "\n".join(lines)


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
    table = io.StringIO()
    columns = list(dict.fromkeys(column for image in images for column in image))
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(images)
    as_csv, as_json = Path(directory) / f"scores{suffix}.csv", Path(directory) / f"scores{suffix}.json"
    write_text(as_csv, table.getvalue())
    write_json(as_json, value)
    return as_csv, as_json


def _percent(interval: Interval) -> str:
    mean, low, high, _ = interval
    if low is None or high is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    # A long name goes on in the next line; the numbers stay with its first.
    name, *further = textwrap.wrap(cells[0], widths[0], subsequent_indent="  ", break_on_hyphens=False) or [""]
    numbers = (
        cells[1].rjust(widths[1]),
        cells[2].ljust(widths[2]),
        cells[3].ljust(widths[3]),
        cells[4].rjust(widths[4]),
    )
    return ["  ".join((name.ljust(widths[0]), *numbers)).rstrip(), *further]


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
