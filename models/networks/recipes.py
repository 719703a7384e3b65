"""How a network is trained unless the user says otherwise."""

__all__ = ["FAIR", "OF_THE_METHOD", "Recipe", "usual"]

from typing import Literal, NamedTuple

from textdiff.options.protocol import PROTOCOLS


class Recipe(NamedTuple):
    """Everything that a fit needs to know and the data do not tell."""

    learning_rate: float
    """The learning rate of the optimiser, for batches of ``rate_batch``."""
    schedule: Literal["step", "cosine", "polynomial", "restarts", "plateau"]
    """How the learning rate falls: a key of ``pipeline.training.schedules.SCHEDULES``."""
    decay_epoch: int
    batch_size: int
    epochs: int | None
    """Passes over the training images; None for those that ``steps`` make, or else the protocol's."""
    select: Literal["best", "last", "average"]
    """``best``: the weights with the highest validation Dice, ``last``: those at the end, ``average``: the average."""
    hidden: tuple[int, int] = (128, 32)
    """Channels of the pixel classifier."""
    norm: str = "batch"
    """The network's normalisation, a key of ``norms.NORMS``."""
    standardise: bool = False
    """Whether what is read, activations or images, is standardised per image and channel."""
    window: int | None = None
    """Side in pixels of the random part of an image that a step is made on; None for the whole of it."""
    validate_every: int = 1
    """Epochs from one validation to the next; steps, where there are ``steps``. The last epoch is always validated."""
    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam (https://arxiv.org/abs/1412.6980), or gradient descent with a momentum of 0.9."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    weight_decay: float = 0.0
    """Weight of the squared weights in the loss."""
    rate_batch: int | None = None
    """Batch size of the learning rate: smaller batches get less in proportion. None for the same at any size."""
    steps: int | None = None
    """Steps of the optimiser, from which the number of epochs follows."""
    patience: int | None = None
    """Epochs without a better validation Dice after which to stop; steps, where there are ``steps``."""
    loss: str = "method"
    """A key of ``pipeline.training.losses.LOSSES``."""
    augment: str = "symmetries"
    """How a network that reads images sees them: a key of ``augment.AUGMENTATIONS``."""
    side: int | None = None
    """Side in pixels that images are resized to for the network; None for the cache's."""


FAIR = Recipe(
    1e-3, "cosine", 60, batch_size=2, epochs=100, select="last", validate_every=5, norm="own", standardise=False
)
"""The best that is known for networks of images and few labels, with one budget of steps for all of them.

Batch normalisation by each image's own statistics after training, the eight symmetries, and the loss of the method:
docs/research has the measurements on validation images.
"""

# For backbones much smaller than the paper's: docs/research has the measurements behind each choice.
_FAIR = Recipe(
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
OF_THE_METHOD = {
    # The paper's, section 3.1, with the decay of its code.
    "default": Recipe(1e-4, "step", 60, batch_size=1, epochs=None, select="best"),
    "fair": _FAIR,
    # Five times the time; on validation images the best of what was measured, with views in varied colours.
    "fair-long": _FAIR._replace(epochs=200),
}
"""The recipes of the method's own network."""


def usual(option: str) -> str:
    """What the recipes of the method say of one option, in words; docs/reference.md has those of the others."""
    by_value: dict[str, list[str]] = {}
    for name, recipe in OF_THE_METHOD.items():
        value = getattr(recipe, option)
        words = "0" if value is None else value if isinstance(value, str) else f"{value:g}"
        if option == "epochs" and value is None:
            words = "/".join(f"{protocol.epochs} ({protocol.name} protocol)" for protocol in PROTOCOLS.values())
        by_value.setdefault(words, []).append(name)
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in by_value.items())
