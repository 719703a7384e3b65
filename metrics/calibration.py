"""Whether probabilities can be trusted: expected calibration error, temperature, and the Dice to be expected."""

__all__ = ["BINS", "Reliability", "expected_dice", "fitted_temperature", "tempered"]

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of equal width, as in the paper's experiments."""
COLDEST, HOTTEST = 0.05, 20.0
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
        """The expected calibration error, equation 3: the mean distance of accuracy and confidence, 0 to 1."""
        return float(np.abs(self.right - self.confidence).sum() / self.pixels.sum())


def tempered(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float32]:
    """Probabilities (classes, ...) at another temperature, float32: the softmax of their logarithms over it.

    Guo et al. 2017, section 4.2. The order of the classes, and so the most likely one, stays.
    """
    logs = np.log(np.maximum(probabilities, _LEAST, dtype=np.float64)) / temperature
    powers = np.exp(logs - logs.max(0))
    scaled: NDArray[np.float32] = (powers / powers.sum(0)).astype(np.float32)
    return scaled


def fitted_temperature(probabilities: NDArray[np.floating[Any]], labels: NDArray[Any]) -> float:
    """The temperature at which the negative log-likelihood of the labels is least, within 0.05 to 20.

    Guo et al. 2017, section 4.2: one number, fitted on images that the network was not trained on.

    Args:
        probabilities: (classes, n), summing to 1 over the classes.
        labels: (n,) integer class numbers.
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities, _LEAST, dtype=np.float64))
    own = logs[labels, np.arange(logs.shape[1])]

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        most = scaled.max(0)
        normaliser = most + np.log(np.exp(scaled - most).sum(0))
        return float(np.mean(normaliser - own / np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def expected_dice(probabilities: NDArray[np.floating[Any]]) -> float:
    """The Dice that a prediction's own probabilities lead one to expect, the mean over the classes but the background.

    Of a class with the predicted pixels M it is 2 sum_M p / (|M| + sum p), the ratio of the expectations of both sides
    of the Dice coefficient; 1 where nothing is predicted and nothing expected. It is right as far as the probabilities
    are calibrated, and knows nothing of objects that the network does not see.

    Args:
        probabilities: (classes, H, W), summing to 1 over the classes.
    """
    labels, found = probabilities.argmax(0), []
    for label, of_class in enumerate(probabilities[1:].astype(np.float64), start=1):
        mask = labels == label
        area = mask.sum() + of_class.sum()
        found.append(2 * of_class[mask].sum() / area if area > _LEAST else 1.0)
    return float(np.mean(found))
