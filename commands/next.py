"""``textdiff next``"""

__all__ = ["next_image"]

import json
from pathlib import Path
from typing import Annotated

import typer

from textdiff import console
from textdiff.commands.options import RUNS, AsJson, Device, RunOption


def next_image(
    run: RunOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many are printed; all are in next.csv.")] = 10,
    cache: Annotated[Path | None, typer.Option(help="The run's cache, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """Which image to annotate next: those the run was not fitted on, the least certain first."""
    from textdiff.pipeline.prediction.ranking import format_ranking, rank
    from textdiff.pipeline.runs import find_run

    ranking = rank(find_run(run, runs), cache_path=cache, device=device)
    shown = ranking.candidates[:top]
    print(json.dumps([line._asdict() for line in shown], indent=2) if as_json else format_ranking(shown))
    console.info(f"wrote {ranking.file}: all {len(ranking.candidates)} candidates")
    console.info("once some have their mask in the data set: the same textdiff extract with --update, then fit again")
