"""Rows of several experiments in one table: other backbones, other recipes, on the same draws and images."""

__all__ = ["compare", "fit_costs"]

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from textdiff.cache import FeatureCache
from textdiff.console import some
from textdiff.errors import UserError
from textdiff.experiments.experiment import FILE, Experiment, open_experiment
from textdiff.experiments.pairs import check_pairs, check_scored, data_sets
from textdiff.experiments.plots import draws_figure
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    absence_note,
    cells,
    difference_columns,
    interval_notes,
    missing_note,
    score_columns,
    views_note,
    write_files,
)
from textdiff.experiments.results import Result, gather
from textdiff.experiments.single_fits import fits_as_experiments
from textdiff.files import check_ours
from textdiff.options.experiments import Compare
from textdiff.pipeline.evaluation.figures import is_figure
from textdiff.pipeline.evaluation.image_predictions import TRUTHS
from textdiff.pipeline.runs import Run

SECONDS = (
    "seconds: the median time of a fit, where it ran; of fits that are trained side by side each has an equal share."
)
"""What a table says of its column."""
COSTS = ("parameters", "MB", "seconds")
COMPARABLE = ("ablate", "curve", "table1", "text-check")


class _Row(NamedTuple):
    place: str
    """The experiment's directory, as short as it tells them apart."""
    dataset: str
    result: Result

    @property
    def name(self) -> str:
        """As ``--against`` names it: ``no-text@ablate-monuseg``."""
        return f"{self.result.name}@{self.place}"

    def is_called(self, name: str) -> bool:
        """Whether ``--against`` means this row: by its name, or as the command of its experiment named it."""
        return name in (self.name, f"{self.result.point['method']}@{self.place}")


def compare(options: Compare) -> Outcome:
    """One table of what experiments, and single fits, made of several caches, with paired differences across them.

    Runs of one draw and seed are pairs whatever cache they are of: they saw the same training images, which is checked.
    Several data sets stand below each other, and differences are within each.

    Raises:
        UserError: no experiment and no run, one of another kind, split or image, or scored by an earlier version; a row
            that does not exist; a file in the place of one to be written that ``compare`` did not write.
    """
    truth, variants = options.truth, options.variants
    out = None if options.out is None else Path(options.out)
    if out is not None:
        _check_places(out)
    experiments = _opened([Path(path) for path in options.experiments])
    results = {place: list(gather(experiment)) for place, experiment in experiments.items()}
    experiments = data_sets(experiments, results)
    rows = [
        _Row(place, experiment.dataset, result)
        for place, experiment in experiments.items()
        for result in results[place]
        if variants is None or not {result.point["method"], result.name}.isdisjoint(variants)
    ]
    _check(experiments, rows, variants)
    if len(rows) == 1:
        raise UserError(f"compare: {rows[0].name} is the only row; name another experiment or run to compare it with")
    counts = {row.result.point["labels"] for row in rows}
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    names = list(dict.fromkeys(row.name for row in rows))
    references = []
    for asked in options.against or names[:1]:
        called = [row.name for row in rows if row.is_called(asked)]
        if not called:
            raise UserError(f"--against {asked}: not among the rows, which are {', '.join(names)}")
        references.append(called[0])
    shown = score_columns((row.result for row in rows), truth)
    sizes = {place: _row_nbytes(experiment) for place, experiment in experiments.items()}
    lines, records = [], []
    for row in rows:
        labels = row.result.point["labels"]
        costs, nbytes = fit_costs(experiments[row.place], row.result), sizes[row.place]
        line = [row.dataset] * (len(datasets) > 1)
        line += [row.place, row.result.name, str(labels), row.result.progress]
        line += [costs["in_all"], "" if nbytes is None else f"{nbytes / 1e6:.3g}", costs["seconds"]]
        others = {name: _reference(rows, name, row) for name in references}
        lines.append(line + cells(row.result, shown, truth, others.values()))
        for name, other in others.items():
            found = row.result.records(other)
            records += [
                {"dataset": row.dataset, "experiment": row.place, "against": name, **costs, "row_bytes": nbytes}
                | record
                for record in found
            ]
    columns = [*(["data set"] * (len(datasets) > 1)), "experiment", "variant", "labels", "runs", *COSTS, *shown]
    columns += difference_columns(*references)
    first = {experiment.dataset: experiment for experiment in reversed(experiments.values())}
    own = [
        f"{place}: {note}"
        for place, experiment in experiments.items()
        for note in (
            *missing_note(experiment),
            *_changed_note(experiment),
            *views_note(row.result for row in rows if row.place == place),
        )
    ]
    for dataset in datasets:
        within = [row.result for row in rows if row.dataset == dataset]
        own += [*absence_note(within, truth), *interval_notes(first[dataset], within, truth)]
    common = "Differences are over the draws and seeds that both rows have, which may be fewer than a row's own."
    costs_note = (
        "parameters: with the frozen backbone, without the text encoder. MB: of a row of the cache (an image, or each "
        f"of its views or tiles), which extract made once. {SECONDS}"
    )
    table = Table(columns, lines, [*dict.fromkeys(own), common, costs_note])
    summary: dict[str, Any] = {
        "schema": 2,
        "kind": "compare",
        "datasets": datasets,
        "split": first[datasets[0]].plan.split,
        "truth": truth,
        "experiments": {place: str(experiment.path) for place, experiment in experiments.items()},
        "fingerprint_hashes": {place: experiment.fingerprint_hash for place, experiment in experiments.items()},
    }
    if out is None:
        return Outcome(table.text(), {**summary, "notes": list(table.notes), "rows": records}, [])
    outcome = write_files(out, table, records, summary)
    title = f"{', '.join(datasets)}, {summary['split']} images, {TRUTHS[truth]}"
    columns_of = [(_column(row, len(counts) > 1, len(datasets) > 1), row.result) for row in rows]
    return outcome._replace(files=[*outcome.files, *draws_figure(out, columns_of, f"dice_{truth}", title)])


def _check_places(out: Path) -> None:
    """Refuses to write where others have files: figures name us, and the summary says whose the tables are."""
    places = {suffix: out.with_name(out.name + suffix) for suffix in (".json", ".md", ".tex", ".csv", ".png", ".pdf")}
    ours = _is_summary(places[".json"])
    for suffix, place in places.items():
        check_ours(place, "result of `textdiff compare`", is_figure if suffix in (".png", ".pdf") else lambda _: ours)


def _is_summary(path: Path) -> bool:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("kind") == "compare"


def _reference(rows: Sequence[_Row], name: str, row: _Row) -> Result | None:
    """What a row's difference to the row called ``name`` is taken to: of as many labels.

    In another data set than the named row's, the row that is called alike but for its place.
    """
    labels = row.result.point["labels"]
    same = [r for r in rows if r.dataset == row.dataset and r.result.point["labels"] == labels]
    method = name.partition("@")[0]
    found = next((r for r in same if r.name == name), None)
    if found is None and all(r.name != name for r in rows if r.dataset == row.dataset):
        found = next((r for r in same if r.result.name == method), None)
    return found.result if found else None


def fit_costs(experiment: Experiment, result: Result) -> dict[str, str]:
    """What a row costs: parameters that are trained, those in all, and the median seconds of a fit."""
    runs = [
        experiment.run(job)
        for job in experiment.plan.jobs
        if job.point == result.point and experiment.scores_file(job).is_file()
    ]
    if not runs:
        return {"trained": "", "in_all": "", "seconds": ""}
    trained: int = runs[0].config["parameters"]
    parts = [run.members if run.combined else [run] for run in runs]
    # By cache: runs of one share its backbone.
    backbones = {
        part.config["fingerprint_hash"]: part.config["about"].get("backbone_parameters")
        for part in parts[0]
        if part.reads.activations
    }
    frozen = None if None in backbones.values() else sum(backbones.values())
    seconds = median(sum(float(line["seconds"]) for part in own for line in part.log()) for own in parts)
    return {
        "trained": f"{trained:,}",
        "in_all": "" if frozen is None else f"{trained + frozen:,}",
        "seconds": f"{seconds:.0f}",
    }


def _row_nbytes(experiment: Experiment) -> int | None:
    """The bytes of an image in an experiment's cache; None where the cache is not there any more."""
    try:
        return experiment.open_cache().row_nbytes
    except UserError:
        return None


def _changed_note(experiment: Experiment) -> list[str]:
    """A line that says where scores are of other images or masks than the experiment's cache has by now."""
    try:
        cache = FeatureCache.open(experiment.cache)
    except UserError:
        return []
    if experiment.table_hash in (None, cache.table_hash):
        return []
    changed = "the images, masks or texts of its cache have changed since it was begun"
    return [f"{changed}, and its scores are of those of then."]


def _column(row: _Row, with_labels: bool, with_dataset: bool) -> str:
    """What stands below a row's column in the figure."""
    labels = f"\n{row.result.point['labels']} labels" if with_labels else ""
    dataset = f"\n{row.dataset}" if with_dataset else ""
    return f"{row.result.name}\n{row.place}{labels}{dataset}"


def _opened(paths: Sequence[Path]) -> dict[str, Experiment]:
    """By the names of their directories, or by their paths if two are called alike; single fits by their cache's."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise UserError("compare: name no directory twice")
    runs = [path for path in resolved if not (path / FILE).exists() and (path / "config.json").exists()]
    others = [path for path in resolved if path not in runs]
    short = len({path.name for path in others}) == len(others)
    opened = {path.name if short else str(path): open_experiment(path) for path in others}
    for experiment in opened.values():
        jobs = experiment.plan.jobs
        if before := sum(map(experiment.scored_before, jobs)):
            raise UserError(
                f"{experiment.path}: {some(before, len(jobs), 'run', 'was', 'were')} scored by an earlier version of "
                f"TextDiff; repeat its command, textdiff {experiment.plan.kind} with the options of then, which scores "
                "them anew and fits nothing again"
            )
    split = next((experiment.plan.split for experiment in opened.values()), "test")
    return opened | fits_as_experiments([Run(path) for path in runs], split)


def _check(experiments: dict[str, Experiment], rows: Sequence[_Row], variants: Sequence[str] | None) -> None:
    """Refuses what cannot stand in one table."""
    first_place, first = next(iter(experiments.items()))
    for place, experiment in experiments.items():
        if experiment.plan.kind not in (*COMPARABLE, "fit"):
            taken = f"{', '.join(COMPARABLE)} and runs of fit"
            raise UserError(f"{experiment.path}: made by {experiment.plan.kind}; compare takes {taken}")
        if experiment.plan.split != first.plan.split:
            raise UserError(
                f"{place} and {first_place}: of another split, {experiment.plan.split} and {first.plan.split}; "
                "not to be compared"
            )
    methods = {row.result.name for row in rows} | {row.result.point["method"] for row in rows}
    if missing := [name for name in variants or () if name not in methods]:
        raise UserError(
            f"--variants {missing[0]}: no row of these experiments, which have {', '.join(sorted(methods))}"
        )
    for dataset in {experiment.dataset for experiment in experiments.values()}:
        check_scored((row.name, row.result) for row in rows if row.dataset == dataset)
        check_pairs({place: one for place, one in experiments.items() if one.dataset == dataset})
