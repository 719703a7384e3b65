"""The head: the network of stage two as it is trained, :class:`TextDiff` computed in a cheaper and exactly equal way.

The shortcuts are in :mod:`textdiff.models.networks.kernels`.
"""

__all__ = ["REFERENCE_WIDTH", "VARIANTS", "Head", "usual_width"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item
from textdiff.models.arguments import arguments
from textdiff.models.networks.kernels.attention import Attend, block_attention
from textdiff.models.networks.kernels.levels import Pieces, project_level
from textdiff.models.networks.kernels.pointwise import wants_large_products
from textdiff.models.networks.kernels.upsample_conv import conv_upsampled
from textdiff.models.networks.norms import NORMS
from textdiff.models.networks.recipes import OF_THE_METHOD, Recipe
from textdiff.models.networks.reference_names import copy_reference, to_reference
from textdiff.models.networks.segmenter import Reads, Segmenter, Window, place_words, selected_levels
from textdiff.models.networks.textdiff import TextDiff, mean_token, placed, standardised
from textdiff.models.networks.variants import VARIANTS as ALL_VARIANTS
from textdiff.models.networks.variants import check_variant, head_variant
from textdiff.options.fit import FitConfig

VARIANTS = ("full", "no-text", "concat")
REFERENCE_WIDTH = 768
REFERENCE_HIDDEN = (128, 32)


class Head(TextDiff, Segmenter):
    """The network of the paper, with its weights, arguments and scores, several times cheaper.

    Attention is folded into two small matrices a text, the first convolution comes before the upsampling, and pixels
    are worked through in pieces. ``plain`` is the definition on the same weights, to check the shortcuts against.

    ``full`` has 9,683,234 parameters on MoNuSeg's blocks of ADM-256 (``dims`` 512, 512, 256, 256) and 10,862,882 on
    QaTa-COVID19's (1024, 512, 512, 256). Two ablations of the paper (table 2) are variants of it:

    * ``no-text`` (zeta 1): the projected levels straight to the classifier; 5,937,698 and 7,117,346 parameters.
    * ``concat`` (zeta 2): to each projected level the mean of the text's embeddings is concatenated, instead of the
      cross-attention, so the classifier sees ``width + text_dim`` channels per level; 9,476,642 and 10,656,290.

    A level of ``steps x C`` channels is projected to ``width`` by a linear layer, unless it has that width. The first
    level has a layer of its own, later ones share one per channel count.

    Args:
        dims: channels C_k of each level, at one diffusion step.
        steps: diffusion steps, concatenated along the channels, step-major.
        text_dim: width D of the token embeddings.
        width: channels of a level within this network.
        classes: classes, background included.
        image_size: height and width of the scores.
        heads: attention heads, 8 by default.
        head_dim: channels of a head, by default 64 at width 768 and in proportion at others, but no less than 8.
        variant: ``full``, ``no-text`` or ``concat``.
        hidden: channels after the classifier's first and second convolution; the authors' by default.
        norm: what the classifier's normalisations take mean and deviation over: ``batch``, the authors'; ``image``,
            each image for itself, in training and afterwards; ``own``, the one in training and the other afterwards.
            With one image a step all train alike, but the averages that batch normalisation then keeps are of few
            images and few texts, and fit no other.
        standardise: bring every channel of every level, of each image for itself, to mean 0 and standard deviation 1
            first. Not in the paper: it takes out what differs between stainings and scanners.
        positions: tell every pixel where it is, by two more channels of each level before the projection, which every
            level then has. Not in the paper. The places are those in what the network sees at once: the image, or the
            tile, in its view.
        places: give every pixel what the text says of its place, by one more channel of each level: the table of words
            by which ``Directions.place_map`` draws it. Not in the paper.
        blocks: which of a cache's blocks the levels are; all by default.
        times: which of a cache's diffusion steps; all by default.
    """

    plain = TextDiff.forward
    title = "a head"
    reads = Reads(activations=True, text=True)
    variants = tuple(ALL_VARIANTS)
    recipes = OF_THE_METHOD
    steady = True
    locates = True
    maps_places = True

    def __init__(
        self,
        dims: Sequence[int],
        steps: int,
        text_dim: int,
        width: int = REFERENCE_WIDTH,
        classes: int = 2,
        image_size: int = 256,
        heads: int | None = None,
        head_dim: int | None = None,
        variant: str = "full",
        hidden: Sequence[int] = REFERENCE_HIDDEN,
        norm: str = "batch",
        standardise: bool = False,
        positions: bool = False,
        places: Mapping[str, Any] | None = None,
        blocks: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r}: use one of {', '.join(VARIANTS)}")
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r}: use one of {', '.join(NORMS)}")
        config = arguments(locals()) | {
            "heads": heads or 8,
            "head_dim": head_dim or max(8, 64 * width // REFERENCE_WIDTH),
        }
        rest = ("blocks", "times", "places")
        plain = {name: value for name, value in config.items() if name not in rest}
        super().__init__(**plain, mapped=places is not None)
        self.config, self.blocks, self.times = config, blocks, times

    def forward(
        self,
        features: Sequence[Tensor],
        text: Tensor | None,
        text_mask: Tensor | None = None,
        window: Window | None = None,
    ) -> Tensor:
        """Scores before the softmax, as in the definition.

        Args:
            features: per level (B, steps * C_k, h_k, w_k), any float dtype, at native size.
            text: (B, L, D) token embeddings; ignored by ``no-text``.
            text_mask: (B, L) bool, False for padding; ``None`` when there is none.
            window: compute this part of the scores alone, for about its share of the time: the very scores that the
                whole would have there, but for statistics that normalisations take of what they see. It lies on the
                grid of the coarsest level's positions.

        Returns:
            (B, classes, H, W) in the parameters' dtype; H and W are the window's size if there is one.

        Raises:
            ValueError: the number of levels is not this head's, there is no text for a variant that reads it, or the
                window is not on the grid.
        """
        if len(features) != len(self.routes):
            raise ValueError(f"{len(features)} levels of activations for a head of {len(self.routes)}")
        if self.variant != "no-text" and text is None:
            raise ValueError(f"a head of variant {self.variant} needs text")
        return self.scores_of(*self.prepare(features, text, text_mask, window))

    def prepare(
        self,
        features: Sequence[Tensor],
        text: Tensor | None,
        text_mask: Tensor | None = None,
        window: Window | None = None,
    ) -> tuple[list[Tensor], Tensor | None, Tensor | None, tuple[int, int, int, int, int]]:
        """Standardises the levels and cuts from them what the window needs.

        Returns:
            Levels, text and mask; of the scores that these give height and width, and top, left and size of the window.
        """
        if self.standardise:
            features = [standardised(x) for x in features]
        if self.positions:
            features = [placed(x) for x in features]
        size = self.image_size
        if window is None:
            return list(features), text, text_mask, (size, size, 0, 0, size)
        features, seen = self._cut(features, window)
        height, width = (part.stop - part.start for part in seen)
        place = height, width, window.top - seen[0].start, window.left - seen[1].start, window.size
        return features, text, text_mask, place

    def scores_of(
        self,
        features: Sequence[Tensor],
        text: Tensor | None,
        text_mask: Tensor | None,
        place: tuple[int, int, int, int, int],
    ) -> Tensor:
        """The scores of what ``prepare`` gives."""
        height, width, top, left, size = place
        kind = features[0].device.type
        casting = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if casting else self.conv1.weight.dtype
        attends = self._attends(features, text, text_mask)
        attention = self.block.attention1.heads * text.shape[1] if self.variant == "full" and text is not None else 0
        pieces = Pieces.plan(features, self.width, attention)
        levels = [
            project_level(x, self._projection(name), attends, self.width, dtype, pieces)
            for x, name in zip(features, self.routes, strict=True)
        ]
        weights = list(self.conv1.weight.chunk(len(levels), dim=1))
        if self.variant == "concat":
            assert text is not None
            # The same embedding is part of every level, and a constant is an image of one pixel, upsampled.
            levels.append(mean_token(text, text_mask)[:, None, None].to(dtype))
            summed = torch.stack([w[:, self.width :] for w in weights]).sum(0)
            weights = [w[:, : self.width] for w in weights] + [summed]
        assert self.conv1.bias is not None
        x = conv_upsampled(levels, weights, self.conv1.bias, (height, width))
        x = self.conv2(F.relu(self.norm1(x), inplace=True))
        scores: Tensor = self.conv3(F.relu(self.norm2(x), inplace=True))
        if (height, width) != (size, size):
            scores = scores[:, :, top : top + size, left : left + size]
        return scores.to(self.conv3.weight.dtype)

    def attention(
        self, features: Sequence[Tensor], text: Tensor | None, text_mask: Tensor | None = None
    ) -> Tensor | None:
        """That of the level of most positions, by the definition: the mean over both cross-attentions and their heads.

        A position is a query, and the tokens are the keys. None for a variant without cross-attention.
        """
        if self.variant != "full" or text is None:
            return None
        features = self.prepare(features, text, text_mask)[0]
        level, name = max(zip(features, self.routes, strict=True), key=lambda pair: pair[0].shape[2])
        x = level.flatten(2).mT.to(self.conv1.weight.dtype)  # (B, h w, steps C)
        if (projection := self._projection(name)) is not None:
            x = projection(x)
        first, second = self.block.attention1, self.block.attention2
        both = first.weights(x, text, text_mask), second.weights(first(x, text, text_mask), text, text_mask)
        shares: Tensor = torch.stack(both).mean((0, 2))  # (B, h w, L)
        return shares.mT.reshape(len(level), -1, *level.shape[2:])

    def _cut(self, features: Sequence[Tensor], window: Window) -> tuple[list[Tensor], tuple[slice, slice]]:
        """The part of each level that the window's scores depend on, and which rows and columns of scores that is.

        One position of the coarsest level beyond the window is enough for the interpolation and, as long as it is four
        pixels or more, for the three convolutions as well.
        """
        cell = _cell(self.image_size, [min(x.shape[2:]) for x in features])
        if any(place % cell for place in window) or not 0 < window.size <= self.image_size:
            raise ValueError(f"{window} does not lie on the grid of {cell} pixels of {self.image_size}")
        rows, columns = (
            slice(max(0, start - cell), min(self.image_size, start + window.size + cell)) for start in window[:2]
        )
        parts = []
        for x in features:
            (top, bottom), (left, right) = (
                (part.start * length // self.image_size, part.stop * length // self.image_size)
                for part, length in zip((rows, columns), x.shape[2:], strict=True)
            )
            parts.append(x[:, :, top:bottom, left:right])
        return parts, (rows, columns)

    def _attends(self, features: Sequence[Tensor], text: Tensor | None, mask: Tensor | None) -> list[Attend | None]:
        """For each image of the batch, or for all at once, the transformer block with its text, if there is one."""
        together = len(features[0]) > 1 and wants_large_products(features[0].device)
        if self.variant != "full":
            return [None] * (1 if together else len(features[0]))
        assert text is not None
        pixels = sum(x.shape[2] * x.shape[3] for x in features)
        if together:
            return [block_attention(self.block, text, mask, pixels)]
        masks: Sequence[Tensor | None] = [None] * len(text) if mask is None else list(mask)
        return [block_attention(self.block, *one, pixels) for one in zip(text, masks, strict=True)]

    def _projection(self, name: str | None) -> nn.Linear | None:
        """The linear layer that a level goes through, if it goes through one."""
        if name is None:
            return None
        down = self.down[name]
        assert isinstance(down, nn.Linear)
        return down

    @classmethod
    def usual_recipe(cls, cache: FeatureCache) -> str:
        """The paper's recipe for backbones of the paper's width."""
        wide = usual_width([c for c, _, _ in cache.blocks.values()], len(cache.steps)) >= REFERENCE_WIDTH
        return "default" if wide else "fair"

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "Head":
        """The head for some or all of a cache's blocks and steps."""
        check_variant(options.variant, cache)
        channels, count = selected_levels(cache, options)
        return cls(
            channels,
            count,
            cache.text_dim or REFERENCE_WIDTH,
            width=options.width or usual_width(channels, count),
            classes=len(cache.classes) + 1,
            image_size=cache.image_size,
            variant=head_variant(options.variant),
            hidden=recipe.hidden,
            norm=recipe.norm,
            standardise=recipe.standardise,
            positions=options.positions,
            places=place_words(cache, options),
            blocks=options.blocks,
            times=options.steps,
        )

    def inputs(self, items: Sequence[Item]) -> tuple[Any, ...]:
        """As of any network; with ``places`` each level has the map as its last channel."""
        features, *text = super().inputs(items)
        if self.config["places"]:
            features = [torch.cat([x, self.place_maps(items, x.shape[-1]).to(x.dtype)], 1) for x in features]
        return features, *text

    def grid(self, cache: FeatureCache) -> int:
        """The pixels that a position of the coarsest level stands for."""
        return _cell(
            self.image_size, [h for block, (_, h, _) in cache.blocks.items() if block in (self.blocks or cache.blocks)]
        )

    def reference_state_dict(self) -> dict[str, Tensor]:
        """The weights under the authors' names and in their shapes; tensors are shared with this head."""
        return to_reference(self.state_dict())

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict of the authors' training code; a ``module.`` prefix (DataParallel) is understood.

        Raises:
            UserError: entries are missing, unknown or of another shape.
        """
        copy_reference(state, self.reference_state_dict())


def usual_width(channels: Sequence[int], steps: int) -> int:
    """The width for levels of these channels: that of the narrowest at all steps, and no more than the paper's.

    The image's own three channels beside a network's levels are not counted: all levels would be squeezed into them.
    """
    narrowest = min([c for c in channels if c > 3] or channels)
    return min(REFERENCE_WIDTH, steps * narrowest)


def _cell(image_size: int, sizes: Sequence[int]) -> int:
    """Pixels per position of the coarsest of levels of these sizes, at least the four that convolutions reach over."""
    return max(4, image_size // min(sizes))
