"""Table 2 of the paper: what each part contributes, with paired differences and intervals."""

__all__ = ["ablate", "ablation_table"]

from typing import get_args

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.experiment import Experiment
from textdiff.experiments.plots import draws_figure
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    cells,
    difference_columns,
    notes,
    published_beside,
    score_columns,
    title,
    write_tables,
)
from textdiff.experiments.results import gather
from textdiff.experiments.setup import RIVALS, conduct, plan_methods, rows_by_default
from textdiff.options.experiments import Ablate, Method
from textdiff.options.fit import Variant


def ablate(options: Ablate) -> Outcome:
    """Fits and scores every variant on the same draws and seeds, going on where it was stopped, and makes the table.

    Each job is a run directory in the experiment's own.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(options.cache)
    variants = options.variants or rows_by_default(get_args(Variant), cache)
    methods: list[Method] = [*variants, *(RIVALS if options.unet else [])]
    against = options.against or methods[0]
    if against not in methods:
        raise UserError(f"--against {against}: not among the rows, which are {', '.join(methods)}")
    experiment, failures = conduct(options, plan_methods("ablate", options, cache, methods, options.labels), cache)
    return ablation_table(experiment, options.truth, against)._replace(failures=failures)


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
    rows, records = [], []
    for result in results.values():
        line = [result.name, str(result.point["labels"]), result.progress]
        rows.append(line + cells(result, shown, truth, [reference]))
        records += result.records(reference)
    published, why_not = published_beside(experiment, results.values())
    columns = ("variant", "labels", "runs", *shown, *difference_columns(reference.name))
    for row in published:
        line = [f"published: {row.method}", str(row.labels), "", f"{row.dice:.2f}", f"{row.iou:.2f}"]
        rows.append(line + [""] * (len(columns) - len(line)))
    said = notes(experiment, results.values(), truth)
    table = Table(columns, rows, [*said, why_not] if why_not else said)
    summary = {
        "truth": truth,
        "against": reference.name,
        "published": [row._asdict() for row in published],
        "published_left_out": why_not,
    }
    outcome = write_tables(experiment, table, records, summary)
    stem = experiment.path / "ablate"
    figure = draws_figure(
        stem, [(one.name, one) for one in results.values()], f"dice_{truth}", title(experiment, truth)
    )
    return outcome._replace(files=[*outcome.files, *figure])
