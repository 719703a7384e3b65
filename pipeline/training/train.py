"""The training loop of stage two, with checkpoints that resume to the very same weights."""

__all__ = ["say_plan", "train_many"]

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import tee, zip_longest
from typing import Any

import torch

from textdiff import console
from textdiff.cache import FeatureCache, Loader
from textdiff.errors import UserError
from textdiff.models.device import describe_device
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.fit import MEAN_TEACHER
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.epochs import order_of, rows_by_tile
from textdiff.pipeline.training.labelled import Labelled
from textdiff.pipeline.training.self_training import soft_labels
from textdiff.pipeline.training.trainer import Trainer
from textdiff.pipeline.training.unlabelled import Unlabelled


def train_many(
    runs: Sequence[tuple[Run, Segmenter]], cache: FeatureCache, device: torch.device, loader: Loader | None = None
) -> None:
    """Trains networks as their runs' ``config`` says, from their last checkpoints if there are any.

    Leaves ``head.safetensors``, the weights selected, and ``log.csv``, a line per epoch, in each run directory. Several
    are trained side by side in one pass over the cache, each exactly as it would be alone: every row is read once for
    all of them. The runs see the same images in the same order, that is, they share the training images and the seed;
    all else may differ. A network's step follows the other's, so activations of one at a time are held in memory.

    Args:
        runs: with the networks as they are before the first step.
        cache: of all runs.
        device: to compute on.
        loader: a reader of all blocks and steps that the networks read, with what it keeps in memory already; by
            default the first network's own.

    Raises:
        UserError: a loss is no longer finite; the other runs are finished first.
        ValueError: the runs do not share their images and seed.
    """
    first, network = runs[0]
    if any(_images(run, other) != _images(first, network) for run, other in runs):
        raise ValueError("runs side by side need the same training and validation images and the same seed")
    rows = rows_by_tile(cache)
    seed = first.config["fit"]["seed"]
    views = slice(None) if network.cached_views else slice(1)
    labelled = Labelled(cache, first.config["fit"])
    # A step on a tile of which nothing is said would be one on nothing.
    tiles = [tile for name in first.config["train_ids"] for tile in rows[name] if labelled.has(tile[0])]
    training = [tile[views] for tile in tiles]
    validation = [tile[0] for name in first.config["val_ids"] for tile in rows[name]]
    loader = loader or network.loader(cache, device)

    _make_deterministic(device)
    unlabelled = [_unlabelled(run, cache, device) for run, _ in runs]
    more = unlabelled[0]
    rows_shown = len(training) + (more.in_epoch(len(training)) if more else 0)
    fits = [
        Trainer(run, network, cache, loader, device, rows_shown, own)
        for (run, network), own in zip(runs, unlabelled, strict=True)
    ]
    if len(fits) == 1 and not fits[0].over:
        say_plan(fits[0], training, len(validation))
    total = max(fit.options["epochs"] for fit in fits)
    failed: list[UserError] = []
    with console.Progress(total, "fit", "epochs", done=min(fit.state.epoch for fit in fits)) as progress:
        while going := [fit for fit in fits if not fit.over]:
            start = time.perf_counter()
            epoch = min(fit.state.epoch for fit in going)
            # After a kill some checkpoints are older than others: those catch up first.
            turn = [fit for fit in going if fit.state.epoch == epoch]
            order = more.order(training, views, seed, epoch) if more else order_of(training, seed, epoch)
            with closing(loader.epoch(order)) as items:
                _in_step([fit.learn(own, seed) for fit, own in zip(turn, tee(items, len(turn)), strict=True)])
            if due := [fit for fit in turn if fit.due]:
                with closing(loader.epoch(validation)) as items:
                    _in_step([fit.validate(own) for fit, own in zip(due, tee(items, len(due)), strict=True)])
            # One pass for all: each has its share of the time, or their sum would be several times what it took.
            seconds = (time.perf_counter() - start) / len(turn)
            for fit in turn:
                try:
                    fit.close_epoch(seconds)
                except UserError as error:
                    failed.append(error)
                    fits.remove(fit)
            progress.advance(note=turn[0].note() if len(turn) == 1 else f"{len(turn)} networks side by side")
    for fit in fits:
        fit.finish(len(training))
    if failed:
        raise failed[0]


def _unlabelled(run: Run, cache: FeatureCache, device: torch.device) -> Unlabelled | None:
    """The images without labels that a run learns from; None if it does not."""
    if run.config["fit"]["unlabelled"] == MEAN_TEACHER:
        return Unlabelled(run, cache)
    return soft_labels(run, cache, device)


def _images(run: Run, network: Segmenter) -> tuple[Any, ...]:
    """What decides which rows an epoch has, and in which order."""
    options = run.config["fit"]
    pixels = (options["label_pixels"], options["draw_seed"]) if options.get("label_pixels") else None
    unlabelled = run.config["unlabelled"] and (
        run.config["unlabelled"]["images"],
        *(options[name] for name in ("unlabelled", "epochs", "batch_size")),
    )
    return run.config["train_ids"], run.config["val_ids"], options["seed"], network.cached_views, pixels, unlabelled


def _in_step(passes: Sequence[Iterator[None]]) -> None:
    """Advances all of them together, so that what they share need not be held for the slowest of them."""
    for _ in zip_longest(*passes):
        pass


def _make_deterministic(device: torch.device) -> None:
    """Asks CUDA for algorithms that repeat themselves; CPU kernels do so anyway for a fixed number of threads.

    Heads then give the same bits each time. Some networks of images have a layer of which PyTorch has no such form on
    CUDA, and says so (max pooling that overlaps): their fits resume to within rounding.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else every new tensor is filled first, in case someone reads what was never written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def say_plan(fit: Trainer, training: Sequence[Sequence[int]], validated: int) -> None:
    """Says what is fitted, how, on which images and where, and about how long it takes.

    Args:
        fit: what is going to be trained.
        training: the rows that hold the views of each training image, or of each of its tiles.
        validated: the number of validation rows.
    """
    config, options = fit.run.config, fit.options
    images, val_images = len(config["train_ids"]), len(config["val_ids"])
    views = max(map(len, training))
    selects = options["select"] == "best" and val_images
    with closing(fit.loader.epoch([training[0][0]])) as items:
        step = fit.estimate_seconds(next(items))
    count = f", {config['parameters']:,} parameters" if config["parameters"] else ""
    console.info(f"{fit.run.label}{count}; {describe_device(fit.device)}; {options['precision']}")
    if step is not None:
        optimiser = {"adam": "Adam", "sgd": "SGD"}[config["recipe"]["optimiser"]]
        epochs = console.counted(options["epochs"], "epoch")
        kept = "the epoch with the best validation Dice" if selects else "the last epoch"
        kept = "the running average of the weights" if options["select"] == "average" else kept
        console.info(
            f"recipe {options['recipe']}: {epochs}, {optimiser} at {options['learning_rate']:g} "
            f"({options['schedule']}), batches of {options['batch_size']}; "
            f"{kept} is kept"
        )
    console.info(
        f"{console.counted(images, 'training image')}{f' in {len(training)} tiles' if len(training) > images else ''}"
        f"{f', a random one of {views} views each time' if views > 1 else ''}; "
        f"{console.counted(val_images, 'validation image')}"
        f"{'' if selects or not val_images else ', which are watched and choose nothing'}"
    )
    _say_pixels(fit)
    more = fit.unlabelled.in_epoch(len(training)) if fit.unlabelled else 0
    if fit.unlabelled:
        count, parts = config["unlabelled"]["count"], len(fit.unlabelled.tiles)
        # Fewer than are shown are drawn with repeats.
        shown = f"{console.form(more, 'is', 'are')} {more} of" if more <= parts else f"are {more} draws of the"
        console.info(
            f"in each epoch there {shown} {f'{parts} tiles of ' if parts > count else ''}"
            f"{console.counted(count, 'image')} without labels, {fit.unlabelled.use}"
        )
    rows = len(training) * views + validated
    if (stay := fit.loader.staying(rows)) < rows:
        console.info(f"{stay} of {rows} rows stay in memory once read; the others are read anew in every epoch")
    if step is None:
        return
    left = options["epochs"] - fit.state.epoch
    # A forward pass alone is about a third of a step.
    forward = left / options["validate_every"] * validated + (left * more if fit.teacher else 0)
    rows = left * (len(training) + more) + forward / 3
    first, last = fit.state.epoch + 1, options["epochs"]
    span = f"epochs {first} to {last}" if first < last else f"epoch {last}"
    console.info(f"estimated time: {console.duration(rows * step)}, {span}")


def _say_pixels(fit: Trainer) -> None:
    """Says how many pixels there are to learn from and to select by, where these are not all."""
    cache, config = fit.cache, fit.run.config
    if not fit.labelled.all:
        counts = fit.labelled.counts(config["train_ids"])
        each = ", ".join(f"{n:,} {name}" for n, name in zip(counts, ("background", *cache.classes), strict=True))
        console.info(f"{counts.sum():,} labelled training pixels: {each}")
    if cache.sparse and config["val_ids"]:
        count = int(Labelled(cache, config["fit"] | {"label_pixels": None}).counts(config["val_ids"]).sum())
        total = sum(len(tiles) for name, tiles in rows_by_tile(cache).items() if name in set(config["val_ids"]))
        if count < (total := total * cache.image_size**2):
            console.info(f"validation Dice is over the {count:,} of {total:,} pixels that the masks say something of")
