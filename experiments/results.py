"""What has finished of an experiment, gathered and estimated."""

__all__ = ["Result", "gather"]

import json
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.experiments.jobs import Experiment
from textdiff.experiments.nested import Estimate, nested_bootstrap
from textdiff.pipeline.score import TRUTHS

Images = NDArray[np.float64]


@dataclass
class Result:
    """The runs of one point: one row of a table, one place in a figure."""

    point: dict[str, Any]
    jobs: int = 0
    """How many there are to be."""
    ids: list[str] = field(default_factory=list)
    """The images that scores are of."""
    views: int = 1
    """Over how many views each prediction is the mean."""
    runs: dict[tuple[int, int], dict[str, Images]] = field(default_factory=dict)
    """The finished ones by (draw, seed): for each metric, as in ``dice_clean``, a score for every image."""

    @property
    def progress(self) -> str:
        """How many runs there are: ``15``, or ``7 of 15``."""
        done = len(self.runs)
        return str(done) if done == self.jobs else f"{done} of {self.jobs}"

    def estimate(self, metric: str) -> Estimate | None:
        """The mean with its interval; None while nothing has finished."""
        return _estimate({key: scores[metric] for key, scores in self.runs.items()})

    def minus(self, other: "Result", metric: str) -> Estimate | None:
        """The mean of the paired differences: runs of the same draw and seed, image by image; None without a pair."""
        both = self.runs.keys() & other.runs.keys()
        return _estimate({key: self.runs[key][metric] - other.runs[key][metric] for key in both})

    def records(self, against: "Result | None") -> list[dict[str, Any]]:
        """For every truth and metric the mean and the difference to another result, flat, for programs to read."""
        found = []
        for truth, metric in product(TRUTHS, ("dice", "iou")):
            mean = self.estimate(f"{metric}_{truth}")
            difference = against and self.minus(against, f"{metric}_{truth}")
            found.append(
                {
                    **self.point,
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
    """Reads the scores of all finished jobs, by point in the order of the plan.

    Raises:
        UserError: a file is damaged, or runs were not scored on the same images.
    """
    results: dict[str, Result] = {}
    images: list[str] | None = None
    for job in experiment.plan.jobs:
        result = results.setdefault(json.dumps(job.point, sort_keys=True), Result(job.point))
        result.jobs += 1
        file = experiment.scores_file(job)
        if not file.is_file():
            continue
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            ids, result.views = record["ids"], record.get("views", 1)
            scores = {name: np.array(values, dtype=np.float64) for name, values in record["scores"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: damaged ({error}); delete it and run the same command again") from None
        images = ids if images is None else images
        if ids != images or any(values.shape != (len(ids),) for values in scores.values()):
            raise UserError(f"{file}: not scored on the images of the other runs; delete it and run the command again")
        result.ids = ids
        result.runs[job.draw, job.seed] = scores
    return list(results.values())


def _estimate(runs: dict[tuple[int, int], Images]) -> Estimate | None:
    if not runs:
        return None
    draws: dict[int, list[Images]] = {}
    for draw, seed in sorted(runs):
        draws.setdefault(draw, []).append(runs[draw, seed])
    return nested_bootstrap([np.stack(seeds) for seeds in draws.values()])
