"""The decoder activations of an ADM UNet, from a checkpoint or with weights that no training has touched."""

__all__ = ["ADM", "Untrained"]

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from textdiff import console
from textdiff.errors import UserError
from textdiff.models.backbones import BACKBONES
from textdiff.models.backbones.base import Noised
from textdiff.models.backbones.checkpoints import load_unet, pretraining_of, read_checkpoint, unsaid_heads
from textdiff.models.backbones.corruption import CORRUPTIONS, Corruption
from textdiff.models.backbones.unet import UNet, fresh_unet
from textdiff.models.weights import CHECKPOINTS, ResolvedWeights, resolve_weights


class ADM(Noised):
    """The levels are the outputs of the UNet's decoder blocks, under their numbers."""

    follows_presets = True

    def __init__(self, unet: UNet, corruption: Corruption | None = None) -> None:
        super().__init__()
        self.corruption = corruption or self.corruption
        self.unet, self.config = unet, unet.config | self.corruption.facts
        self.multiple = 2 ** (len(unet.config["channel_mult"]) - 1)

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """The checkpoint of that name, or at that path."""
        return resolve_weights(name, download=download)

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with the checkpoint's weights."""
        unet = load_unet(found.path, image_size=image_size, device=device)
        if taken := unsaid_heads(found.path, unet):
            console.warn(
                f"{found.path}: does not say how its attention divides into heads: {taken} are taken; if it was "
                "trained with others, say which (docs/pretraining.md)"
            )
        backbone = cls(unet, corruption_of(found.path)())
        backbone.pretraining = _told(pretraining_of(found.path))
        backbone.licence = CHECKPOINTS[found.name].licence if found.name in CHECKPOINTS else ""
        return backbone

    @classmethod
    def usual_steps(cls, name: str, of: str) -> tuple[int, ...] | None:
        """Those of what the checkpoint was trained to undo."""
        return corruption_of(Path(of or name)).usual_steps

    def tune(self, precision: str) -> None:
        """Keeps what is multiplied in the type that autocast would cast it to at every image.

        Channels stay first: normalisation would copy them there and back, and on an H100 that costs a quarter of the
        images a second (docs/research).
        """
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
        return cls(fresh_unet(architecture, seed=0), corruption_of(found.path)())


def corruption_of(path: Path) -> type[Corruption]:
    """What the checkpoint was trained to undo, as it records it itself; noise, where it doesn't.

    Raises:
        UserError: it is something that this version does not know.
    """
    objective = pretraining_of(path).get("objective", "noise")
    if objective not in CORRUPTIONS:
        raise UserError(f"{path}: was pretrained with the objective {objective}, unknown here; update textdiff")
    return CORRUPTIONS[objective]


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a cache tells of a checkpoint's training."""
    data = facts.get("data", {})
    told = {"objective": facts.get("objective", "noise"), "crops": facts.get("samples"), "data": data.get("directory")}
    return told | {name: data[name] for name in ("target",) if name in data} if facts else {}
