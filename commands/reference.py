"""The reference page, made of the records: ``python -m textdiff.commands.reference > docs/reference.md``."""

__all__ = ["COLUMNS", "page", "recipe_rows"]

import inspect
from collections.abc import Iterator

from textdiff.cli import COMMANDS
from textdiff.experiments.setup import methods
from textdiff.models.networks.models import MODELS, get_model
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.experiments import FILTERS
from textdiff.options.option import Option
from textdiff.options.protocol import PROTOCOLS
from textdiff.options.record import options

HEAD = """# Reference

These are all commands with their options. The stages and the experiments are functions too, as in
`textdiff.fit(cache, labels=5)`: the option `--batch-size` is the keyword `batch_size`, and a list such as `6,8` is
`[6, 8]`. `textdiff next` is `textdiff.rank`. On the command line a list has commas, or its option is repeated;
`textdiff --install-completion` lets the shell complete names and values. `make reference` makes this page.
"""
RECIPES = """## Networks and recipes

`fit --model NETWORK --recipe RECIPE` trains as follows; [networks](networks.md) says what each network is. The cache's
size is that of `extract --image-size`, rounded up where a network needs a multiple of 16 or 32. The column on
normalisation is about batch normalisation where a network has it. Where there are no validation images the last weights
are kept.
"""
ROWS = """## Rows of tables

`--models` of `table1`, `--variants` of `ablate`, `curve` and `compare`, and `--against` take rows by these names, and
sums of them, as in `full+unet`. [Networks](networks.md#the-recipes) says how they are made up.
"""
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


def page() -> str:
    """The page in Markdown."""
    return "\n".join(
        [HEAD, *(line for name in COMMANDS for line in _command(name)), RECIPES, *_table(), ROWS, *_rows()]
    )


def _command(name: str) -> Iterator[str]:
    command = COMMANDS[name]
    positional = "".join(f" {option.name.upper()}" for option in options(command.record) if option.positional)
    yield from (f"## textdiff {name}{positional}", "")
    yield from (inspect.getdoc(command.record) or "", "")
    groups: dict[str, list[Option]] = {}
    for option in options(command.record):
        groups.setdefault(option.group, []).append(option)
    for heading, members in groups.items():
        yield from (f"**{heading}**", "", "| | | default |", "| :-- | :-- | :-- |")
        for option in members:
            value = f" {option.metavar}" if option.metavar and not option.positional else ""
            default = "required" if option.required else option.default_in_words()
            yield _row(f"`{option.spelling}{value}`", option.help, default)
        yield ""
    if command.as_json:
        yield from ("With `--json` the result is printed as JSON.", "")


def _table() -> Iterator[str]:
    yield _row(*COLUMNS)
    yield _row(*[":--"] * len(COLUMNS))
    yield from (_row(*cells) for cells in recipe_rows())
    yield ""


def _rows() -> Iterator[str]:
    yield from (_row("network", "rows"), _row(":--", ":--"))
    fitted = methods()
    for model in MODELS:
        yield _row(f"`{model}`", ", ".join(f"`{name}`" for name in fitted if fitted[name].model == model))
    yield _row("`table1 --filters`", f"`{FILTERS}`")
    yield ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
    yield {"best": "the best on validation images", "last": "the last", "average": "their average"}[recipe.select]


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


if __name__ == "__main__":
    print(page(), end="")
