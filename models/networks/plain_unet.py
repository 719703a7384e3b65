"""The plain U-Net, trained from scratch on images: what a lab would use without a backbone and without text."""

__all__ = ["PlainUNet", "turned"]

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item, Loader
from textdiff.models.networks.norms import NORMS
from textdiff.models.networks.segmenter import Segmenter


class PlainUNet(Segmenter):
    """The layout of Ronneberger et al. (MICCAI 2015, https://arxiv.org/abs/1505.04597), figure 1.

    Two 3x3 convolutions per level, max pooling, 2x2 transposed convolutions, skip connections. As has become usual,
    convolutions are padded, so that scores have the image's size, and followed by batch normalisation. With the
    default width 7,763,074 parameters, a quarter of the original's channels being enough for a handful of images.

    Args:
        width: channels of the first level; they double with every level.
        levels: resolutions, that of the image included; the image's size must be a multiple of 2^(levels - 1).
        classes: classes, background included.
        standardise: bring each channel of each image to mean 0 and standard deviation 1, instead of the values 0 to 255
            to -1 to 1.
        norm: ``batch``; ``image`` for normalisations of each image by itself, with ``standardise`` as nnU-Net's are
            (https://doi.org/10.1038/s41592-020-01008-z); or ``own``, the one in training and the other afterwards.
    """

    cached_views = False

    def __init__(
        self, width: int = 32, levels: int = 5, classes: int = 2, standardise: bool = False, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.config = {
            "width": width,
            "levels": levels,
            "classes": classes,
            "standardise": standardise,
            "norm": norm,
        }
        self.standardise = standardise
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            _two_convolutions(before, after, norm) for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in upwards)
        self.up = nn.ModuleList(_two_convolutions(2 * here, here, norm) for _, here in upwards)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores before the softmax: (B, 3, H, W) uint8 RGB -> (B, classes, H, W)."""
        x = image.to(self.classify.weight.dtype)
        # Shades that differ by less than one would be noise made large.
        x = F.layer_norm(x, x.shape[2:], eps=1.0) if self.standardise else x / 127.5 - 1
        x = x.contiguous(memory_format=torch.channels_last)
        skipped = []
        for level, convolve in enumerate(self.down):
            x = convolve(self.pool(x) if level else x)
            skipped.append(x)
        skipped.pop()
        for enlarge, convolve in zip(self.enlarge, self.up, strict=True):
            x = convolve(torch.cat([skipped.pop(), enlarge(x)], dim=1))
        scores: Tensor = self.classify(x)
        return scores

    def inputs(self, items: Sequence[Item]) -> tuple[Tensor]:
        """The images, (B, 3, S, S) uint8."""
        return (torch.cat([item.image for item in items if item.image is not None]),)

    def loader(self, cache: FeatureCache, device: torch.device) -> Loader:
        """Reads images and masks, no activations."""
        return Loader(cache, device, blocks=(), images=True)

    def augment(self, items: Iterable[Item], seed: int, epoch: int) -> Iterator[Item]:
        """Every item in one of the eight symmetries of the square, each as likely."""
        generator = np.random.default_rng([seed, 0x517, epoch])
        for item in items:
            yield turned(item, int(generator.integers(8)))


def turned(item: Item, view: int) -> Item:
    """The item with image and mask in one of the eight symmetries, in the order of :func:`images.symmetry`."""
    assert item.image is not None
    mask = None if item.mask is None else _symmetry(item.mask, view)
    return replace(item, image=_symmetry(item.image, view), mask=mask)


def _symmetry(x: Tensor, view: int) -> Tensor:
    quarter: Tensor = torch.rot90(x, view % 4, (-2, -1))
    return quarter.flip(-1) if view >= 4 else quarter


def _two_convolutions(before: int, after: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        # A bias would be taken off again by the normalisation.
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), NORMS[norm](after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
