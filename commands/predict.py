"""``textdiff predict``"""

__all__ = ["predict"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import RUNS, Device, RunOption


def predict(
    image: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")],
    text: Annotated[str, typer.Option(help="The text that comes with the images.")] = "",
    run: RunOption = None,
    out: Annotated[Path, typer.Option(help="Where the masks are written.")] = Path("predictions"),
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the probability too.")] = False,
    entropy: Annotated[bool, typer.Option("--entropy", help="Write the entropy map too.")] = False,
    backbone: Annotated[str | None, typer.Option(help="The run's backbone, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
) -> None:
    """Segment images with a fitted run: mask PNGs at the original size."""
    from textdiff.pipeline.predict import predict_files
    from textdiff.pipeline.runs import find_run

    for path in predict_files(
        find_run(run, runs),
        image,
        text,
        out,
        with_probabilities=probabilities,
        with_entropy=entropy,
        backbone=backbone,
        device=device,
    ):
        print(path)
