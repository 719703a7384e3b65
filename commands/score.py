"""``textdiff score``"""

__all__ = ["score"]

import json
from pathlib import Path
from typing import Annotated

import typer

from textdiff import console
from textdiff.commands.options import RUNS, AsJson, Device, RunOption


def score(
    run: RunOption = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    cache: Annotated[Path | None, typer.Option(help="The run's cache, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """Dice and IoU with intervals, beside the paper's; per-image scores and overlays into the run directory."""
    from textdiff.pipeline.runs import find_run
    from textdiff.pipeline.score import score as run_score

    result = run_score(find_run(run, runs), split=split, cache_path=cache, device=device)
    print(json.dumps(result.summary, indent=2) if as_json else result.table)
    for file in result.files:
        console.info(f"wrote {file}")
