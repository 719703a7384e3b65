"""The networks that ``fit`` can train, and how each is trained by default."""

__all__ = ["MODELS", "Model", "get_model"]

from collections.abc import Callable, Sequence
from typing import NamedTuple

from textdiff.cache import FeatureCache
from textdiff.errors import UserError, choose
from textdiff.models.networks.head import REFERENCE_WIDTH, Head
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Segmenter
from textdiff.models.networks.variants import check_variant, head_variant

Selected = Sequence[int] | None


class Model(NamedTuple):
    """One kind of network."""

    network: type[Segmenter]
    """Makes it again from its ``config``."""
    build: Callable[[FeatureCache, str, int | None, Recipe, Selected, Selected], Segmenter]
    """For a cache, ``--variant``, ``--width``, a recipe, ``--blocks``, ``--steps``; UserError for what it has not."""
    recipes: tuple[str, ...]
    """Those it can be trained by."""
    usual: Callable[[FeatureCache], str]
    """The recipe that suits a cache."""


def _build_head(
    cache: FeatureCache, variant: str, width: int | None, recipe: Recipe, blocks: Selected, steps: Selected
) -> Head:
    check_variant(variant, cache)
    _check_selected("blocks", blocks, list(cache.blocks), cache)
    _check_selected("steps", steps, list(cache.steps), cache)
    channels = [c for block, (c, _, _) in cache.blocks.items() if blocks is None or block in blocks]
    count = len(cache.steps if steps is None else steps)
    return Head(
        channels,
        count,
        cache.text_dim or REFERENCE_WIDTH,
        width=width or min(REFERENCE_WIDTH, count * min(channels)),
        classes=len(cache.classes) + 1,
        image_size=cache.image_size,
        variant=head_variant(variant),
        hidden=recipe.hidden,
        norm=recipe.norm,
        standardise=recipe.standardise,
        blocks=blocks,
        times=steps,
    )


def _suits_head(cache: FeatureCache) -> str:
    """The paper's recipe for backbones of the paper's width."""
    return "reference" if len(cache.steps) * min(c for c, _, _ in cache.blocks.values()) >= REFERENCE_WIDTH else "light"


def _build_unet(
    cache: FeatureCache, variant: str, width: int | None, recipe: Recipe, blocks: Selected, steps: Selected
) -> PlainUNet:
    if variant != "full":
        raise UserError(f"--variant {variant}: a U-Net reads no text and has no variants; leave it out")
    if width is not None:
        raise UserError(f"--width {width}: a U-Net has no attention block to set it for; leave it out")
    if blocks is not None or steps is not None:
        raise UserError("--blocks, --steps: a U-Net reads images, not activations; leave them out")
    return PlainUNet(classes=len(cache.classes) + 1, standardise=recipe.standardise, norm=recipe.norm)


def _check_selected(name: str, selected: Selected, there: list[int], cache: FeatureCache) -> None:
    if selected is None:
        return
    wrong = [value for value in selected if value not in there]
    if wrong or not selected or len(set(selected)) < len(selected):
        raise UserError(
            f"--{name} {','.join(map(str, selected))}: name some of those in {cache.path}, none twice: "
            f"{','.join(map(str, there))}"
        )


MODELS = {
    "textdiff": Model(Head, _build_head, ("reference", "light", "light-long"), _suits_head),
    "unet": Model(PlainUNet, _build_unet, ("unet", "unet-own", "unet-instance"), lambda cache: "unet"),
}


def get_model(name: str) -> Model:
    """The model called ``name``.

    Raises:
        UserError: there is none of that name.
    """
    return choose("--model", name, MODELS)
