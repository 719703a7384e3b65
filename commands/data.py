"""``textdiff data check``"""

__all__ = ["data_check"]

import json
from typing import Annotated

import typer

from textdiff.commands.options import AsJson
from textdiff.commands.reading import (
    Classes,
    Data,
    H5Group,
    H5Images,
    H5Masks,
    H5Split,
    H5Texts,
    Instances,
    Test,
    Val,
    names,
)
from textdiff.errors import UserError
from textdiff.pipeline.presets import PRESETS
from textdiff.readers.options import ReadOptions


def data_check(
    dataset: Annotated[str, typer.Option(help=f"Data set: {', '.join(PRESETS)}.")],
    data: Data = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Whose tokens to count, if it is on this machine; that of the data set by default."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Look at it as extract --tile does, which takes TIFFs of any size.")
    ] = None,
    classes: Classes = None,
    instances: Instances = False,
    val: Val = None,
    test: Test = None,
    seed: Annotated[int, typer.Option(help="Seed of splits that are drawn.")] = 0,
    h5_images: H5Images = "images",
    h5_masks: H5Masks = None,
    h5_texts: H5Texts = None,
    h5_split: H5Split = None,
    h5_group: H5Group = None,
    as_json: AsJson = False,
) -> None:
    """Look through a data set before anything is computed. Status 1 if something is wrong with it."""
    preset = PRESETS.get(dataset)
    if preset is None:
        raise UserError(f"--dataset {dataset}: unknown; use one of {', '.join(PRESETS)}")
    options = ReadOptions(
        classes=names("--classes", classes),
        instances=instances,
        val=val,
        test=test,
        seed=seed,
        h5_images=h5_images,
        h5_masks=h5_masks,
        h5_texts=h5_texts,
        h5_split=h5_split,
        h5_group=h5_group,
    )
    from textdiff.pipeline.check import check_dataset
    from textdiff.pipeline.locations import find_data

    check = check_dataset(dataset, data or find_data(dataset), options, text_encoder or preset.text_encoder, tile)
    print(json.dumps(check.as_json(), indent=2, ensure_ascii=False) if as_json else check.table())
    if not check.sound:
        raise typer.Exit(1)
