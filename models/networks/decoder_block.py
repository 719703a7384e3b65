"""The decoder of the ResNet U-Nets: upsampling, the encoder's features beside it, two convolutions."""

__all__ = ["DecoderBlock", "convolution"]

import torch
from torch import Tensor, nn


def convolution(before: int, after: int) -> nn.Sequential:
    """A bias-free 3x3 convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class DecoderBlock(nn.Module):
    """Doubles the size of (B, below, h, w), joins (B, skip, 2h, 2w) to it, and makes (B, width, 2h, 2w) of both.

    Args:
        below: channels that come from the level below.
        skip: channels of the encoder's features; 0 for none.
        width: channels of the result.
        enlarge: doubles the size.
    """

    def __init__(self, below: int, skip: int, width: int, enlarge: nn.Module) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.conv1 = convolution(below + skip, width)
        self.conv2 = convolution(width, width)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:  # noqa: D102 (the class says it)
        x = self.enlarge(x)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        result: Tensor = self.conv2(self.conv1(x))
        return result
