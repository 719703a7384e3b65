"""``textdiff curve``"""

__all__ = ["curve"]

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
from textdiff.commands.options import RUNS, AsJson, Device, integers


def curve(
    cache: CacheOption,
    labels: Annotated[str, typer.Option(help="Numbers of training images.")] = "1,2,5,10,24",
    draws: Draws = 5,
    seeds: Seeds = 1,
    variants: Annotated[
        str, typer.Option(help="Variants and U-Nets; differences are to the first.")
    ] = "full,no-text,unet,unet-own",
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
    """The learning curve: Dice against the number of training images, with intervals. Resumes by itself."""
    from textdiff.experiments.curve import curve as run_curve
    from textdiff.experiments.setup import Setup, configure

    named = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    setup = Setup(configure(cache, device, named, set_ or ()), draws, seeds, split, unet_epochs)
    outcome = run_curve(
        runs / f"curve-{name or cache.stem}",
        setup,
        labels=integers("--labels", labels),
        methods=variants.split(","),
        truth=truth,
        processes=jobs,
        table_only=table_only,
    )
    present(outcome, as_json)
