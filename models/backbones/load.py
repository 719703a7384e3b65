"""A backbone that was found, as something with activations."""

__all__ = ["AnyBackbone", "load_backbone"]

import torch

from textdiff.errors import UserError
from textdiff.files import stamp
from textdiff.models.backbones.blurs import Blurs
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint
from textdiff.models.backbones.fresh import fresh_unet
from textdiff.models.backbones.unet import UNet
from textdiff.models.weights import RGB, UNTRAINED, ResolvedWeights

AnyBackbone = UNet | Blurs
"""What has ``block_shapes``, ``features`` and the ``config`` that a cache records."""


def load_backbone(found: ResolvedWeights, image_size: int, device: torch.device) -> AnyBackbone:
    """The network, frozen and in evaluation mode, on its device.

    An untrained one has the architecture of the checkpoint and weights drawn by its initialisation, with seed 0.

    Raises:
        UserError: the checkpoint is damaged, of no architecture that is known, or not the one that was found any more.
    """
    if found.name == RGB:
        return Blurs().to(device)
    if found.name.startswith(UNTRAINED):
        _, architecture = read_checkpoint(found.path, image_size)
        network = fresh_unet(architecture, seed=0).to(device).eval().requires_grad_(False)
    else:
        network = load_unet(found.path, image_size=image_size, device=device)
    if found.stamp not in (None, stamp(found.path)):
        raise UserError(f"{found.path}: was changed while it was loaded; run the same command again")
    return network
