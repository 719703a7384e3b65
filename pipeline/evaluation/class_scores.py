"""Dice and IoU of an image with several classes: of each class, their mean, and the mean over those that are there."""

__all__ = [
    "class_confusions",
    "class_scores",
    "mean_of_some",
    "mean_scores",
    "presence_note",
    "said_note",
    "scores_of_counts",
]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.console import counted, some
from textdiff.images.labels import UNSAID
from textdiff.metrics.intervals import Interval, bootstrap_mean
from textdiff.metrics.pixels import Confusion, confusion, dice_from_iou, iou_of_counts

Scores = dict[str, float | None]


def class_scores(predicted: NDArray[Any], true: NDArray[Any], classes: Sequence[str], suffix: str) -> Scores:
    """The scores of one image, the background left out.

    ``dice_<suffix>`` and ``iou_<suffix>`` are means over all classes, where one that neither mask has counts 1, by the
    rule for empty masks. ``dice_present_<suffix>`` and ``iou_present_<suffix>`` are means over the classes that the
    truth has, None where it has none. ``area_<suffix>`` is the number of true pixels. With several classes
    ``dice_<suffix>_<class>``, ``iou_<suffix>_<class>`` and ``area_<suffix>_<class>`` come on top. Where the truth says
    nothing of any pixel there are no scores: they are None.

    Args:
        predicted: (H, W) class numbers.
        true: (H, W), the same, and ``UNSAID`` where nothing is said.
        classes: names of 1, 2, ...
        suffix: names the truth.
    """
    return scores_of_counts(class_confusions(predicted, true, len(classes)), classes, suffix)


def class_confusions(predicted: NDArray[Any], true: NDArray[Any], count: int) -> list[Confusion]:
    """The pixels that two maps of class numbers (H, W) agree and disagree on, for each class 1 ... ``count``.

    Those of which the truth says nothing do not count.
    """
    said = true != UNSAID
    return [confusion(predicted == label, true == label, said) for label in range(1, count + 1)]


def scores_of_counts(counts: Sequence[Confusion], classes: Sequence[str], suffix: str) -> Scores:
    """``class_scores`` from the ``class_confusions`` of an image, which may have been added up part by part."""
    areas = [int(count.true_positive + count.false_negative) for count in counts]
    ious = [iou_of_counts(count) for count in counts]
    found: Scores = {}
    for metric, values in (("dice", [dice_from_iou(iou) for iou in ious]), ("iou", ious)):
        if not sum(counts[0]):
            names = (suffix, f"present_{suffix}", *(f"{suffix}_{name}" for name in classes if len(classes) > 1))
            found |= {f"{metric}_{name}": None for name in names}
            continue
        present = [value for value, area in zip(values, areas, strict=True) if area]
        found[f"{metric}_{suffix}"] = float(np.mean(values))
        found[f"{metric}_present_{suffix}"] = float(np.mean(present)) if present else None
        if len(classes) > 1:
            found |= {f"{metric}_{suffix}_{name}": value for name, value in zip(classes, values, strict=True)}
    found[f"area_{suffix}"] = sum(areas)
    if len(classes) > 1:
        found |= {f"area_{suffix}_{name}": area for name, area in zip(classes, areas, strict=True)}
    return found


def mean_scores(records: Sequence[Mapping[str, Any]], suffix: str, seed: int, name: str = "") -> dict[str, Any]:
    """The means over images of what ``class_scores`` gives.

    Args:
        records: the scores of every image, and the ``group`` of those that have one.
        suffix: names the truth.
        seed: of the bootstrap.
        name: of a class; otherwise it is the means over classes.

    Returns:
        ``dice`` and ``iou``, intervals over all images whose truth says something; ``present``, the number of images
        whose truth has the class (or any); ``dice_present`` and ``iou_present``, intervals over these, None where there
        are none. Of sparse truths also ``said``, how many pixels count, and ``pixels``, of how many.
    """
    tail = f"_{suffix}_{name}" if name else f"_{suffix}"
    present = [record for record in records if record[f"area{tail}"]]
    found: dict[str, Any] = {}
    for metric in ("dice", "iou"):
        where = f"{metric}{tail}" if name else f"{metric}_present{tail}"
        found[metric] = mean_of_some(records, f"{metric}{tail}", seed)
        found[f"{metric}_present"] = mean_of_some(present, where, seed)
    found["present"] = len(present)
    for key in () if name else ("said", "pixels"):
        if all(f"{key}_{suffix}" in record for record in records):
            found[key] = sum(record[f"{key}_{suffix}"] for record in records)
    return found


def mean_of_some(records: Iterable[Mapping[str, Any]], name: str, seed: int) -> Interval | None:
    """The mean of a score over the images that have it, with its bootstrap interval over the images or their groups.

    None where no image has it.
    """
    there = [(record[name], record.get("group", "")) for record in records if record[name] is not None]
    values, groups = [value for value, _ in there], [group for _, group in there]
    return bootstrap_mean(values, groups=groups, seed=seed) if there else None


def presence_note(present: Mapping[str, int], images: int) -> str:
    """What a reader must know of classes that images lack; empty where every image has every class.

    Args:
        present: for each class, how many images have it.
        images: how many there are.
    """
    rare = [f"{name} is in {count} of {counted(images, 'image')}" for name, count in present.items() if count < images]
    if not rare:
        return ""
    return (
        f"Not every image has every class: {', '.join(rare)}. An absent class counts 1 where none of it is found; "
        '"where present" leaves it out.'
    )


def said_note(sparse: int, images: int, said: int, pixels: int) -> str:
    """What a reader must know of masks that say nothing in places; empty where there are none.

    Args:
        sparse: how many masks say nothing in places.
        images: how many there are.
        said: how many pixels count, of all masks together.
        pixels: of how many.
    """
    if not sparse:
        return ""
    masks = some(sparse, images, "mask", "says", "say")
    share = f"{said:,} of {pixels:,} pixels ({100 * said / pixels:.2f} %)"
    return f"{masks} nothing of some pixels: Dice and IoU are over {share}."
