"""Table 1 of the paper: every system on the same images, draws and seeds, with intervals and paired differences."""

__all__ = ["row_titles", "table1", "table1_plan", "table1_table"]

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from textdiff.cache import FeatureCache
from textdiff.console import counted
from textdiff.errors import UserError, few
from textdiff.experiments.compare import SECONDS, fit_costs
from textdiff.experiments.experiment import FILE, Experiment, Plan, check_plan, open_experiment
from textdiff.experiments.pairs import check_pairs, check_scored
from textdiff.experiments.plots import draws_figure
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    absence_note,
    cells,
    difference_columns,
    interval_notes,
    missing_note,
    published_beside,
    score_columns,
    title,
    views_note,
    write_tables,
)
from textdiff.experiments.results import gather
from textdiff.experiments.setup import conduct, experiment_path, method_titles, methods, plan_methods, rows_by_default
from textdiff.models.networks.models import get_model, get_recipe
from textdiff.options.experiments import FILTERS, Table1
from textdiff.options.fit import FitConfig
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.combine import check_caches
from textdiff.pipeline.evaluation.published import ARTEFACTS
from textdiff.pipeline.training.begin import draw_images
from textdiff.pipeline.training.epochs import rows_by_tile

METHOD, BAR = ("full", "no-text"), "trees"
"""The method, with text or else without, and what is fitted on image filters: boosted trees."""


def row_titles() -> dict[str, str]:
    """The rows that the table can have, but for means of them, and what each is."""
    return method_titles() | {FILTERS: "boosted trees on image filters"}


def table1(options: Table1) -> Outcome:
    """Fits and scores every system on the same draws and seeds, going on where it was stopped, and makes the table.

    The row of ``--filters``, the cache of image filters, is an experiment of its own beside the other one. Means of
    rows are in the other one, wherever their members are.

    Raises:
        UserError: bad options, or others than the experiment was begun with; two caches that are not of the same
            images.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    if options.filters is not None:
        _check_same_images(options)
    by_default = [row for row in methods() if _by_default(row, options)]
    wanted = options.models or rows_by_default(by_default, FeatureCache.open(options.cache))
    rows = [row for row in wanted if row != FILTERS]
    caches = {place: path for place, path in (("", options.cache), (FILTERS, options.filters)) if path is not None}
    plans = {}
    for place, path in caches.items():
        cache = FeatureCache.open(path)
        # Filters are for what reads activations: networks of images see the same there, and there are no texts.
        plans[place] = cache, table1_plan(options, cache, [BAR] if place else rows)
    for place, (cache, plan) in plans.items():  # both, before one of them grows
        path = experiment_path(replace(options, name=_name(options, place)), plan, cache)
        if (path / FILE).exists():
            if not options.table_only:
                _check_lengths(path, plan)
            check_plan(path, plan, cache, grow=not options.table_only)
    failures, experiments = list[str](), dict[str, Experiment]()
    for place, (cache, plan) in reversed(plans.items()):  # filters first: rows of the other one are means with them
        named = replace(options, name=_name(options, place), cache=caches[place])
        experiments[place], failed = conduct(named, plan, cache)
        failures += failed
    return table1_table({place: experiments[place] for place in plans}, options.truth)._replace(failures=failures)


def _check_same_images(options: Table1) -> None:
    """Says before hours of fits what the table would be refused for."""
    caches = [FeatureCache.open(path) for path in (options.cache, options.filters) if path is not None]
    for split in ("train", options.split):
        rows = [[row for row in cache.rows if row.split == split and row.has_mask] for cache in caches]
        one, other = ({row.id: (row.image_sha256, row.mask_sha256) for row in own} for own in rows)
        if list(one.items()) != list(other.items()):
            differing = [name for name in (*one, *other) if one.get(name) != other.get(name)]
            which = f", as {differing[0]}" if differing else ", in another order"
            raise UserError(
                f"--filters {options.filters}: its {split} images and masks are not those of {options.cache}{which}; "
                "make both caches of the same data set"
            )
    if any("+" in row and FILTERS in row.split("+") for row in options.models or ()):
        check_caches([(cache.path, cache) for cache in caches])


def _check_lengths(path: Path, plan: Plan) -> None:
    """Says why an experiment of an earlier version cannot grow, where that cut fewer fits to ``--max-steps``."""
    then = open_experiment(path).plan
    before = {job.name: job for job in then.jobs}
    same = all(then.options.get(name) == plan.options[name] for name in ("labels", "rival-epochs", "max-steps"))
    whole = [
        str(job.point["method"])
        for job in plan.jobs
        if job.name in before and job.config.epochs is not None and before[job.name].config.epochs is None
    ]
    if same and plan.options["max-steps"] is not None and whole and any(job.name not in before for job in plan.jobs):
        rows = few(dict.fromkeys(whole), 5, count=True)
        raise UserError(
            f"{path}: cannot grow: an earlier TextDiff began it, and its --max-steps did not cut {rows}, as this one's "
            "does; repeat the command as it was then, which goes on with what is there, or give another --name, which "
            "fits all anew"
        )


def _by_default(row: str, options: Table1) -> bool:
    """Whether a row is in the table unless rows are named: the paper's systems, and what reads text without its own."""
    model, recipe, variant, rounds, places = methods()[row]
    if rounds or places:
        return False
    if model == FitConfig.model:
        return variant in (*METHOD, "shuffled-text")
    only = len(get_model(model).recipes) == 1
    if not get_model(model).usual:
        return False
    return (only or recipe in options.recipes) and variant in (METHOD[0], "shuffled-text")


def _name(options: Table1, place: str) -> str:
    name = options.name or Path(options.cache).stem
    return f"{name}-{place}" if place else name


def table1_plan(options: Table1, cache: FeatureCache, rows: Sequence[str]) -> Plan:
    """Every system on the same draws with the same seeds.

    Raises:
        UserError: options that the cache does not allow.
    """
    change = partial(_shortened, cache=cache, most=options.max_steps)
    elsewhere = {FILTERS: f"../table1-{_name(options, FILTERS)}/{BAR}"} if options.filters is not None else {}
    plan = plan_methods("table1", options, cache, rows, options.labels, change, elsewhere)
    return replace(plan, options=plan.options | {"max-steps": options.max_steps})


def _shortened(config: FitConfig, cache: FeatureCache, most: int | None) -> FitConfig:
    """The options with as many epochs as ``most`` steps make, where a network of images takes more steps."""
    if most is None or config.epochs or not config.recipe or not get_model(config.model).reads.image:
        return config
    recipe = get_recipe(config.model, config.recipe)
    tiles = rows_by_tile(cache)
    drawn, _ = draw_images(cache, config.labels, config.draw_seed or 0)
    shown = sum(len(tiles[name]) for name in drawn)
    in_epoch = math.ceil(shown / min(recipe.batch_size, shown))
    if (recipe.steps or (recipe.epochs or PROTOCOLS[config.protocol].epochs) * in_epoch) <= most:
        return config
    return replace(config, epochs=math.ceil(most / in_epoch))


def table1_table(experiments: Mapping[str, Experiment], truth: str) -> Outcome:
    """The table of what has finished, also as files in the first experiment's directory.

    Args:
        experiments: by where their features come from; ``""`` is the cache of the method.
        truth: a key of ``TRUTHS``: what the table's scores are measured by.

    Raises:
        UserError: the same draw, or the scores, are of other images in two experiments.
    """
    check_pairs({place or "method": experiment for place, experiment in experiments.items()})
    first = experiments[""]
    rows = {
        place or result.name: (experiment, result)
        for place, experiment in experiments.items()
        for result in gather(experiment)
    }
    check_scored((name, result) for name, (_, result) in rows.items())
    results = [result for _, result in rows.values()]
    fitted = [result.point["method"] for result in results]
    method = next((row for row in METHOD if row in fitted), None)
    against = [name for name, (_, result) in rows.items() if result.point["method"] == method or name == FILTERS]
    shown = score_columns(results, truth)
    lines, records = [], []
    for name, (experiment, result) in rows.items():
        costs = fit_costs(experiment, result)
        line = [name, str(result.point["labels"]), result.progress, *costs.values()]
        lines.append(line + cells(result, shown, truth, [rows[other][1] for other in against]))
        for other in against or [""]:
            found = result.records(rows[other][1] if other else None)
            records += [{"row": name, "against": other, **costs, **record} for record in found]
    published, why_not = published_beside(first, results)
    columns = ["system", "labels", "runs", "trained", "in all", "seconds", *shown, *difference_columns(*against)]
    for paper in published:
        lines.append(
            [f"published: {paper.method}", str(paper.labels), "", "", paper.printed, "", f"{paper.dice:.2f}"]
            + [f"{paper.iou:.2f}"]
            + [""] * (len(columns) - 8)
        )
    notes = [
        *(note for experiment in experiments.values() for note in missing_note(experiment)),
        *views_note(results),
        *absence_note(results, truth),
        *interval_notes(first, results, truth),
        f"trained: parameters that are trained; in all: with the frozen backbone, without the text encoder. {SECONDS}",
        *_names(rows),
        *_lengths(first),
        *([why_not] if why_not else []),
    ]
    if published:
        notes += ["Published rows are of other backbones, draws and splits, and have no intervals.", *ARTEFACTS]
    summary = {
        "truth": truth,
        "against": against,
        "experiments": {place or "method": str(experiment.path) for place, experiment in experiments.items()},
        "missing": [job.name for experiment in experiments.values() for job in experiment.missing()],
        "published": [row._asdict() for row in published],
        "published_left_out": why_not,
    }
    outcome = write_tables(first, Table(columns, lines, notes), records, summary)
    drawn = [(name, result) for name, (_, result) in rows.items()]
    figure = draws_figure(first.path / "table1", drawn, f"dice_{truth}", title(first, truth))
    return outcome._replace(files=[*outcome.files, *figure])


def _names(rows: Collection[str]) -> list[str]:
    """What those rows are that are called like no network."""
    notes = [f"{FILTERS}: boosted {BAR} on image filters, no network."] if FILTERS in rows else []
    if any("+" in row for row in rows):
        notes.append("a+b: the mean of the probabilities of a and b, fits of one draw and seed; it costs what both do.")
    return notes


def _lengths(experiment: Experiment) -> list[str]:
    """Lines that say which recipes are as long as their authors' own, on other data, and which were cut short."""
    most, given = experiment.plan.options["max-steps"], experiment.plan.options["rival-epochs"]
    whole, cut = dict[str, str](), dict[str, str]()
    for job in experiment.plan.jobs:
        config, row = job.config, job.point["method"]
        if job.members or not config.recipe or (given is not None and config.epochs == given):
            continue
        recipe = get_recipe(config.model, config.recipe)
        if most is not None and config.epochs is not None:
            epochs = f"{config.epochs:,} of {recipe.epochs or PROTOCOLS[config.protocol].epochs:,} epochs"
            cut[row] = f"{most:,} of {recipe.steps:,} steps" if recipe.steps else epochs
        elif recipe.steps and config.epochs is None:
            whole[row] = f"{row} makes {'at most ' if recipe.patience else ''}{recipe.steps:,} steps"
    lines = []
    if given is not None:
        lines.append(
            f"Other networks make {counted(given, 'epoch')} (--rival-epochs), however many their recipes have."
        )
    if whole:
        lines.append(f"{', '.join(whole.values())}: as many as the authors made, on thousands of images.")
    if cut:
        told = ", ".join(f"{name} {of}" for name, of in cut.items())
        lines.append(f"CUT SHORT: {told}; without --max-steps all of them are done.")
    return lines
