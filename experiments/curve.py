"""The learning curve: Dice against the number of annotated training images."""

__all__ = ["curve", "curve_table"]

from pathlib import Path

from textdiff.cache import FeatureCache
from textdiff.experiments.experiment import Experiment
from textdiff.experiments.plots import error_bars, new_figure, save_figure
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    cells,
    difference_columns,
    notes,
    score_columns,
    title,
    write_tables,
)
from textdiff.experiments.results import Result, gather
from textdiff.experiments.setup import conduct, plan_methods, rows_by_default
from textdiff.options.experiments import Curve


def curve(options: Curve) -> Outcome:
    """Fits and scores every method on every number of images, going on where it was stopped; makes table and figure.

    Each job is a run directory in the experiment's own.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(options.cache)
    named = options.variants != Curve.variants or "variants" in options.explicit
    variants = options.variants if named else rows_by_default(options.variants, cache)
    plan = plan_methods("curve", options, cache, variants, options.labels)
    experiment, failures = conduct(options, plan, cache)
    return curve_table(experiment, options.truth)._replace(failures=failures)


def curve_table(experiment: Experiment, truth: str) -> Outcome:
    """The table and the figure of what has finished; differences are taken to the first method, at equal numbers."""
    results = gather(experiment)
    methods = list(dict.fromkeys(result.name for result in results))
    reference = {result.point["labels"]: result for result in results if result.name == methods[0]}
    shown = score_columns(results, truth)
    rows, records = [], []
    for result in results:
        labels = result.point["labels"]
        against = reference[labels]
        rows.append([str(labels), result.name, result.progress, *cells(result, shown, truth, [against])])
        records += result.records(against)
    columns = ("labels", "variant", "runs", *shown, *difference_columns(methods[0]))
    table = Table(columns, rows, notes(experiment, results, truth))
    outcome = write_tables(experiment, table, records, {"truth": truth, "against": methods[0]})
    return outcome._replace(files=[*outcome.files, *_draw(experiment, results, methods, truth)])


def _draw(experiment: Experiment, results: list[Result], methods: list[str], truth: str) -> list[Path]:
    figure, (ax,) = new_figure(5.6, 3.8)
    counts = sorted({result.point["labels"] for result in results})
    for index, method in enumerate(methods):
        own = [result for result in results if result.name == method]
        # A few per cent to the side, so that bars of different methods do not hide each other.
        shift = 1.035 ** (index - (len(methods) - 1) / 2)
        x = [result.point["labels"] * shift for result in own]
        error_bars(ax, x, [result.estimate(f"dice_{truth}") for result in own], index, method)
    ax.set_xscale("log")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.set_xlabel("annotated training images")
    ax.set_ylabel("Dice, %")
    ax.set_title(f"{title(experiment, truth)}; bars: 95% intervals", fontsize=9)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9)
    return save_figure(figure, experiment.path / "curve")
