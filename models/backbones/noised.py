"""Backbones that see an image as a diffusion model does: normalised, and noised or masked as far as a step says."""

__all__ = ["Noised"]

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from torch import Tensor

from textdiff.models.backbones.base import Backbone
from textdiff.models.backbones.corruption import STEPS, Corruption, Noise


class Noised(Backbone):
    """The noise is one draw for all images, made on the CPU so that every device and every worker sees the same."""

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
