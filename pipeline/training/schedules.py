"""How the learning rate falls while a network is trained."""

__all__ = ["SCHEDULES", "learning_rate"]

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_RESTART, _LOWEST = 10, 1e-4
_LOOKS, _EVERY = 5, 3


def learning_rate(options: Mapping[str, Any], epoch: float, scores: Sequence[float | None] = ()) -> float:
    """The learning rate after ``epoch`` epochs, which need not be a whole number.

    Args:
        options: ``learning_rate``, ``schedule``, ``epochs`` and ``decay_epoch``.
        epoch: counted from 0; its fraction is that of the steps of an epoch.
        scores: by epoch the validation Dice, where there is one.
    """
    rate: float = options["learning_rate"]
    return rate * SCHEDULES[options["schedule"]](options, epoch, scores)


def _step(options: Mapping[str, Any], epoch: float, scores: Sequence[float | None]) -> float:
    """A tenth from ``decay_epoch`` on."""
    return 0.1 if epoch >= options["decay_epoch"] else 1.0


def _cosine(options: Mapping[str, Any], epoch: float, scores: Sequence[float | None]) -> float:
    """Down to zero over the whole fit, the same within an epoch."""
    return 0.5 * (1 + math.cos(math.pi * math.floor(epoch) / options["epochs"]))


def _polynomial(options: Mapping[str, Any], epoch: float, scores: Sequence[float | None]) -> float:
    """(1 - i / n)^0.9 at step i of n."""
    return float((1 - epoch / options["epochs"]) ** 0.9)


def _restarts(options: Mapping[str, Any], epoch: float, scores: Sequence[float | None]) -> float:
    """Cosine down to 1e-4 within ten epochs, again and again (SGDR, https://arxiv.org/abs/1608.03983)."""
    lowest: float = min(1.0, _LOWEST / options["learning_rate"])
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * (math.floor(epoch) % _RESTART) / _RESTART))


def _plateau(options: Mapping[str, Any], epoch: float, scores: Sequence[float | None]) -> float:
    """Half as much after more than five looks in a row without a better validation Dice, a look at every third one."""
    best, waited, factor = -1.0, 0, 1.0
    for score in [score for score in scores if score is not None][_EVERY - 1 :: _EVERY]:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited > _LOOKS:
            factor, waited = factor / 2, 0
    return factor


SCHEDULES: dict[str, Callable[[Mapping[str, Any], float, Sequence[float | None]], float]] = {
    "step": _step,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "restarts": _restarts,
    "plateau": _plateau,
}
"""The share of the learning rate that is left, by the name of the schedule."""
