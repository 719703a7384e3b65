"""The decoder activations of an ADM UNet, from a checkpoint or with weights that no training has touched."""

__all__ = ["ADM", "Untrained"]

import hashlib
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from textdiff.errors import UserError
from textdiff.models.backbones import BACKBONES
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint
from textdiff.models.backbones.fresh import fresh_unet
from textdiff.models.backbones.noised import Noised
from textdiff.models.backbones.unet import UNet
from textdiff.models.weights import CHECKPOINTS, ResolvedWeights, resolve_weights


class ADM(Noised):
    """The levels are the outputs of the UNet's decoder blocks, under their numbers."""

    follows_presets = True

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet, self.config = unet, unet.config
        self.multiple = 2 ** (len(unet.config["channel_mult"]) - 1)

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """The checkpoint of that name, or at that path."""
        return resolve_weights(name, download=download)

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with the checkpoint's weights."""
        backbone = cls(load_unet(found.path, image_size=image_size, device=device))
        backbone.licence = CHECKPOINTS[found.name].licence if found.name in CHECKPOINTS else ""
        return backbone

    def tune(self, precision: str) -> None:
        """Keeps what is multiplied in the type that autocast would cast it to at every image, channels last."""
        self.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision == "bfloat16":
            for module in self.unet.modules():
                if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                    module.to(torch.bfloat16)

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """The shapes of all decoder blocks' outputs."""
        return self.unet.block_shapes(image_size)

    def activations(self, x: Tensor, t: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """The outputs of decoder blocks; nothing is computed beyond the deepest one."""
        return self.unet.features(x, t, levels)


class Untrained(ADM):
    """The architecture of a checkpoint with weights drawn by its initialisation, with seed 0: a control."""

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """The checkpoint that says the architecture, under a digest of its own."""
        if not of:
            raise UserError(f"{name} names no checkpoint; write one after the colon, as in {name}nano-he")
        if of in BACKBONES and of not in CHECKPOINTS:
            raise UserError(f"{name}: {of} has nothing to train; name a checkpoint after the colon, or {of} alone")
        found = resolve_weights(of, download=download)
        return found._replace(name=name, sha256=hashlib.sha256(f"untrained 1 {found.sha256}".encode()).hexdigest())

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with weights drawn anew."""
        _, architecture = read_checkpoint(found.path, image_size)
        return cls(fresh_unet(architecture, seed=0))
