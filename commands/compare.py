"""``textdiff compare``"""

__all__ = ["compare"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.experiment_options import Truth, present
from textdiff.commands.options import AsJson


def compare(
    experiments: Annotated[list[Path], typer.Argument(help="Directories that ablate or curve made.")],
    variants: Annotated[str | None, typer.Option(help="Some of the rows, as in no-text,unet; all by default.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Row that differences are taken to, as no-text@ablate-monuseg; repeatable; the first."),
    ] = None,
    truth: Truth = "clean",
    out: Annotated[Path | None, typer.Option(help="Also write OUT.md, .tex, .csv, .json, .png and .pdf.")] = None,
    as_json: AsJson = False,
) -> None:
    """Several experiments in one table, with paired differences: does this backbone, or this recipe, help?"""
    from textdiff.experiments.compare import compare as run_compare

    outcome = run_compare(
        experiments,
        variants=variants.split(",") if variants else None,
        truth=truth,
        against=against or (),
        out=out,
    )
    present(outcome, as_json)
