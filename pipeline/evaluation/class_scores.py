"""Dice and IoU of an image with several classes: of each class, and their mean."""

__all__ = ["class_intervals", "class_scores"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.pipeline.evaluation.bootstrap import Interval, bootstrap_mean
from textdiff.pipeline.metrics import dice_from_iou, iou


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
    overlaps = [iou(predicted == label, true == label) for label in range(1, len(classes) + 1)]
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
