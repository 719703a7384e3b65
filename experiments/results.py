"""What has finished of an experiment, gathered and estimated."""

__all__ = ["Result", "gather"]

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.experiments.evaluate import SCHEMA
from textdiff.experiments.experiment import Experiment
from textdiff.experiments.nested_bootstrap import Estimate, nested_bootstrap
from textdiff.models.networks.models import method_name
from textdiff.options.fit import FitConfig
from textdiff.pipeline.evaluation.class_scores import said_note
from textdiff.pipeline.evaluation.image_predictions import TRUTHS

Images = NDArray[np.float64]


@dataclass
class Result:
    """The runs of one point: one row of a table, one place in a figure."""

    point: dict[str, Any]
    name: str = ""
    """What a row of a table is called; empty where results are told apart by other things than a method."""
    jobs: int = 0
    """How many there are to be."""
    images: dict[str, list[Any]] = field(default_factory=dict)
    """What the scores are of: by id the digests of image and mask, in the order of the scores."""
    groups: tuple[str, ...] = ()
    """Whose each image is; empty names where nothing is known."""
    classes: tuple[str, ...] = ("foreground",)
    views: int = 1
    """Over how many views each prediction is the mean."""
    runs: dict[tuple[int, int], dict[str, Images]] = field(default_factory=dict)
    """The finished ones by (draw, seed): for each metric, as in ``dice_clean``, a score for every image; NaN where it
    has none."""
    _estimates: dict[str, Estimate | None] = field(default_factory=dict)

    @property
    def progress(self) -> str:
        """How many runs there are: ``15``, or ``7 of 15``."""
        done = len(self.runs)
        return str(done) if done == self.jobs else f"{done} of {self.jobs}"

    def estimate(self, metric: str) -> Estimate | None:
        """The mean with its interval over the images that have the score; None while nothing has finished."""
        if metric not in self._estimates:
            self._estimates[metric] = _estimate({key: scores[metric] for key, scores in self.runs.items()}, self.groups)
        return self._estimates[metric]

    def minus(self, other: "Result | None", metric: str) -> Estimate | None:
        """The mean of the paired differences: runs of the same draw and seed, image by image.

        None without a pair, and against no result or the same. Where one of the two does not know whose the images are,
        it goes by the other, which does: the images are the same.
        """
        if other is None or other is self:
            return None
        both = self.runs.keys() & other.runs.keys()
        groups = self.groups if any(self.groups) else other.groups
        return _estimate({key: self.runs[key][metric] - other.runs[key][metric] for key in both}, groups)

    def present(self, truth: str) -> dict[str, int]:
        """For each class, how many images have it; empty while nothing has finished."""
        scores = next(iter(self.runs.values()), None)
        if scores is None:
            return {}
        tails = {name: f"_{name}" if len(self.classes) > 1 else "" for name in self.classes}
        return {name: int(np.count_nonzero(scores[f"area_{truth}{tail}"])) for name, tail in tails.items()}

    def said(self, truth: str) -> str:
        """What a reader must know of masks that say nothing in places; empty where there are none."""
        scores = next(iter(self.runs.values()), {})
        if f"said_{truth}" not in scores:
            return ""
        said, pixels = (scores[f"{what}_{truth}"] for what in ("said", "pixels"))
        return said_note(int(np.count_nonzero(said < pixels)), len(said), int(said.sum()), int(pixels.sum()))

    def records(self, against: "Result | None") -> list[dict[str, Any]]:
        """For every truth and metric the mean and the difference to another result, flat, for programs to read."""
        found = []
        for truth, metric in product(TRUTHS, ("dice", "iou", "dice_present", "iou_present")):
            mean = self.estimate(f"{metric}_{truth}")
            difference = self.minus(against, f"{metric}_{truth}")
            found.append(
                {
                    **self.point,
                    **({"method": self.name} if self.name else {}),
                    "truth": truth,
                    "metric": metric,
                    "mean": mean and mean.mean,
                    "low": mean and mean.low,
                    "high": mean and mean.high,
                    "difference": difference and difference.mean,
                    "difference_low": difference and difference.low,
                    "difference_high": difference and difference.high,
                    "verdict": difference and difference.verdict,
                    "draws": mean.draws if mean else 0,
                    "runs": len(self.runs),
                    "jobs": self.jobs,
                    "images": mean.images if mean else 0,
                }
            )
        return found


def gather(experiment: Experiment) -> list[Result]:
    """Reads the scores of all finished jobs, by point in the order of the plan; those of earlier versions are left out.

    Raises:
        UserError: a file is damaged, or runs were not scored on the same images.
    """
    results: dict[str, Result] = {}
    images: dict[str, list[Any]] | None = None
    names = _names(experiment)
    for job in experiment.plan.jobs:
        called = names.get(str(job.point.get("method")), "")
        result = results.setdefault(json.dumps(job.point, sort_keys=True), Result(job.point, called))
        result.jobs += 1
        file = experiment.scores_file(job)
        if not file.is_file() or experiment.scored_before(job):
            continue
        again = "delete it and run the same command again"
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise UserError(f"{file}: made by another version of TextDiff; {again}")
            result.classes, result.groups = tuple(record["classes"]), tuple(record["groups"])
            own, result.views = {name: record["facts"][name][:2] for name in record["ids"]}, record["views"]
            scores = {name: np.array(values, dtype=np.float64) for name, values in record["scores"].items()}
            if len(result.groups) != len(record["ids"]):
                raise ValueError(f"{len(result.groups)} groups of {len(record['ids'])} images")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: damaged ({error}); {again}") from None
        images = own if images is None else images
        if list(own.items()) != list(images.items()) or any(values.shape != (len(own),) for values in scores.values()):
            raise UserError(f"{file}: not scored on the images and masks of the other runs; {again}")
        result.images = own
        result.runs[job.draw, job.seed] = scores
    return list(results.values())


def _names(experiment: Experiment) -> dict[str, str]:
    """What the methods of an experiment are called.

    With ``places``, which all fits may share (``--set places=true``), the variant has another name than alone. The list
    of jobs has the shorter one, which names directories.
    """
    own = {str(job.point["method"]): job for job in experiment.plan.jobs if "method" in job.point}
    names = {method: method for method in own}
    for method, job in own.items():
        # An option that is younger than the experiment is not in its list.
        fit = job.fit
        if not job.members and experiment.plan.kind != "fit" and fit["model"] == FitConfig.model:
            names[method] = method_name(
                fit["model"], None, fit["variant"], fit.get("unlabelled"), fit.get("places", False)
            )
    for method, job in own.items():
        if job.members:
            names[method] = "+".join(names.get(part, part) for part in method.split("+"))
    # Two rows of one name would be told apart by nothing.
    return names if len(set(names.values())) == len(names) else {method: method for method in own}


def _estimate(runs: dict[tuple[int, int], Images], groups: Sequence[str]) -> Estimate | None:
    if not runs:
        return None
    draws: dict[int, list[Images]] = {}
    for draw, seed in sorted(runs):
        draws.setdefault(draw, []).append(runs[draw, seed])
    there = ~np.isnan(next(iter(runs.values())))
    if not there.any():
        return None
    of_these = [group for group, known in zip(groups, there, strict=True) if known] if groups else ()
    return nested_bootstrap([np.stack(seeds)[:, there] for seeds in draws.values()], groups=of_these)
