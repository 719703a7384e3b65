"""Table 2 of the paper: what each part contributes, with paired differences and intervals."""

__all__ = ["ablate", "ablation_plan", "ablation_table"]

from collections.abc import Sequence
from typing import get_args

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.draws_figure import draws_figure
from textdiff.experiments.experiment import Experiment, Plan
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    notes,
    points,
    score,
    score_columns,
    verdict,
    write_tables,
)
from textdiff.experiments.results import gather
from textdiff.experiments.setup import RIVALS, conduct, plan_methods
from textdiff.options.experiments import Ablate, Method
from textdiff.options.fit import Variant
from textdiff.pipeline.evaluation.image_predictions import TRUTHS
from textdiff.pipeline.evaluation.published import Comparison, published_for


def ablate(options: Ablate) -> Outcome:
    """Fits and scores every variant on the same draws and seeds, going on where it was stopped, and makes the table.

    Each job is a run directory in the experiment's own.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(options.cache)
    methods: list[Method] = [*(options.variants or get_args(Variant)), *(RIVALS if options.unet else [])]
    against = options.against or methods[0]
    if against not in methods:
        raise UserError(f"--against {against}: not among the rows, which are {', '.join(methods)}")
    experiment, failures = conduct(options, ablation_plan(options, cache, methods), cache)
    return ablation_table(experiment, options.truth, against)._replace(failures=failures)


def ablation_plan(options: Ablate, cache: FeatureCache, methods: Sequence[Method]) -> Plan:
    """Every method on the same draws with the same seeds; those of one draw and seed are trained side by side.

    Raises:
        UserError: options that the cache does not allow.
    """
    return plan_methods("ablate", options, cache, methods, options.labels)


def ablation_table(experiment: Experiment, truth: str, against: str) -> Outcome:
    """The table of what has finished, also as files in the experiment's directory.

    Args:
        experiment: of ``ablate``.
        truth: a key of ``TRUTHS``: what the table's scores are measured by.
        against: the method that differences are taken to.

    """
    results = {result.point["method"]: result for result in gather(experiment)}
    reference = results[against]
    shown = score_columns(results.values(), truth)
    rows, records, estimates = [], [], []
    for method, result in results.items():
        difference = None if method == against else result.minus(reference, f"dice_{truth}")
        estimates.append(result.estimate(f"dice_{truth}"))
        rows.append(
            [
                method,
                str(result.point["labels"]),
                result.progress,
                *(score(result.estimate(metric)) for metric in shown.values()),
                points(difference),
                verdict(difference),
            ]
        )
        records += result.records(None if method == against else reference)
    images = next((result.images for result in results.values() if result.runs), {})
    beside = images and experiment.plan.split == "test"
    published, why_not = published_for(experiment.dataset, images) if beside else Comparison((), "")
    columns = ("variant", "labels", "runs", *shown, f"Dice against {against}, points", "")
    for row in published:
        cells = [f"published: {row.method}", str(row.labels), "", f"{row.dice:.2f}", f"{row.iou:.2f}"]
        rows.append(cells + [""] * (len(columns) - len(cells)))
    said = notes(experiment, results.values(), estimates, truth)
    table = Table(columns, rows, [*said, why_not] if why_not else said)
    summary = {
        "truth": truth,
        "against": against,
        "published": [row._asdict() for row in published],
        "published_left_out": why_not,
    }
    outcome = write_tables(experiment, table, records, summary)
    title = f"{experiment.dataset}, {experiment.plan.split} images, {TRUTHS[truth]}"
    figure = draws_figure(experiment.path / "ablate", list(results.items()), f"dice_{truth}", title)
    return outcome._replace(files=[*outcome.files, *figure])
