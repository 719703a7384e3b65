"""Table 2 of the paper: what each part contributes, with paired differences and intervals."""

__all__ = ["ablate", "ablation_plan", "ablation_table"]

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.draws_figure import draws_figure
from textdiff.experiments.jobs import Experiment, Plan, fit_options, make_job
from textdiff.experiments.results import gather
from textdiff.experiments.setup import (
    RIVALS,
    VARIED,
    Setup,
    check_methods,
    check_truth,
    conduct,
    method_config,
    repetitions,
)
from textdiff.experiments.tables import Outcome, Table, notes, points, score, score_columns, verdict, write_tables
from textdiff.pipeline.evaluation.published import Comparison, published_for
from textdiff.pipeline.evaluation.truths import TRUTHS
from textdiff.pipeline.networks.variants import VARIANTS


def ablate(
    path: Path,
    setup: Setup,
    *,
    labels: int = 5,
    variants: Sequence[str] | None = None,
    unet: bool = True,
    truth: str = "clean",
    against: str | None = None,
    processes: int | None = None,
    table_only: bool = False,
) -> Outcome:
    """Fits and scores every variant on the same draws and seeds, going on where it was stopped, and makes the table.

    Args:
        path: the experiment's directory; each job is a run directory in it.
        setup: options of all fits; how many draws and seeds; what to score on.
        labels: training images in each draw.
        variants: some of ``VARIANTS``; all of them by default.
        unet: whether U-Nets on the same draws are rows: a plain one, and one used by each image's own statistics.
        truth: what the table's scores are measured by.
        against: the row that differences are taken to; the first by default.
        processes: how many at a time; as many as there is room for by default.
        table_only: only make the table, of what has finished.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(setup.base.cache)
    methods = [*(variants or VARIANTS), *(RIVALS if unet else [])]
    check_truth(truth)
    if against is not None and against not in methods:
        raise UserError(f"--against {against}: not among the rows, which are {', '.join(methods)}")
    plan = ablation_plan(setup, cache, methods, labels)
    experiment, failures = conduct(path, plan, cache, setup.base.device, processes, table_only)
    return ablation_table(experiment, truth, against or methods[0])._replace(failures=failures)


def ablation_plan(setup: Setup, cache: FeatureCache, methods: Sequence[str], labels: int) -> Plan:
    """Every method on the same draws with the same seeds; those of one draw and seed are trained side by side.

    Raises:
        UserError: options that the cache does not allow.
    """
    check_methods(methods, cache)
    jobs = [
        make_job(
            f"{method}-d{draw}-s{seed}",
            {"method": method, "labels": labels},
            f"d{draw}-s{seed}",
            replace(method_config(setup, method), labels=labels, draw_seed=draw, seed=seed),
        )
        for draw, seed in repetitions(setup, cache, labels)
        for method in methods
    ]
    options = {
        "variants": list(methods),
        "labels": labels,
        "draws": setup.draws,
        "seeds": setup.seeds,
        "unet-epochs": setup.unet_epochs,
        **fit_options(setup.base, VARIED),
    }
    return Plan("ablate", options, setup.split, jobs)


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
