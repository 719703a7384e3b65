"""The metrics of ``score`` beyond Dice and IoU: of objects and of outlines, at the original size."""

__all__ = ["METRICS", "measure", "metrics_table"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.metrics.instances import components, find_instances
from textdiff.metrics.intervals import Interval
from textdiff.metrics.objects import aji, panoptic_quality
from textdiff.metrics.surfaces import hd95, surface_dice
from textdiff.pipeline.evaluation.score_tables import percent
from textdiff.tables import markdown_table, text_table

_OF_OBJECTS = ("aji", "pq", "dq", "sq", "f1")
METRICS = ("dice", "iou", *_OF_OBJECTS, "hd95", "nsd")
"""All that ``--metrics`` knows."""


def measure(
    metrics: Sequence[str],
    labels: NDArray[Any],
    likelihood: NDArray[np.floating[Any]],
    truth: NDArray[Any],
    instances: NDArray[Any] | None,
    *,
    method: str = "components",
    min_area: int = 0,
    tolerance: float = 2.0,
) -> dict[str, float]:
    """The metrics of one image, but for Dice and IoU.

    Args:
        metrics: names of ``METRICS``.
        labels: (h, w) predicted classes at the original size.
        likelihood: (h, w), the probability of each pixel's class.
        truth: (h, w) classes.
        instances: (h, w) numbers of the true objects; None where the data set does not tell them apart, and connected
            components of the truth take their place.
        method: how objects are found in the prediction: see ``find_instances``.
        min_area: predicted objects of fewer pixels do not count.
        tolerance: of the surface Dice, in pixels.
    """
    values: dict[str, float] = {}
    of_objects = [name for name in metrics if name in _OF_OBJECTS]
    if of_objects:
        found = find_instances(labels, likelihood, method, min_area)
        true = components(truth) if instances is None else instances
        if "aji" in of_objects:
            values["aji"] = aji(found, true)
        if quality := [name for name in of_objects if name != "aji"]:
            pq, dq, sq = panoptic_quality(found, true)
            all_of_it = {"pq": pq, "dq": dq, "sq": sq, "f1": dq}  # pairs match where their IoU exceeds one half
            values |= {name: all_of_it[name] for name in quality}
    predicted, foreground = np.asarray(labels) > 0, np.asarray(truth) > 0
    if "hd95" in metrics:
        values["hd95"] = hd95(predicted, foreground)
    if "nsd" in metrics:
        values["nsd"] = surface_dice(predicted, foreground, tolerance)
    return values


def metrics_table(intervals: Mapping[str, Interval | None], note: str, *, markdown: bool = False) -> str:
    """One line for each metric with its interval, and a last line that says what it is of; empty without any.

    Args:
        intervals: by name, those of ``METRICS`` but Dice and IoU. ``<name>_present``, over the images whose mask has
            any foreground, gets a line of its own where these are fewer.
        note: what a reader must know.
        markdown: a GitHub table; otherwise aligned text.
    """
    lines: list[tuple[str, str, str]] = []
    for name, interval in intervals.items():
        metric, _, present = name.partition("_")
        if interval is None or (present and interval.n == (intervals[metric] or interval).n):
            continue
        title = "  where present" if present else _title(metric)
        lines.append((title, percent(interval, 1 if metric == "hd95" else 100), str(interval.n)))
    if not lines:
        return ""
    columns = ("original size", "mean", "images")
    table = markdown_table(columns, lines, "llr") if markdown else text_table(columns, lines, "llr")
    return f"{table}\n\n{note}"


def _title(name: str) -> str:
    return "HD95 px" if name == "hd95" else f"{name.upper()} %"
