"""The training losses: that of the method, and those of the networks it is compared with.

All are over the pixels of which the labels say something: where they are ``UNSAID`` scores have no part in a sum and
get no gradient.
"""

__all__ = ["DICE_WEIGHT", "LOSSES", "ordered_cross_entropy", "segmentation_loss", "soft_dice_loss"]

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.images.labels import UNSAID

DICE_WEIGHT = 1.5
SMOOTH = 1e-5


def soft_dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, with squared denominators, averaged over the classes.

    Per class c, with sums over all labelled pixels of the batch: ``1 - (2 sum p y + s) / (sum p^2 + sum y^2 + s)``,
    s = 1e-5 (Milletari et al., V-Net, 2016, https://arxiv.org/abs/1606.04797, section 3).

    Args:
        scores: (B, classes, H, W) float: probabilities, or raw logits as the paper's training script passes them.
        labels: (B, H, W) bool or integer class labels, or ``UNSAID``.

    Returns:
        A scalar, in [0, 1] for probabilities; raw logits can take it anywhere, below zero included.
    """
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    truth, said = _truth(labels, scores)
    both = (scores * truth).sum((0, 2, 3))
    each = (scores.square() * said).sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return (1 - (2 * both + SMOOTH) / (each + SMOOTH)).mean()


def segmentation_loss(
    logits: Tensor, labels: Tensor, *, dice_weight: float = DICE_WEIGHT, dice_on: str = "softmax"
) -> Tensor:
    """Mean cross-entropy + ``dice_weight`` x soft Dice: the loss of TextDiff (Feng, MICCAI 2024).

    Args:
        logits: (B, classes, H, W) float.
        labels: (B, H, W) bool or integer class labels, or ``UNSAID``.
        dice_weight: the paper's 1.5 by default.
        dice_on: ``"softmax"`` (clean protocol), or ``"logits"``: the raw logits, which is what the authors' script
            computes (paper protocol).

    Returns:
        A scalar, float32 also for logits of lower precision.

    Raises:
        ValueError: ``dice_on`` is neither.
    """
    if dice_on not in ("softmax", "logits"):
        raise ValueError(f"dice_on={dice_on!r}: use 'softmax' or 'logits'")
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    scores = logits.softmax(1) if dice_on == "softmax" else logits
    return _cross_entropy(logits, labels) + dice_weight * soft_dice_loss(scores, labels)


def _truth(labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """(B, classes, ...), 1 for a pixel's class and 0 where nothing is said, and (B, 1, ...), 1 where something is."""
    labels = labels.long()
    said = labels != UNSAID
    truth = F.one_hot(labels * said, scores.shape[1]).movedim(-1, 1) * said[:, None]
    return truth.to(scores.dtype), said[:, None].to(scores.dtype)


def _weighted(logits: Tensor, labels: Tensor, cross_entropy: float, dice: float) -> Tensor:
    """``cross_entropy`` x cross-entropy + ``dice`` x soft Dice."""
    return cross_entropy * _cross_entropy(logits, labels) + dice * soft_dice_loss(logits.softmax(1), labels)


def _focal(logits: Tensor, labels: Tensor) -> Tensor:
    """10 x focal loss (gamma 2, https://arxiv.org/abs/1708.02002) - log(soft Dice over the batch, smoothing 1).

    Dice is of the foreground classes, without squares.
    """
    log = F.log_softmax(logits, 1)
    truth, said = _truth(labels, logits)
    p = log.gather(1, (labels * (labels != UNSAID))[:, None])
    focal = (-((1 - p.exp()) ** 2) * p * said).sum() / said.sum().clamp(min=1)
    truth, found = truth[:, 1:], log.exp()[:, 1:] * said
    dice = (2 * (found * truth).sum((0, 2, 3)) + 1) / (found.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)
    return 10 * focal - dice.log().mean()


def _balanced(logits: Tensor, labels: Tensor) -> Tensor:
    """LViT's: 0.5 Dice per image + 0.5 cross-entropy, the mean over the classes of each one's mean over its pixels.

    A class that is not there counts as one that costs nothing. Dice is of the foreground classes, with squares and
    smoothing 1e-5, of half the probabilities and half the labels.
    """
    truth, said = _truth(labels, logits)
    found = logits.softmax(1) * said
    both = (0.25 * found * truth)[:, 1:].sum((2, 3))
    each = (0.25 * (found.square() + truth))[:, 1:].sum((2, 3))
    dice = (1 - (2 * both + SMOOTH) / (each + SMOOTH)).mean()
    entropy = -(logits.log_softmax(1) * truth).sum((0, 2, 3)) / truth.sum((0, 2, 3)).clamp(min=1)
    return 0.5 * dice + 0.5 * entropy.mean()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of logits (B, classes, ...) and labels (B, ...); 0 where nothing is said of any pixel."""
    labels = labels.long()
    if logits.is_cuda and logits.dim() > 2:
        # For images PyTorch's own adds up in any order there, so that two runs' losses would differ in the last digits.
        return ordered_cross_entropy(logits, labels)
    mean = F.cross_entropy(logits, labels, ignore_index=UNSAID)
    return torch.where((labels != UNSAID).any(), mean, mean.new_zeros(()))


def ordered_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy over what is said, by sums that add up in the same order on every run."""
    truth, said = _truth(labels, logits)
    mean = -(logits.log_softmax(1) * truth).sum() / labels.numel()
    # One exactly where all is said, so that full masks give the digits that they would give without it.
    count = said.sum()
    return mean * (torch.full_like(count, labels.numel()) / count.clamp(min=1))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "half-dice": partial(_weighted, cross_entropy=0.5, dice=0.5),
    "more-dice": partial(_weighted, cross_entropy=0.4, dice=0.6),
    "focal": _focal,
    "balanced": _balanced,
    "cross-entropy": _cross_entropy,
}
"""Losses of other networks by the names of their recipes: logits (B, classes, H, W), labels (B, H, W) -> a scalar.

``method``, :func:`segmentation_loss`, takes its weight from the options and is none of them.
"""
