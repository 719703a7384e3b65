"""``textdiff extract``"""

__all__ = ["extract"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff import console
from textdiff.commands.options import Device, integers, shard_of
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
from textdiff.pipeline.presets import PRESETS
from textdiff.readers.options import ReadOptions


def extract(
    dataset: Annotated[str, typer.Option(help=f"Data set: {', '.join(PRESETS)}.")],
    preset: Annotated[
        str,
        typer.Option(
            help="paper; nano: nano-he, minilm, steps 0,50,150,250, 8 views, for monuseg --jitter he; rgb: the same "
            "without a network, the image and blurs of it at step 0, for comparison."
        ),
    ] = "paper",
    data: Data = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where to store; by default cache/<dataset>.zarr, named after --data for your own data."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="adm-256, nano-he, rgb (no network), or a checkpoint file.")
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="clinical-biobert, minilm, none, a hub id or a directory.")
    ] = None,
    blocks: Annotated[str | None, typer.Option(help="Decoder blocks, as in 6,8,12,16, or all.")] = None,
    steps: Annotated[str | None, typer.Option(help="Diffusion steps, as in 50,150,250.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width in pixels.")] = None,
    tile: Annotated[
        int | None, typer.Option(help="Cut images into tiles of this side in pixels; not cut by default.")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Pixels that tiles share; an eighth of --tile by default.")
    ] = None,
    views: Annotated[
        int | None, typer.Option(help="1, or 8: also the symmetries of training images; with --jitter 16, 24 ... too.")
    ] = None,
    test_views: Annotated[
        int, typer.Option(help="1, or 8: those of validation and test images too; score then takes the mean.")
    ] = 1,
    jitter: Annotated[
        str | None,
        typer.Option(help="he, cxr or none: vary the colours of all views of a training image but the first."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the shared noise, and of splits that are drawn.")] = 0,
    protocol: Annotated[str, typer.Option(help="clean, or paper: as the paper's code does it.")] = "clean",
    dtype: Annotated[str, typer.Option(help="Stored precision: float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="Computing: auto, float32, bfloat16.")] = "auto",
    device: Device = "auto",
    shard: Annotated[str, typer.Option(help="i/n: this process does every n-th row from the i-th.")] = "0/1",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache that is there.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="The data set has changed: keep the rows that still hold, make the others.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad images instead of stopping.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    classes: Classes = None,
    instances: Instances = False,
    val: Val = None,
    test: Test = None,
    h5_images: H5Images = "images",
    h5_masks: H5Masks = None,
    h5_texts: H5Texts = None,
    h5_split: H5Split = None,
    h5_group: H5Group = None,
) -> None:
    """Stage one: run the frozen UNet once per image and cache its activations. Continues where it was stopped."""
    from textdiff.pipeline.defaults import extract_config
    from textdiff.pipeline.extract import extract as run_extract

    config = extract_config(
        dataset,
        preset=preset,
        data=data,
        cache=cache,
        backbone=backbone,
        text_encoder=text_encoder,
        blocks="all" if blocks == "all" else integers("--blocks", blocks) if blocks else None,
        steps=integers("--steps", steps) if steps else None,
        image_size=image_size,
        tile=tile,
        overlap=overlap,
        views=views,
        test_views=test_views,
        jitter=jitter,
        seed=seed,
        protocol=protocol,
        dtype=dtype,
        precision=precision,
        device=device,
        shard=shard_of(shard),
        overwrite=overwrite,
        update=update,
        skip_bad=skip_bad,
        dry_run=dry_run,
        reading=ReadOptions(
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
        ),
    )
    result = run_extract(config)
    if not result.pending() and not dry_run:
        console.info(f"next: textdiff fit --cache {result.path}")
