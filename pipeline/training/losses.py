"""The training loss: cross-entropy plus soft Dice."""

__all__ = ["DICE_WEIGHT", "segmentation_loss", "soft_dice_loss"]

import torch
import torch.nn.functional as F
from torch import Tensor

DICE_WEIGHT = 1.5
SMOOTH = 1e-5


def soft_dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, with squared denominators, averaged over the classes.

    Per class c, with sums over all pixels of the whole batch: ``1 - (2 sum p y + s) / (sum p^2 + sum y^2 + s)``,
    s = 1e-5 (Milletari et al., V-Net, 2016, https://arxiv.org/abs/1606.04797, section 3).

    Args:
        scores: (B, classes, H, W) float: probabilities, or raw logits as the paper's training script passes them.
        labels: (B, H, W) bool or integer class labels.

    Returns:
        A scalar, in [0, 1] for probabilities; raw logits can take it anywhere, below zero included.
    """
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    truth = F.one_hot(labels.long(), scores.shape[1]).movedim(-1, 1).to(scores.dtype)
    both = (scores * truth).sum((0, 2, 3))
    each = scores.square().sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return (1 - (2 * both + SMOOTH) / (each + SMOOTH)).mean()


def segmentation_loss(
    logits: Tensor, labels: Tensor, *, dice_weight: float = DICE_WEIGHT, dice_on: str = "softmax"
) -> Tensor:
    """Mean cross-entropy + ``dice_weight`` x soft Dice: the loss of TextDiff (Feng, MICCAI 2024).

    Args:
        logits: (B, classes, H, W) float.
        labels: (B, H, W) bool or integer class labels.
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
    return F.cross_entropy(logits, labels.long()) + dice_weight * soft_dice_loss(scores, labels)
