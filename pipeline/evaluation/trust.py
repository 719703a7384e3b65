"""Whether the probabilities of a run hold on scored images, and its flags: calibration error, hits, false alarms."""

__all__ = ["Trust", "in_words"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.images.labels import UNSAID
from textdiff.metrics.calibration import Agreement, Reliability
from textdiff.pipeline.evaluation.calibration import LOW_DICE, Calibration


class Trust:
    """How far probabilities and flags of some images are right: takes their rows one at a time.

    Args:
        calibration: of the run.
        cache: where the truth is, at the cache's image size; pixels of which it says nothing do not count.
    """

    def __init__(self, calibration: Calibration, cache: FeatureCache) -> None:
        self.calibration, self._cache = calibration, cache
        self._kinds = ["as predicted", *(["tempered"] if calibration.temperature is not None else [])]
        self._reliability: dict[str, Reliability] = {}
        self._agreement: dict[str, Agreement] = {}

    def add(self, row: int, probability: NDArray[np.float32]) -> None:
        """Takes what was predicted of an unturned row, (classes, S, S) float32."""
        truth = self._cache.mask(row)
        assert truth is not None
        told = self.calibration.tempered(probability)
        for kind, p in zip(self._kinds, (probability, told), strict=False):
            own = Reliability.of(p, truth, truth != UNSAID)
            self._reliability[kind] = self._reliability[kind].plus(own) if kind in self._reliability else own
        name, part = self._cache.rows[row].id, Agreement.of(told, probability.argmax(0))
        self._agreement[name] = self._agreement[name].plus(part) if name in self._agreement else part

    def record(self, name: str) -> dict[str, Any]:
        """The columns of an image whose rows have all been taken."""
        expected = self._agreement[name].dice
        return {"expected_dice": expected, "flagged": self.calibration.flags(expected)}

    def summary(self, dice: Sequence[tuple[float | None, bool]]) -> dict[str, Any]:
        """What ``scores.json`` has of all images.

        Args:
            dice: of each image the Dice to go by, and whether it is flagged.
        """
        known = [(value < LOW_DICE, flagged) for value, flagged in dice if value is not None]
        low = [flagged for is_low, flagged in known if is_low]
        others = [flagged for is_low, flagged in known if not is_low]
        return {
            "temperature": self.calibration.temperature,
            "missing": self.calibration.missing,
            "validation_images": self.calibration.images,
            "reliability": [
                {"name": kind, "error": self._reliability[kind].error, **self._reliability[kind]._asdict()}
                for kind in self._kinds
            ],
            "flag": {
                "low": LOW_DICE,
                "limit": self.calibration.limit,
                "chosen": self.calibration.chosen,
                "images_low": len(low),
                "hits": sum(low),
                "images_not_low": len(others),
                "false_alarms": sum(others),
            },
        }


def in_words(trust: Mapping[str, Any]) -> tuple[str, str]:
    """What a reader of the scores is told of ``Trust.summary``: the calibration error, and the flags."""

    def percent(error: float | None) -> str:
        return "-" if error is None or np.isnan(error) else f"{100 * error:.2f}"

    first, *after = (found["error"] for found in trust["reliability"])
    line = f"Expected calibration error of the pixels: {percent(first)} %"
    if after:
        found = f"{trust['temperature']:.2f} of {trust['validation_images']} validation images"
        line += f", and {percent(after[0])} % at the temperature {found}."
    else:
        line += f". There is no temperature: {trust['missing']}."
    flag = trust["flag"]
    how = "chosen by validation images" if flag["chosen"] else "fixed, as validation images are too few to choose by"
    return line, (
        f"Flagged as likely below a Dice of {100 * flag['low']:.0f} (an expected Dice below {100 * flag['limit']:.1f}, "
        f"{how}): {flag['hits']} of the {flag['images_low']} images that are below, and {flag['false_alarms']} of the "
        f"{flag['images_not_low']} that are not."
    )
