"""The plain U-Net with the text in it: attended to by its coarsest levels, or as a map of the places it names."""

__all__ = ["TextUNet"]

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.models.networks.recipes import FAIR, Recipe
from textdiff.models.networks.segmenter import Reads, padded_texts, place_words
from textdiff.models.networks.textdiff import CrossAttention
from textdiff.models.networks.variants import check_variant
from textdiff.options.fit import FitConfig

_READING = 2
_HEADS, _HEAD_DIM = 8, 32
_WAVES = 3
_AS_LOUD = 3  # as the three colours together, each from -1 to 1
_GAIN = 10  # else what begins at zero would stay too small to matter within the few hundred steps of the recipe


class TextUNet(PlainUNet):
    """The U-Net of ``unet``, trained whole, of which the two coarsest levels read the text on the way down.

    There each pixel attends to the tokens, as in the blocks of latent diffusion (Rombach et al., 2022,
    https://arxiv.org/abs/2112.10752, section 3.3), with the cross-attention of this method's head. Unlike there, a
    pixel's query also knows its place, without which "left" has nothing to hold on to. What the text adds is zero
    before the first step, so that the fit starts as the U-Net's with the same seed.

    With ``places`` nothing attends: the text is a map of the places that it names, a fourth channel of the image.

    A sentence that names a place is true of the image as it lies. So this network does not turn images by itself but
    takes the cache's views, whose texts turn along (``extract --views 8``).

    Args:
        text_dim: width D of the token embeddings.
        variant: ``full``, or ``no-text``, which is the U-Net itself.
        places: the table of words by which ``Directions.place_map`` draws the map; None for attention in its place.
        norm, augment: as for the U-Net.
        others: the other arguments of the U-Net.
    """

    title = "a U-Net that reads the text"
    reads = Reads(image=True, text=True)
    variants = ("full", "no-text", "shuffled-text", "constant-text")
    cached_views = True
    maps_places = True
    recipes: ClassVar = {"default": FAIR._replace(augment="none")}

    def __init__(
        self,
        text_dim: int,
        variant: str = "full",
        norm: str = "own",
        augment: str = "none",
        places: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(norm=norm, augment=augment, **{"channels": 3 if places is None else 4} | others)
        width, levels = self.config["width"], self.config["levels"]
        self.config |= {"text_dim": text_dim, "variant": variant, "places": places}
        reading = range(levels - _READING, levels) if variant == "full" and places is None else ()
        self.read = nn.ModuleDict({str(level): _Reading(width << level, text_dim) for level in reading})

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "TextUNet":
        """The network with ``--width`` channels at first, for the cache's texts."""
        cls.check_options(options)
        check_variant(options.variant, cache, cls.variants)
        return cls(
            text_dim=cache.text_dim or 0,
            variant="no-text" if options.variant == "no-text" else "full",
            width=options.width or 32,
            classes=len(cache.classes) + 1,
            norm=recipe.norm,
            standardise=recipe.standardise,
            augment=recipe.augment,
            side=cls.side(cache, recipe),
            places=place_words(cache, options),
        )

    def inputs(self, items: Sequence[Item]) -> tuple[Tensor, ...]:
        """The images, (B, 3, S, S) uint8, and what it reads of their texts.

        That is their tokens (B, L, D) and masks (B, L), or their maps (B, 1, side, side), or nothing.
        """
        images = super().inputs(items)
        if self.config["places"]:
            return *images, self.place_maps(items, self.config["side"] or images[0].shape[-1])
        if self.config["variant"] == "no-text":
            return images
        text, mask = padded_texts(items)
        assert text is not None
        assert mask is not None
        return *images, text, mask

    def scores(self, x: Tensor, *more: Tensor) -> Tensor:
        """(B, 3, H, W) float -> (B, classes, H, W) before the softmax; ``more`` is what ``inputs`` gives of texts."""
        if self.config["places"]:
            (drawn,) = more
            x, more = torch.cat([x, _AS_LOUD * (2 * drawn.to(x.dtype) - 1)], 1), ()
        return super().scores(x, *more)

    def told(self, x: Tensor, level: int, *more: Tensor) -> Tensor:
        """A level going down, (B, C, h, w), with what the text says to each of its pixels."""
        if str(level) not in self.read:
            return x
        read: Tensor = self.read[str(level)](x, *more)
        return read

    def attention(self, image: Tensor, *more: Tensor) -> Tensor | None:
        """That of the finer of the two levels that read: the mean over the heads. A pixel is the query."""
        if not self.read:
            return None
        x = self.seen(image)
        for level, convolve in enumerate(self.down):
            x = convolve(self.pool(x) if level else x)
            if str(level) in self.read:
                reading = self.read[str(level)]
                assert isinstance(reading, _Reading)
                return reading.shares(x, *more)
        return None


class _Reading(nn.Module):
    """Pixels (B, C, h, w), with their places, that attend to a text (B, L, D), its padding masked by (B, L)."""

    def __init__(self, channels: int, text_dim: int) -> None:
        super().__init__()
        self.attend = CrossAttention(channels, text_dim, _HEADS, _HEAD_DIM)
        nn.init.zeros_(self.attend.norm_out.weight)
        self.place = nn.Linear(2 + 4 * _WAVES, channels, bias=False)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """(B, C, h, w), with what the text adds."""
        said = self.attend.said(self._asking(x), text, mask)  # (B, h w, C)
        return x + _GAIN * said.mT.reshape(x.shape)

    def shares(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """How much of each pixel's attention goes to each token, (B, L, h, w)."""
        shares = self.attend.weights(self._asking(x), text, mask).mean(1)  # (B, h w, L)
        return shares.mT.reshape(len(x), -1, *x.shape[2:])

    def _asking(self, x: Tensor) -> Tensor:
        """What the queries are made of: (B, h w, C)."""
        pixels: Tensor = x.flatten(2).mT + self.place(_places(x))
        return pixels


def _places(x: Tensor) -> Tensor:
    """Column and row of the pixels of (B, C, h, w), from -1 to 1, and sines and cosines of both: (h w, 14)."""
    down, right = ((torch.arange(n, device=x.device, dtype=x.dtype) * 2 + 1) / n - 1 for n in x.shape[2:])
    place = torch.stack(torch.meshgrid(right, down, indexing="xy")).flatten(1).T  # (h w, 2)
    waves = [wave(place * (math.pi / 2 * k)) for k in range(1, _WAVES + 1) for wave in (torch.sin, torch.cos)]
    return torch.cat([place, *waves], 1)
