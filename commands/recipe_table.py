"""The networks that ``fit`` trains and their recipes, as rows of a table for the reference page."""

__all__ = ["COLUMNS", "recipe_rows"]

from collections.abc import Iterator

from textdiff.models.networks.models import MODELS, get_model
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.protocol import PROTOCOLS

COLUMNS = ("network", "recipe", "how long", "optimiser", "learning rate", "loss", "sees", "normalisation", "keeps")

_LOSSES = {
    "method": "cross-entropy + 1.5 (1 - Dice)",
    "half-dice": "0.5 cross-entropy + 0.5 (1 - Dice)",
    "more-dice": "0.4 cross-entropy + 0.6 (1 - Dice)",
    "focal": "10 focal - log(Dice)",
    "balanced": "0.5 cross-entropy (classes weighed alike) + 0.5 (1 - Dice)",
    "cross-entropy": "cross-entropy",
}
_SCHEDULES = {
    "cosine": "cosine to 0",
    "polynomial": "polynomial to 0",
    "restarts": "cosine, anew every 10 epochs",
    "plateau": "halved on a plateau",
}
_CHANGES = {
    "none": "the cache's views",
    "symmetries": "symmetries",
    "turns": "symmetries or small turns",
    "scales": "scales and small turns",
}
_NORMS = {
    "batch": "batch, then its averages",
    "own": "batch, then each image's own",
    "image": "each image's own",
}


def recipe_rows() -> Iterator[tuple[str, ...]]:
    """A row for every network and recipe, in the order of ``COLUMNS``; the first recipe of a network is ``default``."""
    for model in MODELS:
        network = get_model(model)
        for name, recipe in network.recipes.items():
            yield f"`{model}`", f"`{name}`", *_cells(network, recipe)


def _cells(network: type[Segmenter], recipe: Recipe) -> Iterator[str]:
    loss = _LOSSES[recipe.loss]
    if network.learn is not Segmenter.learn:
        yield from ("in one go", "", f"{recipe.learning_rate:g}", loss, _seen(network, recipe), "", "")
        return
    yield _length(recipe)
    name = {"adam": "Adam", "sgd": "SGD"}[recipe.optimiser]
    unit = ("image" if network.steps_of_row == 1 else "pixel") + "s" * (recipe.batch_size > 1)
    decay = f", decay {recipe.weight_decay:g}" if recipe.weight_decay else ""
    yield f"{name}, {recipe.batch_size} {unit} a step{decay}"
    share = f" for {recipe.rate_batch} images, fewer in proportion" if recipe.rate_batch else ""
    yield f"{recipe.learning_rate:g}{share}, {_schedule(recipe)}"
    yield loss
    yield _seen(network, recipe)
    yield _NORMS[recipe.norm]
    yield "the best on validation images" if recipe.select == "best" else "the last"


def _length(recipe: Recipe) -> str:
    unit = "steps" if recipe.steps else "epochs"
    if not (count := recipe.steps or recipe.epochs):
        clean, paper = (PROTOCOLS[name].epochs for name in ("clean", "paper"))
        return f"{clean} epochs, {paper} with `--protocol paper`"
    stop = f", or {recipe.patience:,} without a better one" if recipe.patience else ""
    return f"{count:,} {unit}{stop}"


def _schedule(recipe: Recipe) -> str:
    if recipe.schedule != "step":
        return _SCHEDULES[recipe.schedule]
    constant = recipe.epochs is not None and recipe.decay_epoch >= recipe.epochs
    return "constant" if constant else f"a tenth after {recipe.decay_epoch} epochs"


def _seen(network: type[Segmenter], recipe: Recipe) -> str:
    if network.reads.image:
        side = f"{recipe.side} pixels" if recipe.side else "the cache's size"
        parts = [f"images of {side}", _CHANGES[recipe.augment]]
    else:
        parts = ["cached views"] + ([f"squares of {recipe.window} pixels"] if recipe.window else [])
    return ", ".join(parts + ["each channel standardised"] * recipe.standardise)
