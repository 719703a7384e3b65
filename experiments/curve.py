"""The learning curve: Dice against the number of annotated training images."""

__all__ = ["curve", "curve_plan", "curve_table"]

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.jobs import Experiment, Plan, fit_options, make_job
from textdiff.experiments.plots import error_bars, new_figure, save_figure
from textdiff.experiments.results import Result, gather
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
from textdiff.pipeline.evaluation.truths import TRUTHS


def curve(
    path: Path,
    setup: Setup,
    *,
    labels: Sequence[int],
    methods: Sequence[str] = ("full", "no-text", *RIVALS),
    truth: str = "clean",
    processes: int | None = None,
    table_only: bool = False,
) -> Outcome:
    """Fits and scores every method on every number of images, going on where it was stopped; makes table and figure.

    Args:
        path: the experiment's directory; each job is a run directory in it.
        setup: options of all fits; how many draws and seeds; what to score on.
        labels: numbers of training images, ascending.
        methods: variants, and of ``UNETS``.
        truth: what the scores are measured by.
        processes: how many at a time; as many as there is room for by default.
        table_only: only make the table and the figure, of what has finished.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(setup.base.cache)
    check_truth(truth)
    plan = curve_plan(setup, cache, methods, labels)
    experiment, failures = conduct(path, plan, cache, setup.base.device, processes, table_only)
    return curve_table(experiment, truth)._replace(failures=failures)


def curve_plan(setup: Setup, cache: FeatureCache, methods: Sequence[str], labels: Sequence[int]) -> Plan:
    """Every method on every number of training images, with the same draws and seeds.

    Raises:
        UserError: options that the cache does not allow.
    """
    check_methods(methods, cache)
    if list(labels) != sorted(set(labels)) or labels[0] < 1:
        raise UserError(f"--labels {','.join(map(str, labels))}: give numbers of images in ascending order, none twice")
    jobs = [
        make_job(
            f"{method}-n{count}-d{draw}-s{seed}",
            {"method": method, "labels": count},
            f"n{count}-d{draw}-s{seed}",
            replace(method_config(setup, method), labels=count, draw_seed=draw, seed=seed),
        )
        for count in labels
        for draw, seed in repetitions(setup, cache, count)
        for method in methods
    ]
    options = {
        "variants": list(methods),
        "labels": list(labels),
        "draws": setup.draws,
        "seeds": setup.seeds,
        "unet-epochs": setup.unet_epochs,
        **fit_options(setup.base, VARIED),
    }
    return Plan("curve", options, setup.split, jobs)


def curve_table(experiment: Experiment, truth: str) -> Outcome:
    """The table and the figure of what has finished; differences are taken to the first method, at equal numbers."""
    results = gather(experiment)
    methods = list(dict.fromkeys(result.point["method"] for result in results))
    reference = {result.point["labels"]: result for result in results if result.point["method"] == methods[0]}
    shown = score_columns(results, truth)
    rows, records, estimates = [], [], []
    for result in results:
        method, labels = result.point["method"], result.point["labels"]
        against = None if method == methods[0] else reference[labels]
        difference = result.minus(against, f"dice_{truth}") if against else None
        estimates.append(result.estimate(f"dice_{truth}"))
        rows.append(
            [
                str(labels),
                method,
                result.progress,
                *(score(result.estimate(metric)) for metric in shown.values()),
                points(difference),
                verdict(difference),
            ]
        )
        records += result.records(against)
    columns = ("labels", "variant", "runs", *shown, f"Dice against {methods[0]}, points", "")
    table = Table(columns, rows, notes(experiment, results, estimates, truth))
    outcome = write_tables(experiment, table, records, {"truth": truth, "against": methods[0]})
    return outcome._replace(files=[*outcome.files, *_draw(experiment, results, methods, truth)])


def _draw(experiment: Experiment, results: list[Result], methods: list[str], truth: str) -> list[Path]:
    figure, (ax,) = new_figure(5.6, 3.8)
    counts = sorted({result.point["labels"] for result in results})
    for index, method in enumerate(methods):
        own = [result for result in results if result.point["method"] == method]
        # A few per cent to the side, so that bars of different methods do not hide each other.
        shift = 1.035 ** (index - (len(methods) - 1) / 2)
        x = [result.point["labels"] * shift for result in own]
        error_bars(ax, x, [result.estimate(f"dice_{truth}") for result in own], index, method)
    ax.set_xscale("log")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.set_xlabel("annotated training images")
    ax.set_ylabel("Dice, %")
    ax.set_title(
        f"{experiment.dataset}, {experiment.plan.split} images, {TRUTHS[truth]}; bars: 95% intervals", fontsize=9
    )
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9)
    return save_figure(figure, experiment.path / "curve")
