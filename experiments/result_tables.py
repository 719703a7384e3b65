"""Tables of results as people read them (text, Markdown, LaTeX) and as programs do (CSV, JSON)."""

__all__ = [
    "Outcome",
    "Table",
    "absence_note",
    "cells",
    "compared",
    "difference_columns",
    "interval_notes",
    "missing_note",
    "notes",
    "points",
    "published_beside",
    "score",
    "score_columns",
    "title",
    "views_note",
    "write_files",
    "write_tables",
]

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from textdiff.cache import FeatureCache
from textdiff.console import counted, form, printable
from textdiff.errors import UserError
from textdiff.experiments.experiment import Experiment
from textdiff.experiments.nested_bootstrap import Estimate
from textdiff.experiments.results import Result
from textdiff.files import write_json, write_text
from textdiff.metrics.intervals import Interval, group_numbers, resampled
from textdiff.pipeline.evaluation.class_scores import presence_note
from textdiff.pipeline.evaluation.image_predictions import TRUTHS
from textdiff.pipeline.evaluation.leaks import leaks_note, to_learn_from
from textdiff.pipeline.evaluation.published import Comparison, published_for
from textdiff.pipeline.evaluation.score_tables import percent
from textdiff.tables import MINUS, csv_table, latex_table, markdown, markdown_table, text_table

FEW_DRAWS = 5


class Outcome(NamedTuple):
    """What an experiment gives."""

    text: str
    """The table to be printed."""
    summary: dict[str, Any]
    files: list[Path]
    failures: Sequence[str] = ()
    """What went wrong, one line each; the table is of the other jobs."""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown, and lines to stand below them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Aligned columns."""
        return "\n".join([text_table(self.columns, self.rows), "", *map(printable, self.notes)])

    def markdown(self) -> str:
        """A GitHub table and the notes as a list."""
        return "\n".join([markdown_table(self.columns, self.rows), "", *(f"* {markdown(n)}" for n in self.notes)])

    def latex(self) -> str:
        """A table for LaTeX; the notes are comments."""
        return "\n".join([*("% " + printable(note) for note in self.notes), latex_table(self.columns, self.rows)])


def score(estimate: Estimate | None) -> str:
    """A score in [0, 1] in percent: ``78.67 [75.02, 81.90]``; empty where nothing has finished."""
    return percent(Interval(*estimate[:3], estimate.images)) if estimate else ""


def points(estimate: Estimate | None) -> str:
    """A difference of scores in percentage points, with its sign: ``+0.94 [-0.31, +2.15]``, with a true minus."""
    if estimate is None:
        return ""
    shown = [f"{100 * value:+.2f}".replace("-", MINUS) for value in estimate[:3] if value is not None]
    return shown[0] if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def compared(difference: Estimate | None) -> list[str]:
    """``points`` and what their interval says, ``higher``, ``no difference seen``; empty where nothing is compared."""
    return [points(difference), difference.verdict if difference else ""]


def cells(result: Result, shown: Mapping[str, str], truth: str, others: Iterable[Result | None] = ()) -> list[str]:
    """The scores of a row by ``score_columns``, and its differences in Dice to others by ``difference_columns``."""
    scores = [score(result.estimate(metric)) for metric in shown.values()]
    differences = [result.minus(other, f"dice_{truth}") for other in others]
    return scores + [cell for difference in differences for cell in compared(difference)]


def difference_columns(*others: str) -> list[str]:
    """The titles of the columns with differences to rows of these names, and of what they say."""
    return [column for other in others for column in (f"Dice against {other}, points", "")]


def title(experiment: Experiment, truth: str) -> str:
    """What the numbers of an experiment are of."""
    return f"{experiment.dataset}, {experiment.plan.split} images, {TRUTHS[truth]}"


def published_beside(experiment: Experiment, results: Iterable[Result]) -> Comparison:
    """The published scores that may stand beside those of an experiment."""
    images = next((result.images for result in results if result.runs), {})
    if not images or experiment.plan.split != "test":
        return Comparison((), "")
    return published_for(experiment.dataset, images)


def notes(experiment: Experiment, results: Collection[Result], truth: str) -> list[str]:
    """What a reader must know of intervals, of views, of absent classes and of what is missing."""
    return [
        *missing_note(experiment),
        *views_note(results),
        *absence_note(results, truth),
        *interval_notes(experiment, results, truth),
    ]


def score_columns(results: Iterable[Result], truth: str) -> dict[str, str]:
    """The metrics that a table shows, by title: also Dice where a class is present, if images lack some class."""
    columns = {"Dice %": f"dice_{truth}", "IoU %": f"iou_{truth}"}
    return columns | ({"Dice % where present": f"dice_present_{truth}"} if absence_note(results, truth) else {})


def absence_note(results: Iterable[Result], truth: str) -> list[str]:
    """A line that says which classes are not in every image, if there are any."""
    scored = [result for result in results if result.runs]
    # All are scored on the same images.
    note = presence_note(scored[0].present(truth), len(scored[0].images)) if scored else ""
    return [note] if note else []


def views_note(results: Iterable[Result]) -> list[str]:
    """A line that says over how many views predictions are means, where there are several."""
    views = max(result.views for result in results)
    return [f"Each prediction is the mean over {views} views."] if views > 1 else []


def missing_note(experiment: Experiment) -> list[str]:
    """A line that says how much is missing, if anything is."""
    missing, total = len(experiment.missing()), len(experiment.plan.jobs)
    if not missing:
        return []
    which = f"{missing} of {counted(total, 'job')} {form(missing, 'is', 'are')} missing"
    return [f"INCOMPLETE: {which}; the same command does {form(missing, 'it', 'them')}."]


def interval_notes(experiment: Experiment, results: Collection[Result], truth: str) -> list[str]:
    """What the numbers are means of, what the intervals cover, and what not."""
    there = [estimate for result in results if (estimate := result.estimate(f"dice_{truth}")) is not None]
    if not there:
        return []
    lines = []
    groups = {tuple(group_numbers(result.groups)): result.groups for result in results if result.runs}
    over = list(dict.fromkeys(resampled(own) for own in groups.values()))
    draws, runs, images = (max(getattr(estimate, name) for estimate in there) for name in ("draws", "runs", "images"))
    intervals = f"with 95% intervals (bootstrap over draws, seeds within draws, and {' or '.join(over)})"
    if all(estimate.low is None for estimate in there):
        intervals = f"without intervals: one run on {there[0].alone} does not tell how others vary"
    lines.append(
        f"{experiment.dataset}, {counted(images, f'{experiment.plan.split} image')}, truth: {TRUTHS[truth]}; "
        f"means over {counted(draws, 'draw')} of training images, {counted(runs, 'run')} a row, {intervals}."
    )
    if truth != "original" and _in_tiles(experiment):
        lines.append(
            "The images are in tiles, and this truth is of whole images made as small as a tile: go by --truth "
            "original. Published scores alone are to be compared by --truth paper."
        )
    if len(groups) > 1:
        lines.append(
            "Not all rows know alike whose the images are (their group), so their intervals are not over the same, and "
            "those over images may be too narrow; a difference is over groups where one of the two knows them. Make "
            "all caches of the same table of the data."
        )
    elif images > 1 and not any(*groups):
        lines.append("All images are of one group, so that no interval covers what images of another would give.")
    lines += _leaks(experiment, results)
    # All are scored on the same images.
    lines += list({note: None for result in results if (note := result.said(truth))})
    if draws == 1:
        lines.append("With one draw of training images no interval covers what another draw would give.")
    elif draws < FEW_DRAWS:
        lines.append(f"{draws} draws are few: intervals that claim 95% cover less (docs/experiments.md says how much).")
    if experiment.plan.split == "test":
        lines.append("Choosing among these rows by these numbers makes the test images validation images.")
    return lines


def _leaks(experiment: Experiment, results: Iterable[Result]) -> list[str]:
    """A line on scored images that are copies of training images, or of their patients, unless the cache is gone."""
    try:
        cache = FeatureCache.open(experiment.cache)
    except UserError:
        return []
    there = {entry.id for entry in cache.rows}
    images = next((result.images for result in results if result.runs), {})
    known = {name: digests for name, digests in images.items() if name in there}
    note = leaks_note(to_learn_from(cache), cache, experiment.plan.split, known)
    return [note] if note else []


def _in_tiles(experiment: Experiment) -> bool:
    """Whether the runs of an experiment see images in tiles; their configuration tells."""
    runs = (experiment.run(job) for job in experiment.plan.jobs if experiment.scores_file(job).is_file())
    run = next((run for run in runs if (run.path / "config.json").is_file()), None)
    return run is not None and "tile" in run.config["fingerprint"]


def write_tables(
    experiment: Experiment, table: Table, records: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> Outcome:
    """Writes the table into the experiment's directory, under the name of its kind."""
    whole = {
        "schema": 1,
        "kind": experiment.plan.kind,
        "dataset": experiment.dataset,
        "split": experiment.plan.split,
        "fingerprint_hash": experiment.fingerprint_hash,
        "options": experiment.plan.options,
        "jobs": len(experiment.plan.jobs),
        "missing": [job.name for job in experiment.missing()],
        **summary,
    }
    return write_files(experiment.path / experiment.plan.kind, table, records, whole)


def write_files(stem: Path, table: Table, records: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Outcome:
    """Writes ``<stem>.md``, ``.tex``, ``.csv`` (the records) and ``.json`` (the summary with notes and records)."""
    whole = {**summary, "notes": list(table.notes), "rows": list(records)}
    texts = {".md": table.markdown() + "\n", ".tex": table.latex() + "\n", ".csv": csv_table(records)}
    files = [stem.with_name(stem.name + suffix) for suffix in (*texts, ".json")]
    write_json(files[-1], whole)  # first, as it says whose the others are
    for file, content in zip(files, texts.values(), strict=False):
        write_text(file, content)
    return Outcome(table.text(), whole, files)
