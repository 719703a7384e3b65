"""``textdiff sweep``"""

__all__ = ["sweep"]

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
    present,
)
from textdiff.commands.options import RUNS, AsJson, Device, integers


def sweep(
    cache: CacheOption,
    blocks: Annotated[str | None, typer.Option(help="Decoder blocks; all of the cache's by default.")] = None,
    steps: Annotated[str | None, typer.Option(help="Diffusion steps; all of the cache's by default.")] = None,
    labels: Annotated[int, typer.Option(help="Training images in each draw.")] = 5,
    draws: Draws = 1,
    seeds: Seeds = 1,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    set_: SetOption = None,
    split: Split = "test",
    truth: Truth = "clean",
    device: Device = "auto",
    jobs: Jobs = None,
    name: Name = None,
    runs: Annotated[Path, typer.Option(help="Where experiments are made.")] = RUNS,
    table_only: TableOnly = False,
    as_json: AsJson = False,
) -> None:
    """The paper's figure 3: Dice of each decoder block at each step, with and without text. Resumes by itself."""
    from textdiff.experiments.setup import Setup, configure
    from textdiff.experiments.sweep import sweep as run_sweep

    named = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    outcome = run_sweep(
        runs / f"sweep-{name or cache.stem}",
        Setup(configure(cache, device, named, set_ or ()), draws, seeds, split),
        labels=labels,
        blocks=integers("--blocks", blocks) if blocks else None,
        steps=integers("--steps", steps) if steps else None,
        truth=truth,
        processes=jobs,
        table_only=table_only,
    )
    present(outcome, as_json)
