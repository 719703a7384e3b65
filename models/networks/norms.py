"""Normalisation of activations: over the batch, or of each image for itself."""

__all__ = ["NORMS", "ImageNorm", "OwnNorm", "set_norm"]

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.networks.kernels.pointwise import wants_large_products


class ImageNorm(nn.BatchNorm2d):
    """Instance normalisation (https://arxiv.org/abs/1607.08022) that keeps the memory order convolutions want."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L), every image by its own mean and variance."""
        if len(x) > 1 and wants_large_products(x.device):
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        images = [
            F.batch_norm(x[i : i + 1], None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)
            for i in range(len(x))
        ]
        return images[0] if len(images) == 1 else torch.cat(images)


class OwnNorm(ImageNorm):
    """Batch normalisation in training, to the bit; afterwards every image by its own mean and variance.

    Running averages over a handful of images fit no other one. docs/research has what that is worth.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L), in training by the mean and variance of the batch, else every image by its own."""
        if not self.training:
            return super().forward(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)


NORMS: dict[str, type[nn.BatchNorm2d]] = {"batch": nn.BatchNorm2d, "image": ImageNorm, "own": OwnNorm}
"""Kinds of normalisation, by name; each takes the number of channels."""


def set_norm(network: nn.Module, norm: str) -> None:
    """Replaces every batch normalisation of a network that has just been made by one of the kind ``norm``."""
    if norm == "batch":
        return
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            other = NORMS[norm](layer.num_features)
            other.eps, other.weight, other.bias = layer.eps, layer.weight, layer.bias
            setattr(network, name, other)
        else:
            set_norm(layer, norm)
