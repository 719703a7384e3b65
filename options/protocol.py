"""The two ways to run the method: as we would, and as the paper's published code does.

DESIGN, section 4, lists the differences. ``clean`` is the default; ``paper`` exists so that published numbers can be
compared with like.
"""

__all__ = ["PROTOCOLS", "Protocol"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """The choices in which the paper's code and good practice differ."""

    name: str
    colour: str
    """Channel order that the UNet sees, ``rgb`` or ``bgr`` (the code reads with OpenCV and never converts)."""
    resize: str
    """How images and masks are brought to the UNet's size: ``area``, or ``bilinear`` without antialiasing."""
    pad_to: int | None
    """Fixed number of text tokens with the padding attended, or ``None``: the whole text, padding masked."""
    dice_on: str
    """What the Dice term of the loss is computed on: ``softmax`` or raw ``logits``."""
    epochs: int
    """Passes over the training images."""
    turn_texts: bool
    """Whether the words for directions turn along with the views of an image."""


PROTOCOLS = {
    "clean": Protocol(
        "clean", colour="rgb", resize="area", pad_to=None, dice_on="softmax", epochs=100, turn_texts=True
    ),
    "paper": Protocol(
        "paper", colour="bgr", resize="bilinear", pad_to=10, dice_on="logits", epochs=50, turn_texts=False
    ),
}
