"""The backbone itself, all its weights trained on the labelled images: what a frozen one is compared with."""

__all__ = ["Tuned"]

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.arguments import arguments
from textdiff.models.backbones.adm import ADM, Untrained
from textdiff.models.backbones.checkpoints import load_unet
from textdiff.models.backbones.load import backbone_kind, resolve_backbone
from textdiff.models.backbones.unet import UNet, fresh_unet
from textdiff.models.networks.image_network import ImageNetwork
from textdiff.models.networks.recipes import FAIR, Recipe
from textdiff.options.fit import FitConfig

_FRESH = 0  # the seed of weights that no checkpoint gives: those of ``untrained:``


class Tuned(ImageNetwork):
    """The ADM UNet that a cache was made with, on images, with a 1x1 convolution in place of its last one.

    It sees the whole image in [-1, 1], with no noise and nothing masked, at step 0, in which it was trained too. Its
    normalisations are of each image by itself, as they always were. On a cache of ``untrained:`` it begins with those
    weights: the same network without any pretraining.

    Args:
        unet: the arguments of ``UNet``.
        classes: background included.
        standardise, augment, side: as in ``recipes.Recipe``.
    """

    title = "the cache's backbone, tuned"
    usual = False
    # Weights that know something already are changed less at a time; all else is what every network of images has.
    recipes: ClassVar = {"default": FAIR._replace(learning_rate=3e-4)}

    def __init__(
        self,
        unet: Mapping[str, Any],
        classes: int,
        side: int,
        standardise: bool = False,
        augment: str = "symmetries",
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        self.unet = fresh_unet(unet, _FRESH)
        self.unet.out[-1] = nn.Conv2d(self.unet.block_shapes()[len(self.unet.output_blocks) - 1][0], classes, 1)

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "Tuned":
        """The backbone of the cache, with weights drawn anew.

        Raises:
            UserError: there is nothing to train in it, or it is none of these networks.
        """
        cls.check_options(options)
        if options.width is not None:
            raise UserError(f"--width {options.width}: {cls.title} has its own widths; leave it out")
        unet = {name: cache.fingerprint["unet"].get(name) for name in inspect.signature(UNet).parameters}
        if None in unet.values():
            raise UserError(
                f"--model tuned: {cache.path} was made with the backbone {cache.about['backbone']}, which is no ADM "
                "UNet, so it stays frozen; make a cache with nano-he, adm-256 or weights of `textdiff pretrain`"
            )
        side = cls.side(cache, recipe)
        return cls(unet, len(cache.classes) + 1, side, recipe.standardise, recipe.augment)

    @classmethod
    def own_weights(cls, cache: FeatureCache) -> Path | None:
        """The checkpoint of the cache's backbone; none where the cache is of an untrained one.

        Raises:
            UserError: it is missing, or another one now.
        """
        name = cache.about["backbone"]
        kind = backbone_kind(name)
        if issubclass(kind, Untrained) or not issubclass(kind, ADM):
            return None
        found = resolve_backbone(name)
        if found.sha256 != cache.fingerprint["backbone_sha256"]:
            raise UserError(f"{found.path}: not the backbone of {cache.path}; name that with --pretrained")
        return found.path.resolve()

    def load_pretrained(self, path: Path) -> None:
        """Begins with a checkpoint of the same architecture; only the last convolution stays as it was drawn."""
        loaded = load_unet(path)
        other = {name for name, value in self.config["unet"].items() if loaded.config[name] != value}
        if other - {"image_size", "out_channels"}:
            raise UserError(f"--pretrained {path}: differs from the cache's backbone in {', '.join(sorted(other))}")
        loaded.out[-1] = self.unet.out[-1]
        self.unet.load_state_dict(loaded.state_dict())

    def scores(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, classes, H, W) before the softmax."""
        scores: Tensor = self.unet(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        return scores
