"""How well one mask agrees with another, and how undecided a prediction is, per image: pure functions on arrays.

Empty masks have one stated rule: where truth and prediction are both empty the image is segmented perfectly and scores
1, where only one of them is empty it scores 0. No image is left out of a mean because of it.
"""

__all__ = [
    "Confusion",
    "binary_masks",
    "confusion",
    "dice",
    "dice_from_iou",
    "entropy",
    "iou",
    "iou_of_counts",
    "jensen_shannon",
    "mean_share",
    "pooled_dice",
]

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Confusion(NamedTuple):
    """Pixel counts of one image; they add up to its number of pixels, or of those that count."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


def confusion(prediction: Mask, truth: Mask, said: Mask | None = None) -> Confusion:
    """Counts the pixels that two binary masks agree and disagree on.

    Args:
        prediction: (H, W) bool, or integers 0 and 1.
        truth: (H, W), the same.
        said: (H, W) bool, the pixels that count, because the truth says something of them; all by default.

    Raises:
        ValueError: the shapes differ or are not (H, W), or a mask has values other than 0 and 1.
    """
    prediction, truth = binary_masks(prediction, truth)
    if said is not None:
        _check_shapes(said, truth)
        prediction, truth = prediction[said], truth[said]
    both = int(np.count_nonzero(prediction & truth))
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    return Confusion(both, predicted - both, true - both, truth.size - predicted - true + both)


def binary_masks(prediction: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both masks as bool (H, W).

    Raises:
        ValueError: as ``confusion``.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_ and not np.array_equal(mask, mask.astype(np.bool_)):
            raise ValueError(f"{name} is not a binary mask: it has values other than 0 and 1")
    _check_shapes(prediction, truth)
    return prediction.astype(np.bool_, copy=False), truth.astype(np.bool_, copy=False)


def iou(prediction: Mask, truth: Mask) -> float:
    """Intersection over union (Jaccard index), TP / (TP + FP + FN), in [0, 1]; arguments as for ``confusion``."""
    return iou_of_counts(confusion(prediction, truth))


def iou_of_counts(counts: Confusion) -> float:
    """``iou`` of an image whose pixels have been counted."""
    tp, fp, fn, _ = counts
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def dice(prediction: Mask, truth: Mask) -> float:
    """Dice coefficient (F1 score), 2 TP / (2 TP + FP + FN), in [0, 1]; arguments as for ``confusion``."""
    return pooled_dice([confusion(prediction, truth)])


def pooled_dice(counts: Iterable[Confusion]) -> float:
    """The Dice coefficient of the pixels of several pieces taken together, such as the tiles of one image."""
    tp, fp, fn, _ = (sum(column) for column in zip(*counts, strict=True))
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


def dice_from_iou(value: float) -> float:
    """The Dice coefficient of an image whose IoU is ``value``: 2 IoU / (1 + IoU).

    The paper's code computes Dice this way, per image before the mean. For one image it is ``dice`` exactly; applied
    to a mean IoU it would not be the mean Dice.
    """
    return 2 * value / (1 + value)


def entropy(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """How undecided a prediction is at every pixel: the Shannon entropy of its class probabilities.

    Args:
        probabilities: (classes, H, W), non-negative, summing to 1 over the classes.

    Returns:
        (H, W) float32 in nats, from 0 (certain) to log(classes) (all classes alike).

    Raises:
        ValueError: the shape is not (classes, H, W), or there is a negative or non-finite probability.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 3:
        raise ValueError(f"probabilities have shape {p.shape}, not (classes, H, W)")
    if not (np.isfinite(p).all() and (p >= 0).all()):
        raise ValueError("probabilities must be finite and not negative")
    # The limit of p log p at 0 is 0; a softmax that underflows must not turn a certain pixel into NaN.
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    # Rounding can leave the sum for p = 1 + 1e-7 a little below 0, which a map in nats should not show.
    nats: NDArray[np.float64] = np.maximum(-(p * logs).sum(axis=0), 0.0)
    return nats.astype(np.float32)


def jensen_shannon(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """How much the members of an ensemble disagree at every pixel: their generalised Jensen-Shannon divergence.

    The entropy of the mean less the mean of the entropies, all members weighing the same (Lin, IEEE Trans. Inf. Theory
    37, 1991, section V): what remains of the uncertainty once each member's own is taken off.

    Args:
        probabilities: (members, classes, H, W), non-negative, summing to 1 over the classes.

    Returns:
        (H, W) float32 in nats, from 0 (all say the same) to the logarithm of members or classes, whichever are fewer.

    Raises:
        ValueError: the shape is not (members, classes, H, W), or there is a negative or non-finite probability.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 4:
        raise ValueError(f"probabilities have shape {p.shape}, not (members, classes, H, W)")
    spread: NDArray[np.float32] = entropy(p.mean(0)) - np.mean([entropy(member) for member in p], axis=0)
    # The divergence is not negative, a difference of rounded numbers may be.
    return np.maximum(spread, 0)


def mean_share(nats: NDArray[np.floating[Any]], classes: int) -> float:
    """The mean over the pixels (H, W) of an entropy or a divergence, over its maximum log(``classes``): in [0, 1]."""
    return float(np.mean(nats, dtype=np.float64) / np.log(classes))


def _check_shapes(prediction: Mask, truth: Mask) -> None:
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must have one shape (H, W)")
