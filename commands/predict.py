"""``textdiff predict``"""

__all__ = ["predict"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import RUNS, Device, RunOption


def predict(
    image: Annotated[
        list[Path] | None, typer.Argument(help="Image files and directories of images.", metavar="[IMAGE|DIR]...")
    ] = None,
    text: Annotated[str, typer.Option(help="The text of images that have none of their own.")] = "",
    list_file: Annotated[
        Path | None, typer.Option("--list", help="A file of paths, or a table (CSV, Excel ...) of image and text.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Segment the images of a data set that have no mask.")] = None,
    data: Annotated[Path | None, typer.Option(help="The directory of --dataset.")] = None,
    run: RunOption = None,
    out: Annotated[Path, typer.Option(help="Where the results are written.")] = Path("predictions"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Beside PNG: geojson, ome-zarr, nifti, roi; repeat, or use commas."),
    ] = None,
    instances: Annotated[
        str | None, typer.Option(help="components or watershed (splits touching objects); also writes object maps.")
    ] = None,
    min_area: Annotated[int, typer.Option(help="Leave out smaller objects, in pixels.")] = 0,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the probability too.")] = False,
    entropy: Annotated[bool, typer.Option("--entropy", help="Write the entropy map too.")] = False,
    disagreement: Annotated[
        bool, typer.Option("--disagreement", help="Write the disagreement of an ensemble's members too.")
    ] = False,
    views: Annotated[int, typer.Option(help="1, or 8: the mean over the symmetries, for eight times the time.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do images again that are done.")] = False,
    backbone: Annotated[str | None, typer.Option(help="The run's backbone, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
) -> None:
    """Segment images with a fitted run: masks at the original size, objects as tables and in other tools' formats."""
    from textdiff.pipeline.prediction.batch import Wanted, predict_all
    from textdiff.pipeline.prediction.inputs import gather
    from textdiff.pipeline.runs import find_run

    inputs = gather(image or [], text, list_file=list_file, dataset=dataset, data=data, without=out)
    kinds = tuple(kind.strip() for value in formats or () for kind in value.split(","))
    wanted = Wanted(kinds, instances, min_area, probabilities, entropy, disagreement, views)
    for path in predict_all(
        find_run(run, runs), inputs, out, wanted, overwrite=overwrite, backbone=backbone, device=device
    ):
        print(path)
