"""What validation images say of a run's probabilities: a temperature, and a limit below which masks are to be checked.

Both are found when a run has been fitted or combined, on its validation images alone, and kept beside its weights.
"""

__all__ = ["LOW_DICE", "Calibration", "Trust", "calibrate", "in_words"]

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.cache.fingerprint import digest_of
from textdiff.errors import UserError, quoted
from textdiff.images.labels import UNSAID
from textdiff.metrics.calibration import Agreement, Reliability, chosen_limit, fitted_temperature, tempered
from textdiff.metrics.pixels import Confusion
from textdiff.models.networks.models import get_model
from textdiff.pipeline.evaluation.class_scores import class_confusions, scores_of_counts
from textdiff.pipeline.mixture import open_fitted
from textdiff.pipeline.prediction.blank import is_blank
from textdiff.pipeline.predictions import FittedNetwork, cached_predictions, mean_of_rows
from textdiff.pipeline.runs import Run
from textdiff.pipeline.sealed import read_sealed, write_sealed

LOW_DICE = 0.70
"""Images that are likely to have a lower Dice are flagged."""
_FILE = "calibration.json"
_PIXELS = 1 << 19
"""Pixels that the temperature is found on at most, evenly drawn: one number needs no more."""
_NO_VOTE = 1e-4
"""What stands for no vote among a few networks, as in the scores of ``pixel-mlp``."""


@dataclass(frozen=True)
class Calibration:
    """What validation images say of a run's probabilities."""

    temperature: float | None = None
    """None where there is none, so that probabilities are as the network gives them."""
    least: float = 0.0
    """See ``metrics.calibration.tempered``."""
    limit: float = LOW_DICE
    """Images with a lower expected Dice are flagged."""
    chosen: bool = False
    """Whether the limit was chosen by validation images; otherwise it is ``LOW_DICE``."""
    images: int = 0
    """How many validation images there were."""
    error: float | None = None
    """Their expected calibration error."""
    error_tempered: float | None = None
    """The same at the temperature."""
    missing: str = ""
    """Why there is no temperature."""

    @classmethod
    def load(cls, run: Run) -> "Calibration":
        """That of a finished run.

        Raises:
            UserError: the file is damaged, or of another run.
        """
        file = run.path / _FILE
        again = f"run `textdiff fit --resume --run {quoted(run.path)}`"
        if not file.exists():
            why = (
                f"none was looked for, as experiments do not; {again}"
                if _validation_ids(run)
                else "the run has no validation images"
            )
            return cls(missing=why)
        try:
            facts = read_sealed(file)
            if facts.pop("run") != _identity(run):
                raise ValueError
            return cls(**facts)
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{file}: damaged, or of another run; remove it and {again}") from None

    @staticmethod
    def wanted(run: Run) -> bool:
        """Whether a run has validation images, and nothing has been found by them."""
        return bool(_validation_ids(run)) and not (run.path / _FILE).exists()

    def save(self, run: Run) -> None:
        """Keeps it with the run's weights."""
        write_sealed(run.path / _FILE, {"run": _identity(run), **asdict(self)})

    def at(self, temperature: float | None) -> "Calibration":
        """The same with a temperature that somebody asked for; None is its own."""
        return self if temperature is None else replace(self, temperature=temperature, missing="")

    def tempered(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (classes, ...) float32 as they are to be told; masks are to be made of those before."""
        if self.temperature is None:
            return probabilities
        found: NDArray[np.float32] = tempered(probabilities, self.temperature, self.least)
        return found

    def flags(self, expected: float | None) -> bool:
        """Whether an image is to be checked: its Dice is likely below ``LOW_DICE``, or no network saw it (None)."""
        return expected is None or expected < self.limit


class _Row(NamedTuple):
    """Pixels of a validation image, or a tile of one, evenly drawn."""

    id: str
    probabilities: NDArray[np.float32]
    """(classes, n)."""
    truth: NDArray[np.uint8]
    """(n,) class numbers, ``UNSAID`` where nothing is said."""
    share: float
    """How many pixels one of them stands for."""


def calibrate(run: Run, cache: FeatureCache, device: Any = "auto") -> None:
    """Finds temperature and limit of a finished run on its validation images, says and keeps them.

    Pixels are those of the masks at the cache's image size, and predictions the means over all views that are cached,
    as in ``score``. Where there are no validation images that is said, and nothing is written.

    Args:
        run: a finished one.
        cache: of the run, or of the first that it combines.
        device: where to compute.
    """
    ids = _validation_ids(run)
    rows = [row for row, entry in enumerate(cache.rows) if entry.id in ids and entry.split == "val" and entry.has_mask]
    if not rows:
        console.info("no validation images, so there is no temperature: probabilities are as the network gives them")
        return
    least = _NO_VOTE if not run.combined and get_model(run.config["model"]).votes else 0.0
    found = _found(_predicted(open_fitted(run, device), cache, rows), least)
    found.save(run)
    if found.temperature is None or found.error is None or found.error_tempered is None:
        console.info(f"there is no temperature: {found.missing}")
        return
    console.info(
        f"probabilities get the temperature {found.temperature:.2f}, by "
        f"{console.counted(found.images, 'validation image')} (calibration "
        f"error {100 * found.error:.2f} %, then {100 * found.error_tempered:.2f} %)"
    )


def _predicted(fitted: FittedNetwork, cache: FeatureCache, rows: Sequence[int]) -> tuple[list[_Row], dict[str, float]]:
    """Pixels of each row, and each image's Dice over all pixels of its rows."""
    classes, drawn = cache.classes, []
    counts: dict[str, NDArray[np.int64]] = {}
    amount = max(1, _PIXELS // len(rows))
    with closing(cached_predictions(fitted, cache, rows, "calibrate")) as predicted:
        for row, probability in mean_of_rows(cache, predicted):
            name, truth = cache.rows[row].id, cache.mask(row)
            assert truth is not None
            own = np.array(class_confusions(probability.argmax(0), truth, len(classes)), np.int64)
            counts[name] = counts.get(name, np.int64(0)) + own
            places = np.random.default_rng([0xCA1, row]).permutation(truth.size)[:amount]
            pixels = probability.reshape(len(probability), -1)[:, places]
            drawn.append(_Row(name, pixels, truth.reshape(-1)[places], truth.size / len(places)))
    dice = {}
    for name, count in counts.items():
        score = scores_of_counts([Confusion(*map(int, one)) for one in count], classes, "all")["dice_all"]
        if score is not None:
            dice[name] = score
    return drawn, dice


def _found(predicted: tuple[list[_Row], dict[str, float]], least: float) -> Calibration:
    rows, dice = predicted
    probabilities = np.concatenate([row.probabilities for row in rows], axis=1)
    truth = np.concatenate([row.truth for row in rows])
    said = truth != UNSAID
    temperature = fitted_temperature(probabilities[:, said], truth[said], least)
    facts = Calibration(temperature, least, images=len(dice))
    if temperature is None:
        return replace(facts, missing="no probability of a validation image is between 0 and 1")
    errors = [Reliability.of(p, truth, said).error for p in (probabilities, facts.tempered(probabilities))]
    parts: dict[str, list[Agreement]] = {}
    for row in rows:
        own = Agreement.of(facts.tempered(row.probabilities), row.probabilities.argmax(0)).times(row.share)
        parts.setdefault(row.id, []).append(own)
    expected = [reduce(Agreement.plus, parts[name]).dice for name in dice]
    limit = chosen_limit(expected, list(dice.values()), LOW_DICE)
    return replace(
        facts,
        limit=LOW_DICE if limit is None else limit,
        chosen=limit is not None,
        error=errors[0],
        error_tempered=errors[1],
    )


def _validation_ids(run: Run) -> set[str]:
    """The validation images of a run; of a combined one those that all its runs have."""
    runs = run.members if run.combined else [run]
    return set.intersection(*(set(one.config["val_ids"]) for one in runs))


def _identity(run: Run) -> str:
    """What the weights depend on, whatever has become of their file: that is told when they are read."""
    return digest_of(run.config["runs"]) if run.combined else run.identity


class Trust:
    """How far probabilities and flags of some images are right: takes their rows one at a time.

    Args:
        calibration: of the run.
        cache: where the truth is, at the cache's image size; pixels of which it says nothing do not count.
        blank_below: as the run's, so that images no network saw are flagged as by ``predict``.
    """

    def __init__(self, calibration: Calibration, cache: FeatureCache, blank_below: float | None) -> None:
        self.calibration, self._cache, self._blank_below = calibration, cache, blank_below
        self._seen: set[str] = set()
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
        # Trees may find no pixel likely in a picture that they have seen.
        if probability[1:].any() or not is_blank(self._cache.image(row), self._blank_below):
            self._seen.add(name)
        self._agreement[name] = self._agreement[name].plus(part) if name in self._agreement else part

    def record(self, name: str) -> dict[str, Any]:
        """The columns of an image whose rows have all been taken."""
        expected = self._agreement[name].dice if name in self._seen else None
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
    line = f"The expected calibration error of the pixels is {percent(first)} %"
    if after:
        found = f"{trust['temperature']:.2f} of {console.counted(trust['validation_images'], 'validation image')}"
        line += f", and {percent(after[0])} % at the temperature {found}."
    else:
        line += f". There is no temperature: {trust['missing']}."
    flag = trust["flag"]
    how = "a limit that validation images chose"
    if not flag["chosen"]:
        how = "a fixed limit, as there are too few validation images"
    counts = [
        f"{flag[found]} of the {flag[of]} whose Dice is {side} {100 * flag['low']:.0f}"
        for found, of, side in (("hits", "images_low", "below"), ("false_alarms", "images_not_low", "not below"))
        if flag[of]
    ]
    return line, (
        f"Images of which a Dice below {100 * flag['limit']:.1f} is expected ({how}), or that hold nothing, are "
        f"flagged to be checked: {', and '.join(counts)}."
    )
