"""``textdiff pretrain``"""

__all__ = ["pretrain"]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import Device


def pretrain(
    images: Annotated[Path, typer.Option(help="Directory of unlabelled images.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    config: Annotated[str, typer.Option(help="nano, small or adm-256.")] = "nano",
    init: Annotated[Path | None, typer.Option(help="Checkpoint to fine-tune.")] = None,
    modality: Annotated[str, typer.Option(help="he, cxr or none: how colours are varied.")] = "he",
    crop: Annotated[int, typer.Option(help="Side of the training crops in pixels.")] = 128,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(help="Smallest and largest reduction, as in 0.22 0.5.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    optimiser: Annotated[str, typer.Option(help="adamw or adam.")] = "adamw",
    schedule: Annotated[str, typer.Option(help="constant or cosine.")] = "constant",
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 500,
    ema: Annotated[float, typer.Option(help="Largest decay of the averaged weights.")] = 0.9999,
    loss: Annotated[str, typer.Option(help="hybrid (learned variance) or mse.")] = "hybrid",
    t_max: Annotated[int, typer.Option(help="Train on time steps below this.")] = 1000,
    steps: Annotated[int, typer.Option(help="Optimiser steps in all.")] = 100_000,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which to finish with what there is.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Threads that prepare crops.")] = None,
    eval_every: Annotated[int, typer.Option(help="Steps between held-out losses.")] = 500,
    samples: Annotated[int, typer.Option(help="Pictures on the contact sheet.")] = 8,
    half: Annotated[bool, typer.Option("--half", help="Write float16 weights.")] = False,
    data_licence: Annotated[str, typer.Option(help="Licence of the images, for the metadata.")] = "",
    device: Device = "auto",
) -> None:
    """Train a backbone on your own unlabelled images; extract --backbone takes the result."""
    from textdiff.pipeline.pretrain import pretrain as run_pretrain
    from textdiff.pipeline.pretraining.config import PretrainConfig

    path = run_pretrain(
        PretrainConfig(
            images=str(images),
            out=str(out),
            config=config,
            init=None if init is None else str(init),
            modality=modality,
            crop=crop,
            scale=scale,
            batch=batch,
            lr=lr,
            optimiser=optimiser,
            schedule=schedule,
            warmup=warmup,
            ema=ema,
            loss=loss,
            t_max=t_max,
            steps=steps,
            time_limit=time_limit,
            seed=seed,
            precision=precision,
            workers=workers,
            eval_every=eval_every,
            samples=samples,
            half=half,
            data_licence=data_licence,
            device=device,
        )
    )
    print(path)
