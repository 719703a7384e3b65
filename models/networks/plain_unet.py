"""The plain U-Net, trained from scratch on images: what a lab would use without a backbone and without text."""

__all__ = ["PlainUNet"]

from typing import ClassVar

import torch
from torch import Tensor, nn

from textdiff.cache import FeatureCache
from textdiff.models.arguments import arguments
from textdiff.models.networks.image_network import ImageNetwork
from textdiff.models.networks.norms import NORMS
from textdiff.models.networks.recipes import FAIR, Recipe
from textdiff.options.fit import FitConfig


class PlainUNet(ImageNetwork):
    """The layout of Ronneberger et al. (MICCAI 2015, https://arxiv.org/abs/1505.04597), figure 1.

    Two 3x3 convolutions per level, max pooling, 2x2 transposed convolutions, skip connections. As has become usual,
    convolutions are padded, so that scores have the image's size, and followed by batch normalisation. With the
    default width 7,763,074 parameters, a quarter of the original's channels being enough for a handful of images.

    Args:
        width: channels of the first level; they double with every level. The paper's has 64: 31,037,698 parameters.
        levels: resolutions, that of the image included; the image's size must be a multiple of 2^(levels - 1).
        classes: classes, background included.
        norm: ``batch``; ``image`` for normalisations of each image by itself, with ``standardise`` as nnU-Net's are
            (https://doi.org/10.1038/s41592-020-01008-z); or ``own``, the one in training and the other afterwards.
        standardise: bring each channel of each image to mean 0 and standard deviation 1, instead of the values 0 to 255
            to -1 to 1.
        augment: a key of ``augment.AUGMENTATIONS``.
        side: pixels that images are resized to, a multiple as well; None for their own.
        channels: of what it is given: an image's three, and more for a network made of it.
    """

    title = "a plain U-Net"
    multiple = 16
    steady = True
    # Two images a step, so that batch normalisation mostly sees more than one image.
    recipes: ClassVar = {
        "default": FAIR._replace(norm="batch"),
        # The same weights, used by each image's own statistics: on MoNuSeg the best of the three.
        "fair": FAIR,
        "instance-norm": FAIR._replace(norm="image", standardise=True),
    }

    def __init__(
        self,
        width: int = 32,
        levels: int = 5,
        classes: int = 2,
        norm: str = "batch",
        standardise: bool = False,
        augment: str = "symmetries",
        side: int | None = None,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            _two_convolutions(before, after, norm)
            for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in upwards)
        self.up = nn.ModuleList(_two_convolutions(2 * here, here, norm) for _, here in upwards)
        self.classify = nn.Conv2d(width, classes, 1)

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "PlainUNet":
        """The network with ``--width`` channels at first."""
        cls.check_options(options)
        return cls(
            width=options.width or 32,
            classes=len(cache.classes) + 1,
            norm=recipe.norm,
            standardise=recipe.standardise,
            augment=recipe.augment,
            side=cls.side(cache, recipe),
        )

    def scores(self, x: Tensor, *more: Tensor) -> Tensor:
        """(B, 3, H, W) float -> (B, classes, H, W) before the softmax."""
        skipped = []
        for level, convolve in enumerate(self.down):
            x = self.told(convolve(self.pool(x) if level else x), level, *more)
            skipped.append(x)
        skipped.pop()
        for enlarge, convolve in zip(self.enlarge, self.up, strict=True):
            x = convolve(torch.cat([skipped.pop(), enlarge(x)], dim=1))
        scores: Tensor = self.classify(x)
        return scores

    def told(self, x: Tensor, level: int, *more: Tensor) -> Tensor:
        """A level going down, (B, C, h, w), with what a network that reads more than images adds to it."""
        return x


def _two_convolutions(before: int, after: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        # A bias would be taken off again by the normalisation.
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), NORMS[norm](after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
