"""Structural similarity, as something to train on."""

__all__ = ["WINDOW", "ssim"]

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, DEVIATION = 11, 1.5  # pixels of the Gaussian
K1, K2 = 0.01, 0.03
SPAN = 2.0  # of the values


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """The mean structural similarity of each image's channels, (B,) float32: 1 where both are the same.

    Wang et al. (2004, https://doi.org/10.1109/TIP.2003.819861), equation 13 and section III.C: means, variances and
    covariance under a Gaussian window of 11 pixels, wherever it lies within the image.

    Args:
        x, y: (B, C, H, W) in [-1, 1], sides of ``WINDOW`` at least.
    """
    x, y = x.float(), y.float()
    batch, channels = x.shape[:2]
    at = torch.arange(WINDOW, device=x.device, dtype=torch.float32) - WINDOW // 2
    weights = (-at.square() / (2 * DEVIATION**2)).exp()
    weights = (weights / weights.sum()).expand(channels, 1, -1)
    moments = torch.cat([x, y, x * x, y * y, x * y])  # (5 B, C, H, W)
    moments = F.conv2d(moments, weights[..., None, :], groups=channels)
    moments = F.conv2d(moments, weights[..., None], groups=channels)
    mean_x, mean_y, xx, yy, xy = torch.split(moments, batch)
    c1, c2 = (K1 * SPAN) ** 2, (K2 * SPAN) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    index: Tensor = light * (2 * covariance + c2) / (variances + c2)
    return index.mean(dim=(1, 2, 3))
