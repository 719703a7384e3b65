"""``textdiff fit``"""

__all__ = ["fit"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import RUNS, Device, integers
from textdiff.errors import UserError


def fit(
    cache: Annotated[
        Path | None, typer.Option(help="The feature cache to fit on; with --resume, if it was moved.")
    ] = None,
    labels: Annotated[int | None, typer.Option(help="Number of training images to draw; all by default.")] = None,
    model: Annotated[
        str, typer.Option(help="textdiff, or unet: a plain U-Net on the images, to compare with.")
    ] = "textdiff",
    seed: Annotated[int, typer.Option(help="Of the draw, the weights, the order.")] = 0,
    draw_seed: Annotated[int | None, typer.Option(help="Of the draw alone; --seed by default.")] = None,
    ensemble: Annotated[int | None, typer.Option(help="Fit so many with seeds from --seed on; use their mean.")] = None,
    variant: Annotated[str, typer.Option(help="full, no-text, concat, shuffled-text, constant-text.")] = "full",
    protocol: Annotated[str, typer.Option(help="clean, or paper: the loss and epochs of the paper's code.")] = "clean",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="reference (the paper's), light, light-long (small backbones); with --model unet: unet, unet-own, "
            "unet-instance. By default what suits the cache."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images; the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam; the recipe's.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="step: a tenth from --decay-epoch on; cosine; the recipe's.")
    ] = None,
    decay_epoch: Annotated[int | None, typer.Option(help="See --schedule.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per optimiser step; the recipe's.")] = None,
    select: Annotated[
        str | None, typer.Option(help="Which weights are kept: best (on validation) or last; the recipe's.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Pixels of the random square that a step is made on; 0: whole; the recipe's.")
    ] = None,
    validate_every: Annotated[int | None, typer.Option(help="Validate every so many epochs; the recipe's.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the attention block.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Blocks of the cache to read, as in 8,12; all by default.")] = None,
    steps: Annotated[str | None, typer.Option(help="Diffusion steps of the cache; all by default.")] = None,
    dice_weight: Annotated[float, typer.Option(help="Of the Dice loss beside the cross-entropy.")] = 1.5,
    patience: Annotated[int | None, typer.Option(help="Stop early after so many epochs without gain.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are made.")] = RUNS,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped fit, with its own options.")] = False,
    run: Annotated[Path | None, typer.Option(help="With --resume: which run; the latest by default.")] = None,
) -> None:
    """Stage two: train the cross-attention and the pixel classifier, or a U-Net beside them, from a cache."""
    from textdiff.pipeline.fit import FitConfig
    from textdiff.pipeline.fit import fit as run_fit
    from textdiff.pipeline.fit import resume as run_resume
    from textdiff.pipeline.runs import find_run

    if resume:
        path = run_resume(find_run(run, runs), device if device != "auto" else None, cache)
    elif cache is None:
        raise UserError("--cache is missing: name the cache that `textdiff extract` made, or --resume a stopped fit")
    else:
        path = run_fit(
            FitConfig(
                cache=cache,
                labels=labels,
                model=model,
                seed=seed,
                draw_seed=draw_seed,
                ensemble=ensemble,
                variant=variant,
                protocol=protocol,
                recipe=recipe,
                epochs=epochs,
                learning_rate=learning_rate,
                schedule=schedule,
                decay_epoch=decay_epoch,
                batch_size=batch_size,
                select=select,
                window=window,
                validate_every=validate_every,
                width=width,
                blocks=integers("--blocks", blocks) if blocks else None,
                steps=integers("--steps", steps) if steps else None,
                dice_weight=dice_weight,
                patience=patience,
                precision=precision,
                device=device,
            ),
            runs,
        )
    print(path)
