"""What the experiments have in common: their methods, their draws and seeds, and from options to a list of jobs."""

__all__ = [
    "RIVALS",
    "conduct",
    "draws_all",
    "experiment_path",
    "method_titles",
    "methods",
    "plan_methods",
    "repetitions",
    "rows_by_default",
]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import torch

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.experiment import (
    FILE,
    Experiment,
    Plan,
    fit_options,
    make_job,
    open_experiment,
    plan_experiment,
)
from textdiff.experiments.pool import choose_processes, run_experiment
from textdiff.models.networks.models import all_models, get_model, method_name
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.experiments import VARIED, Ablate, Curve, Method, Table1
from textdiff.options.experiments import Experiment as Options
from textdiff.options.fit import MEAN_TEACHER, FitConfig, Learned, Variant
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.training.begin import draw_images

RIVALS: tuple[Method, ...] = ("unet", "unet-fair")
"""Those that are rows by default: a plain one, and the best that could be made of it."""
SEEDS_PER_DRAW = 100


class Fitted(NamedTuple):
    """What is fitted for a row of a table: the options of those names."""

    model: str
    recipe: str | None
    """None for that of the experiment's options."""
    variant: Variant
    unlabelled: Learned | None
    places: bool


def methods() -> dict[str, Fitted]:
    """The rows that tables can have, by name."""
    found: dict[str, Fitted] = {}
    for model, network in all_models().items():
        recipes = (None,) if model == FitConfig.model else network.recipes
        for recipe, variant, unlabelled in product(recipes, network.variants, _ways(network)):
            for places in {False, network.maps_places and variant != "no-text"}:
                name = method_name(model, recipe, variant, unlabelled, places)
                found[name] = Fitted(model, recipe, cast(Variant, variant), unlabelled, places)
    return found


def _ways(network: type[Segmenter]) -> tuple[Learned | None, ...]:
    return (None, 1, MEAN_TEACHER) if network.mean_teacher else (None, 1)


def method_titles() -> dict[str, str]:
    """The same rows, and the title of each one's network, where it has one: another package's may lack it."""
    return {name: getattr(get_model(fitted.model), "title", "") for name, fitted in methods().items()}


def method_config(base: FitConfig, method: Method, rival_epochs: int | None) -> FitConfig:
    """The options of a method: a variant of the head, or another network, which shares nothing with it but the data."""
    model, recipe, variant, unlabelled, places = methods()[method]
    if model == base.model:
        places = places or (base.places and variant != "no-text")  # which names none
        return replace(base, variant=variant, unlabelled=unlabelled or base.unlabelled, places=places)
    return FitConfig(
        cache=base.cache,
        model=model,
        variant=variant,
        protocol=base.protocol,
        recipe=recipe,
        epochs=rival_epochs,
        unlabelled=unlabelled,
        places=places,
        precision=base.precision,
        device=base.device,
    )


def check_methods(rows: Sequence[Method], cache: FeatureCache, elsewhere: Collection[str] = ()) -> None:
    """Refuses a method that needs texts that are not there, and a mean of what is no row.

    Args:
        rows: the methods and the means.
        cache: of all runs.
        elsewhere: rows of other experiments.

    Raises:
        UserError: it needs them, or one of its rows is missing.
    """
    known = methods()
    for row in rows:
        if row not in known:
            if absent := [part for part in row.split("+") if part not in (*rows, *elsewhere)]:
                raise UserError(f"{row}: is a mean of rows, and {absent[0]} is none; name it, too: {absent[0]},{row}")
            continue
        if cache.text_dim is None and _reads_texts(known[row]):
            raise UserError(
                f"{row}: reads texts, and {cache.path} was extracted with --text-encoder none; name rows that read "
                "none, as no-text and unet, or extract with a text encoder"
            )


def rows_by_default(rows: Sequence[Method], cache: FeatureCache) -> list[Method]:
    """Of rows that nobody named those that a cache can have: without texts those that read none, as a line says."""
    known = methods()
    left_out = [row for row in rows if cache.text_dim is None and _reads_texts(known[row])]
    if left_out:
        console.info(
            f"{cache.path}: was extracted with --text-encoder none, so the rows that read texts are left out: "
            f"{', '.join(left_out)}"
        )
    return [row for row in rows if row not in left_out]


def _reads_texts(method: Fitted) -> bool:
    return method.variant != "no-text" and len(get_model(method.model).variants) > 1


def repetitions(options: Options, cache: FeatureCache, labels: int) -> list[tuple[int, int]]:
    """(draw, seed) of every fit with ``labels`` training images, the first seeds of all draws before the second ones.

    Seeds are 100 x draw + 0, 1, ...: never the same initial weights in two draws, so that draws are independent. Where
    all annotated images are drawn there is only one draw.

    Raises:
        UserError: fewer annotated training images than ``labels``.
    """
    draws = 1 if draws_all(cache, labels) else options.draws
    return [(draw, SEEDS_PER_DRAW * draw + seed) for seed in range(options.seeds) for draw in range(draws)]


def draws_all(cache: FeatureCache, labels: int) -> bool:
    """Whether a draw of ``labels`` training images has all that are annotated, so that no other one differs.

    Raises:
        UserError: there are fewer.
    """
    everything, _ = draw_images(cache, None, 0)
    if labels > len(everything):
        draw_images(cache, labels, 0)  # says how many there are
    return labels == len(everything)


def plan_methods(
    kind: str,
    options: Ablate | Curve | Table1,
    cache: FeatureCache,
    rows: Sequence[Method],
    labels: int | Sequence[int],
    change: Callable[[FitConfig], FitConfig] = lambda config: config,
    elsewhere: Mapping[str, str] | None = None,
) -> Plan:
    """Every method on every number of training images, with the same draws and seeds.

    Args:
        kind: the command.
        options: its options.
        cache: of all runs.
        rows: keys of :func:`methods`, and sums of rows, ``full+unet``: the mean of their runs of one draw and seed.
        labels: the number of training images, or several; only of several the names of runs tell which.
        change: is given the options of each fit last.
        elsewhere: rows of other experiments that sums may have; by name the path of their runs from this one's
            directory, up to the group.

    Raises:
        UserError: options that the cache does not allow.
    """
    elsewhere = elsewhere or {}
    rows = list(dict.fromkeys(rows))  # one that is named, and a row anyhow, is one row
    check_methods(rows, cache, elsewhere)
    known, base, jobs = methods(), options.fit_config(cache.path, options.device), []
    for count in [labels] if isinstance(labels, int) else labels:
        for draw, seed in repetitions(options, cache, count):
            group = f"d{draw}-s{seed}" if isinstance(labels, int) else f"n{count}-d{draw}-s{seed}"
            for row in rows:
                parts = [] if row in known else row.split("+")
                config = base if parts else method_config(base, row, options.rival_epochs)
                config = change(replace(config, labels=count, draw_seed=draw, seed=seed))
                members = [f"{elsewhere.get(part, part)}-{group}" for part in parts]
                jobs.append(make_job(f"{row}-{group}", {"method": row, "labels": count}, group, config, members))
    record = {
        "variants": list(rows),
        "labels": labels if isinstance(labels, int) else list(labels),
        "draws": options.draws,
        "seeds": options.seeds,
        "rival-epochs": options.rival_epochs,
        **fit_options(base, VARIED),
    }
    return Plan(kind, record, options.split, jobs)


def experiment_path(options: Options, plan: Plan, cache: FeatureCache) -> Path:
    """The directory of an experiment."""
    return Path(options.runs) / f"{plan.kind}-{options.name or cache.path.stem}"


def conduct(options: Options, plan: Plan, cache: FeatureCache) -> tuple[Experiment, list[str]]:
    """Writes the job list, or finds it, adds to it what is new, and does what is missing.

    Args:
        options: where, and on what; with ``table_only`` nothing is done.
        plan: what the experiment consists of.
        cache: of all its runs.

    Returns:
        The experiment, and what went wrong, one line for each failure; the other jobs are done nevertheless.

    Raises:
        UserError: the experiment was begun with other options, or has not been begun when the table alone is wanted.
        KeyboardInterrupt: stopped; the next call goes on.
    """
    path = experiment_path(options, plan, cache)
    if options.table_only:
        open_experiment(path)
        return plan_experiment(path, plan, cache, 1, grow=False), []
    scored_rows(cache, plan.split)
    processes = choose_processes(options.device, options.jobs)
    begun = (path / FILE).exists()
    groups = len({job.group for job in plan.jobs})
    # PyTorch's number is that of the cores, or OMP_NUM_THREADS.
    threads = max(1, torch.get_num_threads() // min(processes, groups))
    experiment = plan_experiment(path, plan, cache, threads)
    if begun:
        console.info(f"{path}: goes on")
    return experiment, run_experiment(experiment, processes)
