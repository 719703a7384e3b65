"""A backbone that was found, as something with activations."""

__all__ = ["AnyBackbone", "load_backbone"]

import torch

from textdiff.pipeline.backbones.blurs import Blurs
from textdiff.pipeline.backbones.checkpoints import load_unet
from textdiff.pipeline.unet import UNet
from textdiff.pipeline.weights import RGB, ResolvedWeights

AnyBackbone = UNet | Blurs
"""What has ``block_shapes``, ``features`` and the ``config`` that a cache records."""


def load_backbone(found: ResolvedWeights, image_size: int, device: torch.device) -> AnyBackbone:
    """The network, frozen and in evaluation mode, on its device.

    Raises:
        UserError: the checkpoint is damaged, or of no architecture that is known.
    """
    if found.name == RGB:
        return Blurs().to(device)
    return load_unet(found.path, image_size=image_size, device=device)
