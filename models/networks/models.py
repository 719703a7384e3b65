"""The networks that ``fit`` can train."""

__all__ = ["MODELS", "all_models", "check_mean_teacher", "get_model", "get_recipe", "method_name", "recipe_names"]

from contextlib import suppress
from typing import TYPE_CHECKING

from textdiff.errors import UserError, choose
from textdiff.models.networks.recipes import Recipe
from textdiff.options.fit import MEAN_TEACHER, FitConfig, Learned
from textdiff.plugins import on_demand, registry

if TYPE_CHECKING:  # listing the names imports no network
    from textdiff.models.networks.segmenter import Segmenter

_PLACES = {
    "textdiff": "head:Head",
    "unet": "plain_unet:PlainUNet",
    "text-unet": "text_unet:TextUNet",
    "resnet50-unet": "rivals:ResNet50UNetRival",
    "transunet": "rivals:TransUNetRival",
    "swin-unet": "rivals:SwinUNetRival",
    "lvit": "rivals:LViTRival",
    "pixel-mlp": "pixel_mlp:PixelMLPs",
    "trees": "trees:Trees",
    "tuned": "tuned:Tuned",
}
MODELS = registry(
    "networks", on_demand({name: f"textdiff.models.networks.{place}" for name, place in _PLACES.items()}), type
)
"""The networks by name, classes of ``Segmenter``; packages add theirs as entry points ``textdiff.networks``."""


def get_model(name: str) -> "type[Segmenter]":
    """The network called ``name``.

    Raises:
        UserError: there is none of that name, or it is of another package and no network.
    """
    from textdiff.models.networks.segmenter import Segmenter

    model: type[Segmenter] = choose("--model", name, MODELS)
    if not issubclass(model, Segmenter):
        raise UserError(f"--model {name}: {model.__module__}.{model.__qualname__} must be a Segmenter; mend it")
    return model


def all_models() -> "dict[str, type[Segmenter]]":
    """The networks by name, without those of other packages that cannot be used: who asks for one is told why."""
    found = {}
    for name in MODELS:
        with suppress(UserError):
            found[name] = get_model(name)
    return found


def get_recipe(model: str, name: str) -> Recipe:
    """A network's recipe.

    Raises:
        UserError: it has none of that name.
    """
    recipes = get_model(model).recipes
    if name not in recipes:
        raise UserError(f"--recipe {name}: not for --model {model}; use {' or '.join(recipes)}")
    return recipes[name]


def check_mean_teacher(options: FitConfig) -> None:
    """Refuses a mean teacher for a network that has none.

    Raises:
        UserError: for that.
    """
    if options.unlabelled == MEAN_TEACHER and not get_model(options.model).mean_teacher:
        raise UserError(
            f"--unlabelled {MEAN_TEACHER}: takes a network that reads images, not {get_model(options.model).title}; "
            "use --unlabelled 1"
        )


def method_name(
    model: str, recipe: str | None, variant: str, unlabelled: Learned | None = None, places: bool = False
) -> str:
    """What a row of a table is called: ``no-text``, ``unet``, ``unet-fair``, ``lvit-fair-shuffled-text``.

    Variants of the method go without its name and recipe, and so do the full variant and the default recipe of others.
    With maps of the places that texts name it is ``full-places``. After a round of self-training it is
    ``no-text-unlabelled``, after two ``no-text-unlabelled-2``, and with a mean teacher ``unet-mean-teacher``.
    """
    parts = [variant]
    if model != FitConfig.model:
        usual = next(iter(get_model(model).recipes))
        parts = [model, "" if recipe in (None, usual) else recipe, "" if variant == "full" else variant]
    parts.append("places" if places else "")
    if unlabelled is not None:
        parts.append({1: "unlabelled", 2: "unlabelled-2", MEAN_TEACHER: MEAN_TEACHER}[unlabelled])
    return "-".join(part for part in parts if part)


def recipe_names() -> list[str]:
    """The names of all networks' recipes."""
    return list(dict.fromkeys(name for model in all_models().values() for name in model.recipes))
