"""``textdiff score``"""

__all__ = ["score"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff import console
from textdiff.commands.options import RUNS, AsJson, Device, RunOption


def score(
    run: RunOption = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    cache: Annotated[Path | None, typer.Option(help="The run's cache, if it was moved.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="dice, iou, aji, pq, dq, sq, f1, hd95, nsd, with commas; dice,iou,aji,pq,f1 by default."),
    ] = None,
    instances: Annotated[str, typer.Option(help="Objects of the prediction: components or watershed.")] = "components",
    min_area: Annotated[int, typer.Option(help="Leave out smaller predicted objects, in pixels.")] = 0,
    tolerance: Annotated[float, typer.Option(help="Of nsd, the surface Dice, in pixels.")] = 2.0,
    text: Annotated[
        str | None, typer.Option(help='Give every image this text instead of its own; "" for none: docs/texts.md.')
    ] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """Dice, IoU and object metrics with intervals, beside the paper's; scores and overlays into the run directory."""
    from textdiff.pipeline.evaluation.object_scores import parse_metrics
    from textdiff.pipeline.runs import find_run
    from textdiff.pipeline.score import score as run_score

    found = find_run(run, runs)
    result = run_score(
        found,
        split=split,
        cache_path=cache,
        device=device,
        metrics=None if metrics is None else parse_metrics(metrics),
        instances=instances,
        min_area=min_area,
        tolerance=tolerance,
        text=text,
    )
    print(result.json.rstrip() if as_json else result.table)
    for file in result.files:
        console.info(f"wrote {file}")
    of_split = "" if split == "test" else f" --split {split}"
    if text is None:
        console.info(f"next: textdiff report {found.path}{of_split}")
    elif result.summary["differences"] is None:
        console.info(f"to see the difference: textdiff score --run {found.path}{of_split}, and this command again")
