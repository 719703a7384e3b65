"""How a network is trained unless the user says otherwise."""

__all__ = ["FAIR", "Recipe"]

from typing import Literal, NamedTuple


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
    select: Literal["best", "last"]
    """``best``: the weights with the highest validation Dice, ``last``: those at the end."""
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
