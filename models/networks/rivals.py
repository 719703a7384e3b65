"""The published networks of the paper's table 1, each with what its authors did and what is best for few images.

What the authors did is told in their papers and code, for thousands of images: here with as many steps, whatever the
number of images.
"""

__all__ = ["LViTRival", "ResNet50UNetRival", "SwinUNetRival", "TransUNetRival"]

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.cache import FeatureCache, Item
from textdiff.models.networks.image_network import Rival
from textdiff.models.networks.lvit import LViT
from textdiff.models.networks.recipes import FAIR, Recipe
from textdiff.models.networks.resnet50_unet import ResNet50UNet
from textdiff.models.networks.segmenter import Reads
from textdiff.models.networks.swin_unet import SwinUNet
from textdiff.models.networks.transunet import TransUNet
from textdiff.models.networks.variants import check_variant
from textdiff.options.fit import FitConfig

# 150 epochs over the 2,212 slices of Synapse in batches of 24.
_SYNAPSE = Recipe(
    0.01,
    "polynomial",
    0,
    batch_size=24,
    epochs=None,
    select="last",
    validate_every=500,
    optimiser="sgd",
    weight_decay=1e-4,
    rate_batch=24,
    steps=13_950,
    loss="half-dice",
    augment="turns",
    side=224,
)


class TransUNetRival(Rival):
    """TransUNet (Chen et al., 2021, https://arxiv.org/abs/2102.04306)."""

    title = "TransUNet"
    network = TransUNet
    multiple, takes_size, darkest = 16, True, 0.0
    pretrained = "ImageNet-21k, R50+ViT-B_16.npz"
    recipes: ClassVar = {"default": _SYNAPSE, "fair": FAIR._replace(learning_rate=3e-4)}


class SwinUNetRival(Rival):
    """Swin-Unet (Cao et al., 2021, https://arxiv.org/abs/2105.05537). Its authors keep the weights of lowest loss."""

    title = "Swin-Unet"
    network = SwinUNet
    multiple, takes_size, darkest = 32, True, 0.0
    pretrained = "ImageNet, swin_tiny_patch4_window7_224.pth"
    recipes: ClassVar = {
        "default": _SYNAPSE._replace(learning_rate=0.05, loss="more-dice"),
        "fair": FAIR._replace(learning_rate=3e-4),
    }


class ResNet50UNetRival(Rival):
    """A U-Net whose encoder is a ResNet-50: what the paper's table 1 calls GLoRIA. It reads no text.

    Its authors train it on images of 512 pixels, for at most 100 epochs over 8,432 of them in batches of 8.
    """

    title = "a ResNet-50 U-Net (GLoRIA's, without text)"
    network = ResNet50UNet
    # On fewer the deepest map is a single pixel, which has no deviation to be normalised by.
    multiple, smallest = 32, 64
    pretrained = "ResNet-50 by GLoRIA's reports, or ImageNet's"
    recipes: ClassVar = {
        "default": Recipe(
            5e-4,
            "plateau",
            0,
            batch_size=8,
            epochs=None,
            select="best",
            validate_every=1054,
            betas=(0.5, 0.999),
            weight_decay=1e-6,
            steps=105_400,
            patience=21_080,
            loss="focal",
            augment="scales",
        ),
        "fair": FAIR,
    }


class LViTRival(Rival):
    """LViT (Li et al., 2023, https://arxiv.org/abs/2206.14718), which reads the image and ten tokens of its text.

    Its authors' rate is that for MoNuSeg; for QaTa-COVID19 it is 3e-4. Longer texts are cut, shorter ones filled with
    zeros.
    """

    title = "LViT"
    network = LViT
    reads = Reads(image=True, text=True)
    variants = ("full", "shuffled-text", "constant-text")
    multiple, takes_size, darkest = 16, True, 0.0
    recipes: ClassVar = {
        "default": Recipe(
            1e-3,
            "restarts",
            0,
            batch_size=2,
            epochs=2000,
            select="best",
            patience=50,
            loss="balanced",
            augment="turns",
            side=224,
        ),
        "fair": FAIR._replace(learning_rate=3e-4),
    }

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "Rival":
        """With the width of the cache's texts."""
        cls.check_options(options)
        check_variant(options.variant, cache, cls.variants)
        return super().build(cache, options, recipe)

    @classmethod
    def sizes(cls, cache: FeatureCache) -> dict[str, Any]:
        """The width of the cache's texts."""
        return {"text_dim": cache.text_dim}

    def inputs(self, items: Sequence[Item]) -> tuple[Tensor, ...]:
        """The images, (B, 3, S, S) uint8, and the first ten tokens of their texts, (B, 10, D) float32."""
        assert isinstance(self.net, LViT)
        tokens = self.net.config["text_tokens"]
        texts = [item.tokens[0, :tokens] for item in items if item.tokens is not None]
        return *super().inputs(items), torch.stack([F.pad(text, (0, 0, 0, tokens - len(text))) for text in texts])
