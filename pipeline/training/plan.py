"""What ``fit`` is about to do, said before it is done."""

__all__ = ["say_plan"]

from collections.abc import Sequence
from contextlib import closing

from textdiff import console
from textdiff.models.device import describe_device
from textdiff.pipeline.training.epochs import rows_by_tile
from textdiff.pipeline.training.labelled import Labelled
from textdiff.pipeline.training.trainer import Trainer


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
        console.info(
            f"recipe {options['recipe']}: {options['epochs']} epochs, {optimiser} at {options['learning_rate']:g} "
            f"({options['schedule']}), batches of {options['batch_size']}; "
            f"{'the epoch with the best validation Dice' if selects else 'the last epoch'} is kept"
        )
    console.info(
        f"{images} training images{f' in {len(training)} tiles' if len(training) > images else ''}"
        f"{f', a random one of {views} views each time' if views > 1 else ''}; {val_images} validation images"
        f"{'' if selects or not val_images else ', which are watched and choose nothing'}"
    )
    _say_pixels(fit)
    more = fit.soft.in_epoch(len(training)) if fit.soft else 0
    if fit.soft:
        count, parts = config["unlabelled"]["count"], len(fit.soft.tiles)
        console.info(
            f"in each epoch {more} of {f'{parts} tiles of ' if parts > count else ''}{count} images without labels, "
            "whose labels are drawn from what the fit before says of them"
        )
    rows = len(training) * views + validated
    if (stay := fit.loader.staying(rows)) < rows:
        console.info(f"{stay} of {rows} rows stay in memory once read; the others are read anew in every epoch")
    if step is None:
        return
    left = options["epochs"] - fit.state.epoch
    # A forward pass alone is about a third of a step.
    rows = left * (len(training) + more) + left / options["validate_every"] * validated / 3
    console.info(
        f"estimated time: {console.duration(rows * step)}, epochs {fit.state.epoch + 1} to {options['epochs']}"
    )


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
