"""Single fits as the runs of experiments, so that they stand in one table with those of ``ablate`` and the like."""

__all__ = ["fits_as_experiments"]

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from textdiff import console
from textdiff.errors import UserError
from textdiff.experiments.evaluate import evaluate
from textdiff.experiments.experiment import FILE, Experiment, Job, Plan
from textdiff.models.device import choose_device
from textdiff.models.networks.recipes import Recipe
from textdiff.options.fit import FitConfig
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.predictions import view_count
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.image_digests import image_digests
from textdiff.places import located
from textdiff.readers.presets import name_of_data

# Where a fit ran, which repetition it is, and what its label tells.
_TOLD = ("cache", "device", "labels", "seed", "draw_seed", "model", "variant", "ensemble", "unlabelled", "places")
_OPTIONS = sorted({option.name for option in fields(FitConfig)}.difference(_TOLD))


def fits_as_experiments(runs: Sequence[Run], split: str) -> dict[str, Experiment]:
    """Single fits as the jobs of an experiment for each cache, scored image by image where they are not yet.

    Those that were scored are scored anew where the images, masks, groups or views of their cache are others now, but
    for the runs of an experiment, which would not be comparable with its others.

    Fits of one label that differ in an option are rows of their own, called after it: ``unet-width=16``.

    Raises:
        UserError: one is not finished, or two are the same fit of the same draw and seed.
    """
    by_cache: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_cache.setdefault((run.config["cache"], run.config["fingerprint_hash"]), []).append(run)
    found = {}
    for number, ((cache, fingerprint_hash), own) in enumerate(by_cache.items()):
        points = [
            {"method": _name(run, [other for other in own if _alike(run, other)]), "labels": _labels(run)}
            for run in own
        ]
        jobs = [Job(str(run.path), point, "", run.config["fit"]) for run, point in zip(own, points, strict=True)]
        _check_different(jobs)
        name = f"fit-{Path(cache).stem}" + (f"-{number}" if number else "")
        experiment = Experiment(
            own[0].path.parent,
            Plan("fit", {}, split, jobs),
            located(cache),
            fingerprint_hash,
            name_of_data(own[0].config["about"]),
            0,
            None,
        )
        for job in [*experiment.missing(), *_outdated(experiment)]:
            run = experiment.run(job)
            evaluate([run], run.open_cache(), choose_device("auto"), split)
        found[name] = experiment
    return found


def _outdated(experiment: Experiment) -> list[Job]:
    """The fits that were scored on something else than what their cache has now; says of which that cannot be known."""
    missing, split = experiment.missing(), experiment.plan.split
    found, unknown = list[Job](), list[str]()
    rows: list[int] | None = None
    for job in experiment.plan.jobs:
        if job in missing:
            continue
        run = experiment.run(job)
        try:
            cache = run.open_cache()
            rows = scored_rows(cache, split) if rows is None else rows
        except UserError as error:
            unknown.append(str(error).partition(";")[0])
            continue
        groups = {cache.rows[row].id: cache.rows[row].group for row in rows}
        facts = image_digests(cache, groups, run.texts(cache))
        now = [*groups], [*groups.values()], facts, view_count(cache, rows)
        try:
            record = json.loads(experiment.scores_file(job).read_text(encoding="utf-8"))
            then = tuple(record[name] for name in ("ids", "groups", "facts", "views"))
        except (ValueError, KeyError, TypeError):  # what is damaged is named where it is gathered
            continue
        if then == now:
            continue
        if (run.path.parent / FILE).exists():
            unknown.append(f"{run.path}: is of an experiment, which was scored before its cache changed")
        else:
            found.append(job)
    if unknown:
        others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        console.warn(f"{unknown[0]}{others}: scores of before are taken as they are")
    return found


def _labels(run: Run) -> int:
    return len(run.config["train_ids"])


def _alike(run: Run, other: Run) -> bool:
    """Whether two fits would be runs of one row, but for what they do not have in common."""
    return (run.label, _labels(run)) == (other.label, _labels(other))


def _name(run: Run, alike: Sequence[Run]) -> str:
    """What the row of a fit is called beside those that have its label."""
    own, differing = _settings(run), []
    for option in own:
        # What a recipe sets is told by its name.
        others = [_settings(one) for one in alike if option not in Recipe._fields or _recipe(one) == _recipe(run)]
        if any(other.get(option) != own[option] for other in others):  # only combined ones have weights
            differing.append(f"{option.replace('_', '-')}={own[option]}")
    return "-".join([run.label, *differing])


def _recipe(run: Run) -> str:
    return str(_options(run)["recipe"])


def _options(run: Run) -> dict[str, Any]:
    """What a run was fitted with; of a combined one the first that its label names."""
    if run.combined:
        run = next(member for member, weight in zip(run.members, run.weights, strict=True) if weight)
    return dict(run.config["fit"])


def _settings(run: Run) -> dict[str, str]:
    """What may tell a fit from another of its label, in words."""
    fit = _options(run)
    shown = {option: _shown(option, fit.get(option)) for option in _OPTIONS}
    return shown | ({"weights": "/".join(f"{weight:.3g}" for weight in run.weights)} if run.combined else {})


def _shown(option: str, value: Any) -> str:
    """A value without commas, which ``--against`` parts names by."""
    if option == "pretrained" and value is not None:
        return Path(value).name.replace(",", "-")
    return "/".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _check_different(jobs: Sequence[Job]) -> None:
    """Refuses two runs of one row of which only one could be seen.

    Raises:
        UserError: there are such.
    """
    known: dict[tuple[Any, ...], str] = {}
    for job in jobs:
        first = known.setdefault((*job.point.values(), job.draw, job.seed), job.name)
        if first != job.name:
            raise UserError(f"{job.name}: the same fit as {first}, of the same draw and seed; name one of them")
