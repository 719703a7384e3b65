"""``textdiff report``"""

__all__ = ["report"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import RUNS, Device


def report(
    run: Annotated[Path | None, typer.Argument(help="Run directory; the latest one by default.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test; as scored.")] = "test",
    images: Annotated[int, typer.Option(help="How many images are shown at most, best to worst.")] = 40,
    out: Annotated[Path | None, typer.Option(help="The file; report.html in the run by default.")] = None,
    cache: Annotated[Path | None, typer.Option(help="The run's cache, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
) -> None:
    """A scored run as one HTML file: scores, curves, every image with its prediction and uncertainty."""
    from textdiff.pipeline.reporting.report import write_report
    from textdiff.pipeline.runs import find_run

    print(write_report(find_run(run, runs), split=split, limit=images, out=out, cache_path=cache, device=device))
