"""``textdiff ablate``"""

__all__ = ["ablate"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.experiment_options import (
    BatchSize,
    CacheOption,
    Draws,
    Epochs,
    Jobs,
    LearningRate,
    Name,
    Seeds,
    SetOption,
    Split,
    TableOnly,
    Truth,
    UnetEpochs,
    present,
)
from textdiff.commands.options import RUNS, AsJson, Device


def ablate(
    cache: CacheOption,
    labels: Annotated[int, typer.Option(help="Training images in each draw.")] = 5,
    draws: Draws = 5,
    seeds: Seeds = 3,
    variants: Annotated[str | None, typer.Option(help="Some of them, as in full,no-text; all by default.")] = None,
    unet: Annotated[bool, typer.Option("--unet/--no-unet", help="Rows unet and unet-own, for comparison.")] = True,
    against: Annotated[str | None, typer.Option(help="The variant that differences are taken to; the first.")] = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    set_: SetOption = None,
    unet_epochs: UnetEpochs = None,
    split: Split = "test",
    truth: Truth = "clean",
    device: Device = "auto",
    jobs: Jobs = None,
    name: Name = None,
    runs: Annotated[Path, typer.Option(help="Where experiments are made.")] = RUNS,
    table_only: TableOnly = False,
    as_json: AsJson = False,
) -> None:
    """The paper's table 2: every variant on the same draws, with paired differences, intervals. Resumes by itself."""
    from textdiff.experiments.ablate import ablate as run_ablate
    from textdiff.experiments.setup import Setup, configure

    named = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    setup = Setup(configure(cache, device, named, set_ or ()), draws, seeds, split, unet_epochs)
    outcome = run_ablate(
        runs / f"ablate-{name or cache.stem}",
        setup,
        labels=labels,
        variants=variants.split(",") if variants else None,
        unet=unet,
        truth=truth,
        against=against,
        processes=jobs,
        table_only=table_only,
    )
    present(outcome, as_json)
