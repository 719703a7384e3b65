"""Rows of several experiments in one table: other backbones, other recipes, on the same draws and images."""

__all__ = ["check_pairs", "compare"]

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textdiff.errors import UserError
from textdiff.experiments.draws_figure import draws_figure
from textdiff.experiments.jobs import Experiment, open_experiment
from textdiff.experiments.results import Result, gather
from textdiff.experiments.tables import (
    Outcome,
    Table,
    absence_note,
    interval_notes,
    missing_note,
    points,
    score,
    score_columns,
    verdict,
    views_note,
    write_files,
)
from textdiff.options.experiments import Compare
from textdiff.pipeline.evaluation.image_predictions import TRUTHS

KINDS = ("ablate", "curve", "table1")
_Images = dict[str, Sequence[Any]]
"""By id the digests of an image and its mask."""


class _Row(NamedTuple):
    place: str
    """The experiment's directory, as short as it tells them apart."""
    result: Result

    @property
    def name(self) -> str:
        """As ``--against`` names it: ``no-text@ablate-monuseg``."""
        return f"{self.result.point['method']}@{self.place}"


def compare(options: Compare) -> Outcome:
    """One table of what ``ablate`` or ``curve`` made of several caches, with paired differences across them.

    Runs of one draw and seed are pairs whatever cache they are of: they saw the same training images, which is checked.

    Raises:
        UserError: no experiment, one of another kind, data set, split or image; a row that does not exist.
    """
    truth, variants = options.truth, options.variants
    out = None if options.out is None else Path(options.out)
    experiments = _opened([Path(path) for path in options.experiments])
    rows = [
        _Row(place, result)
        for place, experiment in experiments.items()
        for result in gather(experiment)
        if variants is None or result.point["method"] in variants
    ]
    _check(experiments, rows, variants)
    counts = {row.result.point["labels"] for row in rows}
    names = list(dict.fromkeys(row.name for row in rows))
    references = list(options.against or names[:1])
    if wrong := [name for name in references if name not in names]:
        raise UserError(f"--against {wrong[0]}: not among the rows, which are {', '.join(names)}")
    shown = score_columns((row.result for row in rows), truth)
    cells, records, estimates = [], [], []
    for row in rows:
        estimates.append(row.result.estimate(f"dice_{truth}"))
        labels = row.result.point["labels"]
        line = [row.place, row.result.point["method"], str(labels), row.result.progress]
        line += [score(row.result.estimate(metric)) for metric in shown.values()]
        for name in references:
            other = next((r.result for r in rows if r.name == name and r.result.point["labels"] == labels), None)
            if other is row.result:
                other = None
            difference = row.result.minus(other, f"dice_{truth}") if other else None
            line += [points(difference), verdict(difference)]
            found = row.result.records(other)
            records += [{"experiment": row.place, "against": name, **record} for record in found]
        cells.append(line)
    columns = ["experiment", "variant", "labels", "runs", *shown]
    columns += [column for name in references for column in (f"Dice against {name}, points", "")]
    first = next(iter(experiments.values()))
    own = [
        f"{place}: {note}"
        for place, experiment in experiments.items()
        for note in (*missing_note(experiment), *views_note(row.result for row in rows if row.place == place))
    ]
    absent = absence_note((row.result for row in rows), truth)
    common = "Differences are over the draws and seeds that both rows have, which may be fewer than a row's own."
    table = Table(columns, cells, [*own, *absent, *interval_notes(first, estimates, truth), common])
    summary: dict[str, Any] = {
        "schema": 1,
        "kind": "compare",
        "dataset": first.dataset,
        "split": first.plan.split,
        "truth": truth,
        "experiments": {place: str(experiment.path) for place, experiment in experiments.items()},
        "fingerprint_hashes": {place: experiment.fingerprint_hash for place, experiment in experiments.items()},
    }
    if out is None:
        return Outcome(table.text(), {**summary, "notes": list(table.notes), "rows": records}, [])
    outcome = write_files(out, table, records, summary)
    title = f"{first.dataset}, {first.plan.split} images, {TRUTHS[truth]}"
    columns_of = [(_column(row, len(counts) > 1), row.result) for row in rows]
    return outcome._replace(files=[*outcome.files, *draws_figure(out, columns_of, f"dice_{truth}", title)])


def _column(row: _Row, with_labels: bool) -> str:
    """What stands below a row's column in the figure."""
    labels = f"\n{row.result.point['labels']} labels" if with_labels else ""
    return f"{row.result.point['method']}\n{row.place}{labels}"


def _opened(paths: Sequence[Path]) -> dict[str, Experiment]:
    """By the names of their directories, or by their paths if two are called alike."""
    resolved = [path.resolve() for path in paths]
    if len(resolved) < 2 or len(set(resolved)) < len(resolved):
        raise UserError("compare: name at least two directories of experiments, and none twice")
    short = len({path.name for path in resolved}) == len(resolved)
    return {path.resolve().name if short else str(path): open_experiment(path) for path in paths}


def _check(experiments: dict[str, Experiment], rows: Sequence[_Row], variants: Sequence[str] | None) -> None:
    """Refuses what cannot stand in one table."""
    first_place, first = next(iter(experiments.items()))
    for place, experiment in experiments.items():
        if experiment.plan.kind not in KINDS:
            raise UserError(f"{experiment.path}: made by {experiment.plan.kind}; compare takes {' and '.join(KINDS)}")
        for what, one, other in (
            ("data set", first.dataset, experiment.dataset),
            ("split", first.plan.split, experiment.plan.split),
        ):
            if one != other:
                raise UserError(f"{place} and {first_place}: of another {what}, {other} and {one}; not to be compared")
    methods = {row.result.point["method"] for row in rows}
    if missing := [name for name in variants or () if name not in methods]:
        raise UserError(f"--variants {missing[0]}: no row of these experiments")
    scored = [row for row in rows if row.result.runs]
    if other_images := [row for row in scored if row.result.images != scored[0].result.images]:
        raise UserError(
            f"{other_images[0].name} and {scored[0].name}: scored on other images or masks; not to be compared"
        )
    check_pairs(experiments)


def check_pairs(experiments: dict[str, Experiment]) -> None:
    """Refuses experiments in which the same draw is of other images.

    Raises:
        UserError: it is.
    """
    known: dict[tuple[int, int], tuple[str, _Images]] = {}
    for place, experiment in experiments.items():
        for labels, draw, images in _drawn(experiment):
            seen_in, seen = known.setdefault((labels, draw), (place, images))
            if seen != images:
                raise UserError(
                    f"{place} and {seen_in}: draw {draw} of {labels} is of other images or masks, so that their runs "
                    "are no pairs; make both caches of the same data set"
                )


def _drawn(experiment: Experiment) -> Iterable[tuple[int, int, _Images]]:
    """The number of labels, the draw, and what was drawn, of each finished job."""
    for job in experiment.plan.jobs:
        if experiment.scores_file(job).is_file():
            config = experiment.run(job).config
            facts = config["images"]
            yield job.point["labels"], job.draw, {name: facts.get(name, [])[:2] for name in config["train_ids"]}
