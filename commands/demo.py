"""``textdiff demo``"""

__all__ = ["demo"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import Device


def demo(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("textdiff-demo"),
    device: Device = "auto",
) -> None:
    """Extract, fit and score synthetic tissue with what is in the package: minutes, no download, no data needed."""
    from textdiff.pipeline.demo import demo as run_demo

    result = run_demo(out, device)
    print(result.table)
    print(f"\nthe report is {result.report}, the overlays are {result.overlay}")
