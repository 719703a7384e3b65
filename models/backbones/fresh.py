"""A UNet with weights drawn anew: what pretraining begins with, and what it is compared with."""

__all__ = ["fresh_unet"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from textdiff.models.backbones.unet import UNet


def fresh_unet(arguments: Mapping[str, Any], seed: int) -> UNet:
    """The network of these arguments, with weights that ``seed`` determines, in training mode on the CPU.

    Every layer keeps the variance of what passes through it: normal weights of variance 1 / fan-in (LeCun et al.,
    Efficient BackProp, 1998, section 4.6), biases zero. PyTorch's default has a third of that, and with layer after
    layer the gradients of the coarse levels vanish (docs/research has the measurement). Residual branches
    begin silent, as ADM's do.

    Raises:
        TypeError, ValueError, RuntimeError: no network has these arguments.
    """
    with torch.random.fork_rng(()):
        torch.manual_seed(seed)
        unet = UNet(**arguments)
        if torch.get_default_device().type == "meta":  # no weights are wanted
            return unet
        for layer in unet.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and layer.weight.any():
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return unet
