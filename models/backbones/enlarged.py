"""Any backbone on enlarged images: its levels are finer then, at the price of its time."""

__all__ = ["Enlarged"]

import math
from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor

from textdiff.models.backbones.base import Backbone


class Enlarged(Backbone):
    """Shows a backbone the images ``factor`` times as large, by bicubic interpolation.

    The number of positions in an image grows with the square of the factor, and so do the time and the room. A level
    that would be larger than the image itself is averaged down to it.

    Args:
        inner: the backbone, prepared for images of ``factor`` times the size.
        factor: 2 or more.
    """

    def __init__(self, inner: Backbone, factor: int) -> None:
        super().__init__()
        self.inner, self.factor, self.config = inner, factor, inner.config
        self.licence, self.revision, self.version = inner.licence, inner.revision, inner.version
        self.steps, self.reads_text = inner.steps, inner.reads_text
        self.multiple = inner.multiple // math.gcd(inner.multiple, factor)

    def tune(self, precision: str) -> None:
        """Tells the backbone."""
        self.inner.tune(precision)

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """Those of the backbone for larger images, none larger than the image."""
        return {
            level: (c, min(h, image_size), min(w, image_size))
            for level, (c, h, w) in self.inner.levels(image_size * self.factor).items()
        }

    def usual(self, image_size: int) -> tuple[int, ...]:
        """Those of the backbone."""
        return self.inner.usual(image_size * self.factor)

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The backbone's levels of enlarged images."""
        height, width = images.shape[-2:]
        larger = F.interpolate(images.float(), (height * self.factor, width * self.factor), mode="bicubic")
        found = self.inner.features(larger.round().clamp(0, 255).to(images.dtype), t, texts, levels)
        return {
            level: F.adaptive_avg_pool2d(grid, (height, width)) if grid.shape[-1] > width else grid
            for level, grid in found.items()
        }
