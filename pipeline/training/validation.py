"""The Dice of the validation images after an epoch, counted where the network computes."""

__all__ = ["ValidationDice"]

from collections.abc import Sequence

import numpy as np
import torch

from textdiff.images.labels import UNSAID
from textdiff.metrics.pixels import Confusion, pooled_dice


class ValidationDice:
    """Right and wrong pixels of images, a row at a time; nobody waits for the counts until the mean is asked for.

    Args:
        pixels: of a row.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._counts: dict[tuple[str, int], list[torch.Tensor]] = {}

    def add(self, image: str, logits: torch.Tensor, mask: torch.Tensor) -> None:
        """Counts a row, or a tile, of an image.

        Args:
            image: whose it is.
            logits: (1, classes, S, S).
            mask: (1, S, S) class numbers, ``UNSAID`` where nothing is said.
        """
        found, there = logits.argmax(1)[0], mask[0].to(logits.device)
        said = there != UNSAID
        for label in range(1, logits.shape[1]):
            predicted, true = (found == label) & said, there == label
            counts = torch.stack([(predicted & true).sum(), predicted.sum(), true.sum()])
            self._counts.setdefault((image, label), []).append(counts)

    def mean(self) -> float | None:
        """Over the images, of several classes their mean; of an image in tiles over all its tiles' pixels.

        None where nothing was counted.
        """
        if not self._counts:
            return None
        pieces = iter(torch.stack([piece for pieces in self._counts.values() for piece in pieces]).tolist())
        scores = []
        for name in self._counts:
            each = (next(pieces) for _ in self._counts[name])
            scores.append(pooled_dice([self._confusion(counts) for counts in each]))
        return float(np.mean(scores))

    def _confusion(self, counts: Sequence[int]) -> Confusion:
        both, predicted, true = counts
        return Confusion(both, predicted - both, true - both, self._pixels - predicted - true + both)
