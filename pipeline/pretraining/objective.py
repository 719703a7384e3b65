"""What a backbone is pretrained to do: to tell the noise in an image, or what stands behind masked patches."""

__all__ = ["WINDOW", "Denoising", "Objective", "Unmasking", "denoise", "ssim"]

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.models.backbones.corruption import CORRUPTIONS, Corruption, alphas_cumprod
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import autocast
from textdiff.options.pretrain import Pretrain
from textdiff.pipeline.pretraining.diffusion_loss import Posterior, training_loss

WINDOW, DEVIATION = 11, 1.5  # pixels of the Gaussian in structural similarity
K1, K2 = 0.01, 0.03
SPAN = 2.0  # of the values


class Objective(ABC):
    """What a crop's step trains on: ``corruption`` says what is seen of the crop, ``loss`` what is wanted of it."""

    corruption: Corruption
    held_out_steps: ClassVar[tuple[int, ...]]
    """The steps at which held-out crops are looked at."""

    def seen(self, x0: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """What the network is given of crops ``x0`` (B, 3, S, S) in [-1, 1] at steps ``t`` (B,)."""
        return self.corruption.apply(x0, t, drawn)

    @abstractmethod
    def loss(self, out: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """The loss of every crop, (B,), from the network's output (B, 3 or 6, S, S)."""

    @abstractmethod
    def error(self, out: Tensor, x0: Tensor, drawn: Tensor) -> Tensor:
        """What is logged of held-out crops, (B,)."""

    @abstractmethod
    def pictures(self, unet: UNet, x0: Tensor, drawn: Tensor, config: Pretrain, precision: str) -> list[Tensor]:
        """The rows of the contact sheet: held-out crops, what is seen of them, what the network makes of that."""


class Denoising(Objective):
    """The noise of a diffusion model is predicted."""

    held_out_steps = (50, 150, 250)

    def __init__(self, loss: str, device: torch.device) -> None:
        self.corruption = CORRUPTIONS["noise"]()
        self.kind, self.posterior = loss, Posterior.linear().to(device)

    def seen(self, x0: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """The noised crops."""
        return self.posterior.noised(x0, t, drawn)

    def loss(self, out: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """As ``training_loss``."""
        return training_loss(out, x0, x_t, t, drawn, self.posterior, self.kind)

    def error(self, out: Tensor, x0: Tensor, drawn: Tensor) -> Tensor:
        """The mean squared error of the noise."""
        return (out[:, :3].float() - drawn).square().mean(dim=(1, 2, 3))

    def pictures(self, unet: UNet, x0: Tensor, drawn: Tensor, config: Pretrain, precision: str) -> list[Tensor]:
        """Crops, noised, denoised, and, where all steps were trained, free samples."""
        start = min(config.t_max, 400) - 1
        x = self.corruption.apply(x0, torch.full((len(x0),), start), drawn)
        rows = [x0, x, denoise(unet, x, start, precision=precision)]
        if config.t_max == 1000:
            rng = torch.Generator().manual_seed(config.seed)
            x = torch.randn(config.samples, 3, config.crop, config.crop, generator=rng).to(x0.device)
            rows.append(denoise(unet, x, 999, precision=precision))
        return rows


class Unmasking(Objective):
    """The clean crop is predicted, from patches that are left of it.

    Masked diffusion (Pan, Chen & Shi 2023, https://arxiv.org/abs/2308.05695), with 1 - SSIM plus the mean absolute
    error as its loss, over all of the crop: the error holds the colours, which structural similarity leaves free.
    """

    held_out_steps = (50, 250, 750)

    def __init__(self) -> None:
        self.corruption = CORRUPTIONS["masked"]()

    def loss(self, out: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """1 - SSIM, plus L1, in [-1, 1]."""
        return self.error(out, x0, drawn)

    def error(self, out: Tensor, x0: Tensor, drawn: Tensor) -> Tensor:
        """The loss."""
        made = out[:, :3].float()  # a network that began as a denoiser may have three more channels
        return 1 - ssim(made, x0) + (made - x0).abs().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def pictures(self, unet: UNet, x0: Tensor, drawn: Tensor, config: Pretrain, precision: str) -> list[Tensor]:
        """Crops, masked by half and by three quarters, and what stands behind."""
        rows = [x0]
        for step in (min(config.t_max, 501) - 1, min(config.t_max, 751) - 1):
            t = torch.full((len(x0),), step, device=x0.device)
            x = self.seen(x0, t, drawn)
            with autocast(x0.device, precision):
                rows += [x, unet(x, t)[:, :3].float()]
        return rows


@torch.no_grad()
def denoise(unet: UNet, x: Tensor, start: int, steps: int = 50, precision: str = "float32") -> Tensor:
    """Follows the reverse process from x_start to an image, deterministically.

    DDIM (Song et al. 2021, https://arxiv.org/abs/2010.02502, equation 12 with sigma 0) on at most ``steps`` timesteps
    spaced evenly from ``start`` to 0. The predicted image is kept within [-1, 1], and the noise made to agree with it.

    ``x`` (B, 3, H, W) float32 is noised to timestep ``start``: pure noise where that is 999. Gives (B, 3, H, W) float32
    in [-1, 1].
    """
    timesteps = np.unique(np.linspace(start, 0, min(steps, start + 1)).round().astype(int))[::-1].tolist()
    kept = alphas_cumprod()
    x0 = x
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        with autocast(x.device, precision):
            eps = unet(x, torch.full((len(x),), t, device=x.device))[:, :3].float()
        signal, spread = kept[t] ** 0.5, (1 - kept[t]) ** 0.5
        x0 = ((x - spread * eps) / signal).clamp(-1, 1)
        if following is not None:
            eps = (x - signal * x0) / spread
            x = kept[following] ** 0.5 * x0 + (1 - kept[following]) ** 0.5 * eps
    return x0


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
