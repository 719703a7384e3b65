"""Dice and IoU of an image with several classes: of each class, and their mean."""

__all__ = ["class_confusions", "class_intervals", "class_scores", "scores_of_counts"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.pipeline.evaluation.bootstrap import Interval, bootstrap_mean
from textdiff.pipeline.metrics import Confusion, confusion, dice_from_iou, iou_of_counts


def class_scores(predicted: NDArray[Any], true: NDArray[Any], classes: Sequence[str], suffix: str) -> dict[str, float]:
    """``dice_<suffix>`` and ``iou_<suffix>`` of one image, the means over the classes, the background left out.

    With several classes ``dice_<suffix>_<class>`` and ``iou_<suffix>_<class>`` come on top. A class that neither mask
    has counts as segmented perfectly, by the rule for empty masks.

    Args:
        predicted: (H, W) class numbers.
        true: (H, W), the same.
        classes: names of 1, 2, ...
        suffix: names the truth.
    """
    return scores_of_counts(class_confusions(predicted, true, len(classes)), classes, suffix)


def class_confusions(predicted: NDArray[Any], true: NDArray[Any], count: int) -> list[Confusion]:
    """The pixels that two maps of class numbers (H, W) agree and disagree on, for each class 1 ... ``count``."""
    return [confusion(predicted == label, true == label) for label in range(1, count + 1)]


def scores_of_counts(counts: Sequence[Confusion], classes: Sequence[str], suffix: str) -> dict[str, float]:
    """``class_scores`` from the ``class_confusions`` of an image, which may have been added up part by part."""
    overlaps = [iou_of_counts(count) for count in counts]
    means = {
        f"dice_{suffix}": float(np.mean([dice_from_iou(overlap) for overlap in overlaps])),
        f"iou_{suffix}": float(np.mean(overlaps)),
    }
    if len(classes) > 1:
        for name, overlap in zip(classes, overlaps, strict=True):
            means |= {f"dice_{suffix}_{name}": dice_from_iou(overlap), f"iou_{suffix}_{name}": overlap}
    return means


def class_intervals(
    records: Sequence[Mapping[str, Any]], classes: Sequence[str], suffix: str, seed: int
) -> dict[str, dict[str, Interval]]:
    """``{class: {"dice": ..., "iou": ...}}`` over the images; empty where there is one class."""
    if len(classes) < 2:
        return {}
    return {
        name: {
            metric: bootstrap_mean([record[f"{metric}_{suffix}_{name}"] for record in records], seed=seed)
            for metric in ("dice", "iou")
        }
        for name in classes
    }
