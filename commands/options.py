"""Options that several commands share, and how their values are read."""

__all__ = ["RUNS", "AsJson", "Device", "RunOption", "integers", "shard_of"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.errors import UserError

RUNS = Path("runs")

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory; the latest one by default.")]


def integers(option: str, value: str) -> tuple[int, ...]:
    """Whole numbers with commas between.

    Raises:
        UserError: ``value`` is not that.
    """
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise UserError(f"{option} {value}: give whole numbers with commas between, as in 6,8,12,16") from None


def shard_of(value: str) -> tuple[int, int]:
    """``i/n`` as two numbers.

    Raises:
        UserError: ``value`` is not that.
    """
    try:
        index, count = (int(part) for part in value.split("/"))
    except ValueError:
        raise UserError(f"--shard {value}: give i/n, as in 0/4 for the first of four processes") from None
    return index, count
