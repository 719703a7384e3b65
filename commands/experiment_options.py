"""Options that ablate, sweep and curve share, and what they do with them."""

__all__ = [
    "BatchSize",
    "CacheOption",
    "Draws",
    "Epochs",
    "Jobs",
    "LearningRate",
    "Name",
    "Seeds",
    "SetOption",
    "Split",
    "TableOnly",
    "Truth",
    "UnetEpochs",
    "present",
]

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textdiff import console
from textdiff.errors import UserError

if TYPE_CHECKING:
    from textdiff.experiments.tables import Outcome

CacheOption = Annotated[Path, typer.Option("--cache", help="The feature cache to fit on.")]
Name = Annotated[str | None, typer.Option(help="Of the experiment's directory; the cache's by default.")]
Draws = Annotated[int, typer.Option(help="Draws of training images.")]
Seeds = Annotated[int, typer.Option(help="Fits for each draw, with different weights and orders.")]
Split = Annotated[str, typer.Option(help="Images to score on: test, or val to choose by.")]
Truth = Annotated[str, typer.Option(help="clean, paper or original: what the table is measured by.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images; as in fit.")]
LearningRate = Annotated[float | None, typer.Option(help="As in fit.")]
BatchSize = Annotated[int | None, typer.Option(help="As in fit.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other option of fit, as in --set width=96; repeatable.")
]
UnetEpochs = Annotated[int | None, typer.Option(help="Of the U-Nets; other options are the heads' alone.")]
Jobs = Annotated[int | None, typer.Option(help="Processes at a time; as many as there is room for by default.")]
TableOnly = Annotated[bool, typer.Option("--table-only", help="Only rebuild the table from what has finished.")]


def present(outcome: "Outcome", as_json: bool) -> None:
    """Prints the table, and says where the files are.

    Raises:
        UserError: a job failed.
    """
    print(json.dumps(outcome.summary, indent=2) if as_json else outcome.text)
    for file in outcome.files:
        console.info(f"wrote {file}")
    for failure in outcome.failures:
        console.warn(failure)
    if outcome.failures:
        raise UserError("not all jobs could be done, see the warnings above; the table is of the others")
