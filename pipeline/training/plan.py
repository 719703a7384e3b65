"""What ``fit`` is about to do, said before it is done."""

__all__ = ["say_plan"]

from collections.abc import Sequence
from contextlib import closing

from textdiff import console
from textdiff.models.device import describe_device
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
    rows = len(training) * views + validated
    if (stay := fit.loader.staying(rows)) < rows:
        console.info(f"{stay} of {rows} rows stay in memory once read; the others are read anew in every epoch")
    if step is None:
        return
    left = options["epochs"] - fit.state.epoch
    # A forward pass alone is about a third of a step.
    rows = left * len(training) + left / options["validate_every"] * validated / 3
    console.info(
        f"estimated time: {console.duration(rows * step)}, epochs {fit.state.epoch + 1} to {options['epochs']}"
    )
