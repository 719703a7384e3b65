"""What a backbone states, and what it does: facts that the rest of the program goes by, whatever its name."""

__all__ = ["Backbone", "Noised"]

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from textdiff.models.backbones.corruption import STEPS, Corruption, Noise
from textdiff.models.weights import ResolvedWeights


class Backbone(nn.Module, ABC):
    """A frozen function from images to levels of numbers, each a grid of its own size.

    A subclass is made known by a line in ``BACKBONES``, or by an entry point of another package in the group
    ``textdiff.backbones``. It has to say ``levels`` and ``features``; noise, normalisation and resizing are its own.
    """

    licence: str = ""
    """Licence of its weights; empty where it has none, or nobody knows."""
    revision: str = ""
    """The commit of the repository that its weights come from; empty where they come from none."""
    version: int = 1
    """Counts the definitions of a backbone without a file, so that caches of two of them are told apart."""
    steps: range | None = None
    """The diffusion steps at which it can see an image; None where it knows no steps, and sees each image once."""
    multiple: int = 1
    """What the sides of images must be multiples of."""
    reach: int | None = None
    """How many pixels away from a place at most that lies which a level says of it; None where that is the whole image,
    or where it depends on where in the image the place is."""
    reads_text: bool = False
    """Whether its features depend on the text of the image."""
    follows_presets: bool = False
    """Whether its levels are, by number and size, those of the paper's network, so that presets can name some of them;
    of others all are kept unless ``--blocks`` is given."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        """What the cache records of its architecture; JSON-able."""
        self.pretraining: dict[str, Any] = {}
        """What the cache tells of its training, where that is known; JSON-able."""

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """What identifies the backbone: its file and the digest of it, or without a file that of its definition.

        Args:
            name: as it was asked for.
            of: what stands after the colon, where its name in the registry ends with one.
            download: whether a missing file may be fetched.

        Raises:
            UserError: it is not in place, or damaged.
        """
        return ResolvedWeights(name, Path(name), hashlib.sha256(f"textdiff {name} {cls.version}".encode()).hexdigest())

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The backbone that ``find`` has found, for images of ``image_size`` pixels a side.

        Raises:
            UserError: the file is damaged.
        """
        return cls()

    @classmethod
    def usual_steps(cls, name: str, of: str) -> tuple[int, ...] | None:
        """The diffusion steps that suit what it was trained on; None for those of the preset.

        Args:
            name: as for ``find``; there need not be such a file.
            of: as for ``find``.
        """
        return None

    def prepare(self, image_size: int, seed: int, colour: str) -> None:
        """Is told, once, what all images share.

        Args:
            image_size: height and width in pixels.
            seed: of noise, where there is any. It must not depend on the device.
            colour: order of the channels that the protocol wants a network to see, ``rgb`` or ``bgr``.
        """

    def tune(self, precision: str) -> None:
        """Is told, once, that it is going to compute on a GPU: how its weights are kept there may be changed to what is
        quick. On a CPU nothing is, so that caches stay what they are to the last bit.

        Args:
            precision: ``float32``, or ``bfloat16`` where it is called under autocast to that.
        """

    @abstractmethod
    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """The shape (C, h, w) of every level for square images, by the level's number, ascending."""

    def usual(self, image_size: int) -> tuple[int, ...]:
        """The numbers of the levels that are kept where neither ``--blocks`` nor a preset names some: all of them."""
        return tuple(self.levels(image_size))

    @abstractmethod
    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """Some levels of images, in ascending order.

        Args:
            images: (B, 3, H, W) uint8, RGB, on the device.
            t: (B,) diffusion steps; 0 where it knows none.
            texts: B texts, which are empty unless ``reads_text``.
            levels: the numbers of those that are wanted.

        Returns:
            For every level (B, C, h, w), float.
        """


class Noised(Backbone):
    """Sees an image as a diffusion model does: normalised, and noised or masked as far as a step says.

    The noise is one draw for all images, made on the CPU so that every device and every worker sees the same.
    """

    steps = range(STEPS)
    corruption: Corruption = Noise()
    """What is done to the images."""
    drawn: Tensor

    def prepare(self, image_size: int, seed: int, colour: str) -> None:
        """Draws the noise, or what is masked, for images of this size."""
        if colour not in ("rgb", "bgr"):
            raise ValueError(f"colour order {colour!r}")
        self._reversed = colour == "bgr"
        self.register_buffer("drawn", self.corruption.shared(image_size, seed), persistent=False)

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The activations of the images in [-1, 1], noised to ``t``."""
        x0 = (images.flip(1) if self._reversed else images).float() / 127.5 - 1
        return self.activations(self.corruption.apply(x0, t, self.drawn), t, levels)

    @abstractmethod
    def activations(self, x: Tensor, t: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """Some levels, in ascending order, of noised images ``x`` (B, 3, H, W) float: (B, C, h, w) each.

        Raises:
            ValueError: there is no such level, or the sides of ``x`` are no multiples of ``multiple``.
        """
