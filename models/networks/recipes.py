"""How a network is trained unless the user says otherwise."""

__all__ = ["RECIPES", "Recipe", "get_recipe", "usual"]

from typing import Literal, NamedTuple

from textdiff.errors import choose
from textdiff.options.protocol import PROTOCOLS


class Recipe(NamedTuple):
    """Everything that a fit needs to know and the data do not tell."""

    learning_rate: float
    """The learning rate of Adam."""
    schedule: Literal["step", "cosine"]
    """``step``: a tenth of the learning rate from ``decay_epoch`` on; ``cosine``: down to zero over the whole fit."""
    decay_epoch: int
    batch_size: int
    epochs: int | None
    """Passes over the training images; None for the protocol's."""
    select: Literal["best", "last"]
    """``best``: the weights with the highest validation Dice, ``last``: those at the end."""
    hidden: tuple[int, int] = (128, 32)
    """Channels of the pixel classifier."""
    norm: str = "batch"
    """The network's normalisation, a key of ``norms.NORMS``."""
    standardise: bool = False
    """Whether activations are standardised per image and channel."""
    window: int | None = None
    """Side in pixels of the random part of an image that a step is made on; None for the whole of it."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch is always validated."""


# For backbones much smaller than the paper's: docs/research has the measurements behind each choice.
_LIGHT = Recipe(
    2e-3,
    "cosine",
    60,
    batch_size=1,
    epochs=40,
    select="last",
    hidden=(96, 32),
    norm="image",
    standardise=True,
    window=128,
    validate_every=5,
)

# Two images a step, so that batch normalisation mostly sees more than one image.
_UNET = Recipe(1e-3, "cosine", 60, batch_size=2, epochs=100, select="last", validate_every=5)

RECIPES = {
    # The paper's, section 3.1, with the decay of its code.
    "reference": Recipe(1e-4, "step", 60, batch_size=1, epochs=None, select="best"),
    "light": _LIGHT,
    # Five times the time; on validation images the best of what was measured, with views in varied colours.
    "light-long": _LIGHT._replace(epochs=200),
    "unet": _UNET,
    # The same weights, used by each image's own statistics: on MoNuSeg the best of the three.
    "unet-own": _UNET._replace(norm="own"),
    "unet-instance": _UNET._replace(norm="image", standardise=True),
}


def get_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UserError: there is none of that name.
    """
    return choose("--recipe", name, RECIPES)


def usual(option: str) -> str:
    """What the recipes say of one option, in words."""
    by_value: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        value = getattr(recipe, option)
        words = "0" if value is None else value if isinstance(value, str) else f"{value:g}"
        if option == "epochs" and value is None:
            words = "/".join(f"{protocol.epochs} ({protocol.name} protocol)" for protocol in PROTOCOLS.values())
        by_value.setdefault(words, []).append(name)
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in by_value.items())
