"""What the experiments have in common: their methods, their draws and seeds, and from options to a list of jobs."""

__all__ = [
    "RIVALS",
    "UNETS",
    "VARIED",
    "Setup",
    "check_methods",
    "check_truth",
    "conduct",
    "configure",
    "method_config",
    "repetitions",
]

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.jobs import FILE, Experiment, Plan, open_experiment, plan_experiment
from textdiff.experiments.run import choose_processes, run_experiment
from textdiff.pipeline.evaluation.truths import TRUTHS
from textdiff.pipeline.fit import FitConfig, draw_images
from textdiff.pipeline.networks.variants import VARIANTS, check_variant
from textdiff.pipeline.score import scored_rows

UNETS = ("unet", "unet-own", "unet-instance")
"""The competitors, named like their recipes."""
RIVALS = ("unet", "unet-own")
"""Those that are rows by default: a plain one, and the best that could be made of it."""
SEEDS_PER_DRAW = 100
VARIED = ("labels", "variant", "seed", "draw_seed", "model", "blocks", "steps", "ensemble")


@dataclass(frozen=True)
class Setup:
    """The options that all experiments share."""

    base: FitConfig
    """What every fit has in common; the fields in ``VARIED`` are the experiment's own."""
    draws: int = 5
    """Draws of training images."""
    seeds: int = 3
    """Fits for each draw, with different initial weights and orders."""
    split: str = "test"
    unet_epochs: int | None = None
    """Of the U-Nets, which keep their own recipes; None for their default."""


def configure(cache: Path, device: str, named: dict[str, Any], more: Sequence[str]) -> FitConfig:
    """A ``FitConfig`` from options by name and from ``name=value`` pairs; options that are None keep their default.

    Raises:
        UserError: an option that ``fit`` does not have, or that the experiment varies by itself.
    """
    types = {field.name: field for field in fields(FitConfig)}
    values = {name: value for name, value in named.items() if value is not None}
    for pair in more:
        name, given, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not given or name not in types or name in ("cache", *VARIED):
            free = sorted(types.keys() - {"cache", *VARIED})
            raise UserError(f"--set {pair}: give name=value, where name is one of {', '.join(free)}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        values[name] = tuple(value) if isinstance(value, list) else value
    return FitConfig(cache=cache, device=device, **values)


def method_config(setup: Setup, method: str) -> FitConfig:
    """The options of a method: a variant of the head, or a U-Net, which shares nothing with it but the data."""
    base = setup.base
    if method not in UNETS:
        return replace(base, variant=method)
    return FitConfig(
        cache=base.cache,
        model="unet",
        protocol=base.protocol,
        recipe=None if method == "unet" else method,
        epochs=setup.unet_epochs,
        precision=base.precision,
        device=base.device,
    )


def check_methods(methods: Sequence[str], cache: FeatureCache) -> None:
    """Refuses a method that does not exist, is named twice, or needs texts that are not there.

    Raises:
        UserError: with the methods there are.
    """
    if not methods or len(set(methods)) < len(methods):
        raise UserError(f"--variants {','.join(methods)}: name at least one, and none twice")
    for method in methods:
        if method not in (*VARIANTS, *UNETS):
            raise UserError(f"--variants {method}: unknown; use some of {', '.join((*VARIANTS, *UNETS))}")
        if method not in UNETS:
            check_variant(method, cache)


def repetitions(setup: Setup, cache: FeatureCache, labels: int) -> list[tuple[int, int]]:
    """(draw, seed) of every fit with ``labels`` training images, the first seeds of all draws before the second ones.

    Seeds are 100 x draw + 0, 1, ...: never the same initial weights in two draws, so that draws are independent. Where
    all annotated images are drawn there is only one draw.

    Raises:
        UserError: numbers out of range, or fewer annotated training images than ``labels``.
    """
    if setup.draws < 1 or not 1 <= setup.seeds <= SEEDS_PER_DRAW:
        raise UserError(f"--draws {setup.draws} --seeds {setup.seeds}: at least 1 each, and at most 100 seeds")
    drawn, _ = draw_images(cache, labels, 0)
    everything, _ = draw_images(cache, None, 0)
    draws = 1 if len(drawn) == len(everything) else setup.draws
    return [(draw, SEEDS_PER_DRAW * draw + seed) for seed in range(setup.seeds) for draw in range(draws)]


def check_truth(truth: str) -> None:
    """Refuses a truth that scores are not compared with.

    Raises:
        UserError: with those there are.
    """
    if truth not in TRUTHS:
        raise UserError(f"--truth {truth}: unknown; use {', '.join(TRUTHS)}")


def conduct(
    path: Path, plan: Plan, cache: FeatureCache, device: str, processes: int | None, only: bool
) -> tuple[Experiment, list[str]]:
    """Writes the job list, or finds it, adds to it what is new, and does what is missing.

    Args:
        path: the experiment's directory.
        plan: what it consists of.
        cache: of all its runs.
        device: to compute on.
        processes: how many at a time; None for as many as there is room for.
        only: do nothing, the table alone is wanted.

    Returns:
        The experiment, and what went wrong, one line for each failure; the other jobs are done nevertheless.

    Raises:
        UserError: the experiment was begun with other options, or has not been begun when the table alone is wanted.
        KeyboardInterrupt: stopped; the next call goes on.
    """
    if only:
        open_experiment(path)
        return plan_experiment(path, plan, cache, 1, grow=False), []
    scored_rows(cache, plan.split)
    room = choose_processes(device, processes)
    begun = (path / FILE).exists()
    groups = len({job.group for job in plan.jobs})
    # PyTorch's number is that of the cores, or OMP_NUM_THREADS.
    threads = max(1, torch.get_num_threads() // min(room, groups))
    experiment = plan_experiment(path, plan, cache, threads)
    if begun:
        console.info(f"{path}: going on")
    return experiment, run_experiment(experiment, room)
