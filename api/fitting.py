"""Stage two as functions."""

__all__ = ["fit", "resume"]

from collections.abc import Sequence
from pathlib import Path

from textdiff.api.opening import AnyPath, cache_path, open_run
from textdiff.cache import FeatureCache
from textdiff.pipeline import fit as fit_stage
from textdiff.pipeline.fit import FitConfig
from textdiff.pipeline.runs import Run


def fit(
    cache: FeatureCache | AnyPath,
    *,
    labels: int | None = None,
    model: str = "textdiff",
    seed: int = 0,
    draw_seed: int | None = None,
    ensemble: int | None = None,
    variant: str = "full",
    protocol: str = "clean",
    recipe: str | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    decay_epoch: int | None = None,
    batch_size: int | None = None,
    select: str | None = None,
    window: int | None = None,
    validate_every: int | None = None,
    width: int | None = None,
    blocks: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    dice_weight: float = 1.5,
    patience: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    runs: AnyPath = "runs",
) -> Run:
    """Stage two: trains the cross-attention and the pixel classifier, or a U-Net beside them, from a cache.

    Args:
        cache: what ``extract`` returned, or its path.
        labels: number of training images to draw; all by default.
        model: ``textdiff``, or ``unet``, a plain U-Net on the images, to compare with.
        seed: of the draw, the initial weights and the order.
        draw_seed: of the draw alone; ``seed`` by default.
        ensemble: fit so many, with seeds from ``seed`` on, and use their mean.
        variant: ``full``, ``no-text``, ``concat``, ``shuffled-text`` or ``constant-text``.
        protocol: ``clean``, or ``paper`` for the loss and the epochs of the paper's code.
        recipe: ``reference`` (the paper's), ``light`` or ``light-long`` (small backbones), ``unet``,
            ``unet-own`` or ``unet-instance``; by the model and the cache's backbone.
        epochs: passes over the training images; the recipe's by default, like the next seven.
        learning_rate: of Adam.
        schedule: ``step``, a tenth from ``decay_epoch`` on, or ``cosine``.
        decay_epoch: see ``schedule``.
        batch_size: images per optimiser step.
        select: which weights are kept, ``best`` on validation or ``last``.
        window: side in pixels of the random square of an image that a step is made on; 0 for the whole image.
        validate_every: epochs from one validation to the next.
        width: channels of the attention block; by the backbone's width.
        blocks: of the cache's blocks those to read; all by default.
        steps: of its diffusion steps those to read; all by default.
        dice_weight: of the Dice loss beside the cross-entropy.
        patience: stop after so many epochs without a better validation Dice; never by default.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: the directory in which the run's own is made.

    Returns:
        The finished run.

    Raises:
        UserError: bad options, or a cache that cannot be fitted.
        KeyboardInterrupt: stopped; ``resume`` goes on from the last checkpoint.
    """
    config = FitConfig(
        cache=cache_path(cache),
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
        blocks=None if blocks is None else tuple(blocks),
        steps=None if steps is None else tuple(steps),
        dice_weight=dice_weight,
        patience=patience,
        precision=precision,
        device=device,
    )
    return Run(fit_stage.fit(config, Path(runs)))


def resume(
    run: Run | AnyPath | None = None,
    *,
    device: str | None = None,
    cache: FeatureCache | AnyPath | None = None,
    runs: AnyPath = "runs",
) -> Run:
    """Goes on with a fit that was stopped, with its own options, to the weights it would have had.

    ``cache`` says where the run's cache is now, if it was moved.

    Raises:
        UserError: no such run, it is finished already, or its cache is not as it was.
    """
    return Run(fit_stage.resume(open_run(run, runs=runs), device, None if cache is None else cache_path(cache)))
