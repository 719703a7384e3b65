"""How a network is trained unless the user says otherwise."""

__all__ = ["RECIPES", "Recipe", "get_recipe"]

from typing import NamedTuple

from textdiff.errors import UserError


class Recipe(NamedTuple):
    """Everything that a fit needs to know and the data do not tell."""

    learning_rate: float
    """Of Adam."""
    schedule: str
    """``step``: a tenth of the learning rate from ``decay_epoch`` on; ``cosine``: down to zero over the whole fit."""
    decay_epoch: int
    batch_size: int
    epochs: int | None
    """Passes over the training images; None for the protocol's."""
    select: str
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
    if name not in RECIPES:
        raise UserError(f"--recipe {name}: unknown; use one of {', '.join(RECIPES)}")
    return RECIPES[name]
