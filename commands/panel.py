"""``textdiff panel``"""

__all__ = ["panel"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff import console
from textdiff.commands.options import Device


def panel(
    runs: Annotated[list[Path], typer.Option("--runs", help="Run directories: --runs A B C.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="B C ...", help="More run directories.")] = None,
    out: Annotated[Path, typer.Option(help="The picture: .png, .pdf or .svg.")] = Path("panel.png"),
    rule: Annotated[
        str, typer.Option(help="extremes: best to worst of the first run; disagreement: Dice furthest apart.")
    ] = "extremes",
    images: Annotated[int, typer.Option(help="How many; 3 are the best, the median and the worst.")] = 3,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    device: Device = "auto",
) -> None:
    """The paper's figure 2: image, text, truth and each run's errors in colour, for images chosen by rule."""
    from textdiff.experiments.panel import panel as run_panel
    from textdiff.pipeline.runs import find_run

    found = [find_run(path, path.parent) for path in (*runs, *(more or ()))]
    run_panel(found, out, split=split, rule=rule, count=images, device=device)
    console.info(f"wrote {out}")
