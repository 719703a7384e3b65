"""What the networks that read images have in common: how they see an image, and how they are trained."""

__all__ = ["ImageNetwork", "Rival"]

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item, Loader
from textdiff.errors import UserError
from textdiff.models.arguments import arguments
from textdiff.models.networks.augment import AUGMENTATIONS
from textdiff.models.networks.kernels.upsample_conv import upsample
from textdiff.models.networks.norms import set_norm
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Reads, Segmenter
from textdiff.options.fit import FitConfig


class ImageNetwork(Segmenter, ABC):
    """A network on images. Its ``config`` has ``standardise``, ``augment`` and ``side``; see ``recipes.Recipe``."""

    cached_views = False
    reads = Reads(image=True)
    mean_teacher = True
    darkest: ClassVar[float] = -1.0
    """What black becomes; white becomes 1."""
    multiple: ClassVar[int] = 1
    """The side of the images that it sees is a multiple of so many pixels."""
    smallest: ClassVar[int] = 1
    """And is so many at least."""

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float -> (B, classes, H, W) before the softmax, or (B, 1, H, W) before the sigmoid."""

    def forward(self, image: Tensor, *more: Tensor) -> Tensor:
        """Scores before the softmax: (B, 3, S, S) uint8 RGB -> (B, classes, S, S).

        Where the network has one channel, the logit z of the foreground, they are (0, z): their softmax is its sigmoid.
        """
        scores, size = self.scores(self.seen(image), *more), image.shape[-2:]
        if scores.shape[-2:] != size:
            scores = upsample(scores, (size[0], size[1]))
        return scores if scores.shape[1] > 1 else torch.cat([torch.zeros_like(scores), scores], 1)

    def seen(self, image: Tensor) -> Tensor:
        """The images as the network sees them: (B, 3, S, S) uint8 to floats of the side that its ``config`` says."""
        x = image.to(next(self.parameters()).dtype)
        # Shades that differ by less than one would be noise made large.
        x = (
            F.layer_norm(x, x.shape[2:], eps=1.0)
            if self.config["standardise"]
            else x / (255 / (1 - self.darkest)) + self.darkest
        )
        side = self.config["side"] or image.shape[-1]
        if image.shape[-1] != side:
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        return x.contiguous(memory_format=torch.channels_last)

    def inputs(self, items: Sequence[Item]) -> tuple[Tensor, ...]:
        """The images, (B, 3, S, S) uint8."""
        return (torch.cat([item.image for item in items if item.image is not None]),)

    def loader(self, cache: FeatureCache, device: torch.device) -> Loader:
        """Reads images and masks, no activations."""
        return Loader(cache, device, blocks=(), images=True)

    def augment(self, items: Iterable[Item], seed: int, epoch: int) -> Iterator[Item]:
        """Every item changed at random, as the recipe says."""
        generator = np.random.default_rng([seed, 0x517, epoch])
        change = AUGMENTATIONS[self.config["augment"]]
        for item in items:
            yield change(item, generator)

    @classmethod
    def side(cls, cache: FeatureCache, recipe: Recipe) -> int:
        """The side of the images that it sees: the recipe's, or the cache's, made larger where it has to be."""
        return recipe.side or max(cls.smallest, -(-cache.image_size // cls.multiple) * cls.multiple)

    @classmethod
    def check_options(cls, options: FitConfig) -> None:
        """Refuses options of networks that read activations.

        Raises:
            UserError: one is given.
        """
        if options.variant not in cls.variants:
            raise UserError(
                f"--variant {options.variant}: {cls.title} reads no text and has no variants; leave it out"
                if len(cls.variants) == 1
                else f"--variant {options.variant}: {cls.title} has the variants {', '.join(cls.variants)}"
            )
        if options.blocks is not None or options.steps is not None:
            raise UserError(f"--blocks, --steps: {cls.title} reads images, not activations; leave them out")


class Rival(ImageNetwork):
    """A published network, ``net``, as ``fit`` trains it.

    Args:
        net: the arguments of ``network`` but for the classes.
        classes: background included.
        standardise, augment, side, norm: as in ``recipes.Recipe``.
    """

    network: ClassVar[type[nn.Module]]
    """Its class, which has ``config`` and ``scores``."""
    steady = True
    takes_size: ClassVar[bool] = False
    """Whether the network is made for one size of images, as its ``image_size``."""

    def __init__(
        self,
        net: Mapping[str, Any],
        classes: int,
        side: int,
        standardise: bool = False,
        augment: str = "symmetries",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        self.net = self.network(classes=classes, **net)
        set_norm(self.net, norm)

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "Rival":
        """With the published sizes, on images of the recipe's side or the cache's."""
        cls.check_options(options)
        if options.width is not None:
            raise UserError(f"--width {options.width}: {cls.title} has the published widths; leave it out")
        side = cls.side(cache, recipe)
        net = ({"image_size": side} if cls.takes_size else {}) | cls.sizes(cache)
        return cls(net, len(cache.classes) + 1, side, recipe.standardise, recipe.augment, recipe.norm)

    def load_pretrained(self, path: Path) -> None:
        """Begins with the weights that its authors began with."""
        if not self.pretrained:
            super().load_pretrained(path)
        net: Any = self.net
        net.load_pretrained(path)

    @classmethod
    def sizes(cls, cache: FeatureCache) -> dict[str, Any]:
        """Arguments of the network that follow from the cache."""
        return {}

    def scores(self, x: Tensor, *more: Tensor) -> Tensor:
        """What the published network gives."""
        net: Any = self.net
        scores: Tensor = net.scores(x, *more)
        return scores
