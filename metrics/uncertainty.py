"""How undecided a prediction is, per pixel and per image."""

__all__ = ["jensen_shannon", "mean_share"]

from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.metrics.pixels import entropy


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
