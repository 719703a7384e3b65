"""Whether probabilities can be trusted: expected calibration error, temperature, and the Dice to be expected."""

__all__ = ["BINS", "Agreement", "Reliability", "chosen_limit", "fitted_temperature", "tempered"]

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of equal width, as in the paper's experiments."""
COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 5
"""Images of either kind, of a low Dice and not, below which a limit that tells them apart would be chance."""
_LEAST = 1e-12


class Reliability(NamedTuple):
    """What ``expected calibration error`` is made of: for each bin of confidence (``BINS``,) float64.

    Guo et al., On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599, section 2: the
    confidence of a pixel is the probability of its most likely class, and it falls into bin m if it is in
    ((m - 1) / M, m / M].
    """

    pixels: NDArray[np.float64]
    confidence: NDArray[np.float64]
    """Sum over the pixels."""
    right: NDArray[np.float64]
    """How many pixels have the most likely class."""

    @classmethod
    def of(
        cls, probabilities: NDArray[np.floating[Any]], labels: NDArray[Any], said: NDArray[np.bool_]
    ) -> "Reliability":
        """Counts pixels.

        Args:
            probabilities: (classes, ...), summing to 1 over the classes.
            labels: (...) true class numbers.
            said: (...) which of them count.
        """
        confidence = probabilities.max(0)[said].astype(np.float64)
        right = (probabilities.argmax(0) == labels)[said]
        places = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        counted = (np.bincount(places, weights, BINS) for weights in (None, confidence, right))
        return cls(*(np.asarray(count, np.float64) for count in counted))

    def plus(self, other: "Reliability") -> "Reliability":
        """That of the pixels of both."""
        return Reliability(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    @property
    def error(self) -> float:
        """The expected calibration error, equation 3: the mean distance of accuracy and confidence, 0 to 1.

        It is not a number where no pixel counts.
        """
        pixels = self.pixels.sum()
        return float(np.abs(self.right - self.confidence).sum() / pixels) if pixels else float("nan")


def tempered(
    probabilities: NDArray[np.floating[Any]], temperature: float, least: float = 0.0
) -> NDArray[np.floating[Any]]:
    """Probabilities (classes, ...) at another temperature, float32: the softmax of their logarithms over it.

    Guo et al. 2017, section 4.2. The order of the classes, and so the most likely one, stays, but for what float32
    cannot tell apart. At a temperature of 1 they are handed on as they are, to the bit.

    Args:
        probabilities: (classes, ...), summing to 1 over the classes.
        temperature: above 1 makes them less sure, below 1 surer.
        least: what stands for a smaller probability, as shares of ten votes may be 0. Without it 0 stays 0 and 1 stays
            1, as blank pictures have them.
    """
    if temperature == 1:
        return probabilities
    logs: NDArray[np.float32] = np.maximum(probabilities, least, dtype=np.float32)
    with np.errstate(divide="ignore"):
        np.log(logs, out=logs)
    logs -= logs.max(0)
    logs /= np.float32(temperature)
    np.exp(logs, out=logs)
    logs /= logs.sum(0)
    return logs


def fitted_temperature(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[Any], least: float = 0.0
) -> float | None:
    """The temperature at which the negative log-likelihood of the labels is least, within 0.05 to 20.

    Guo et al. 2017, section 4.2: one number, fitted on images that the network was not trained on. A pixel whose label
    has the probability 0, or 1, has the same loss at all temperatures, and does not count; None where all are such.

    Args:
        probabilities: (classes, n), summing to 1 over the classes.
        labels: (n,) integer class numbers.
        least: as for ``tempered``.
    """
    from scipy.optimize import minimize_scalar

    raised = np.maximum(probabilities, least, dtype=np.float64)
    raised /= raised.sum(0)
    own = raised[labels, np.arange(raised.shape[1])]
    counts = (own > 0) & (own < 1)
    if not counts.any():
        return None
    own = np.log(own[counts])
    # A zero of another class has no part in the sum, whatever stands for its logarithm.
    logs = np.log(np.maximum(raised[:, counts], np.finfo(np.float64).tiny))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        most = scaled.max(0)
        normaliser = most + np.log(np.exp(scaled - most).sum(0))
        return float(np.mean(normaliser - own / np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


class Agreement(NamedTuple):
    """How far a prediction's own probabilities let one expect that it is right: for each class but the background.

    Each is (classes - 1,) float64. Those of the parts of an image add up to that of the image.
    """

    sure: NDArray[np.float64]
    """The sum of the class's probability over the pixels that it is predicted for."""
    predicted: NDArray[np.float64]
    """How many these are."""
    expected: NDArray[np.float64]
    """The sum of its probability over all pixels."""
    none: NDArray[np.float64]
    """The logarithm of the probability that no pixel has it, were pixels independent."""

    @classmethod
    def of(cls, probabilities: NDArray[np.floating[Any]], labels: NDArray[Any]) -> "Agreement":
        """That of one prediction, or a part of it.

        Args:
            probabilities: (classes, ...), summing to 1 over the classes.
            labels: (...), the class predicted for each pixel.
        """
        sums: list[tuple[float, ...]] = []
        for label, of_class in enumerate(probabilities[1:], start=1):
            mask = labels == label
            # Bands of slides are large: one copy of a band is made, in its own precision.
            none = np.minimum(of_class, 1 - 1e-7)
            np.log1p(np.negative(none, out=none), out=none)
            sure, expected = of_class.sum(where=mask, dtype=np.float64), of_class.sum(dtype=np.float64)
            sums.append((sure, mask.sum(), expected, none.sum(dtype=np.float64)))
        return cls(*np.array(sums, np.float64).reshape(-1, len(cls._fields)).T)

    def plus(self, other: "Agreement") -> "Agreement":
        """That of both parts."""
        return Agreement(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    def times(self, factor: float) -> "Agreement":
        """That of the whole, where this is of an even sample of its pixels, one in so many."""
        return Agreement(*(factor * ours for ours in self))

    @property
    def dice(self) -> float:
        """The Dice that is to be expected, the mean over the classes.

        Of a class with the predicted pixels M it is 2 sum_M p / (|M| + sum p), the ratio of the expectations of both
        sides of the Dice coefficient. Where it is predicted nowhere, the Dice is 1 if it is nowhere and else 0, so that
        the expected one is the probability of the former. It is right as far as the probabilities are, and knows
        nothing of objects that the network does not see.
        """
        ratio = 2 * self.sure / np.maximum(self.predicted + self.expected, _LEAST)
        return float(np.mean(np.where(self.predicted > 0, ratio, np.exp(self.none))))


def chosen_limit(expected: Sequence[float], dice: Sequence[float], low: float) -> float | None:
    """The expected Dice below which images are best taken to have a Dice below ``low``.

    Youden's index (1950, https://doi.org/10.1002/1097-0142(1950)3:1%3C32::AID-CNCR2820030106%3E3.0.CO;2-3), the share
    of the low images found less the share of the others taken for low, is largest there; of limits that do equally
    well the nearest to ``low``. None where there are fewer than ``FEWEST`` images of either kind.

    Args:
        expected: of each image.
        dice: the true one of each.
        low: what is a low Dice.
    """
    guess, bad = np.asarray(expected, np.float64), np.asarray(dice) < low
    if min(bad.sum(), (~bad).sum()) < FEWEST:
        return None
    limits = [low, *((below + above) / 2 for below, above in pairwise(np.unique(guess)))]
    index = [np.mean(guess[bad] < limit) - np.mean(guess[~bad] < limit) for limit in limits]
    best = [limit for limit, value in zip(limits, index, strict=True) if value > max(index) - 1e-9]
    return float(min(best, key=lambda limit: abs(limit - low)))
