"""What a diffusion model is trained on: the noise, and where it learns them the variances of the reverse steps."""

__all__ = ["Posterior", "training_loss"]

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from textdiff.models.backbones.corruption import alphas_cumprod, betas


class Posterior(NamedTuple):
    """Constants of q(x_{t-1} | x_t, x_0), each (1000,) float32 (Ho et al. 2020, equations 6 and 7).

    ``on_x0`` and ``on_xt`` weigh the two in its mean; ``log_variance`` is at step 0 that of step 1; ``log_beta`` is the
    upper bound of the learned variance.
    """

    kept: Tensor  # alphas_cumprod
    on_x0: Tensor
    on_xt: Tensor
    log_variance: Tensor
    log_beta: Tensor

    @classmethod
    def linear(cls) -> "Posterior":
        """The constants of the linear 1000-step schedule."""
        kept, beta = alphas_cumprod(), betas()
        before = np.append(1.0, kept[:-1])
        variance = beta * (1 - before) / (1 - kept)
        variance[0] = variance[1]  # the chain's last move ends at the image: its own variance, 0, has no logarithm
        values = (
            kept,
            beta * np.sqrt(before) / (1 - kept),
            (1 - before) * np.sqrt(1 - beta) / (1 - kept),
            np.log(variance),
            np.log(beta),
        )
        return cls(*(torch.from_numpy(value).float() for value in values))

    def to(self, device: torch.device) -> "Posterior":
        """The same on ``device``."""
        return Posterior(*(value.to(device) for value in self))

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of ``x0`` (B, C, H, W) for the chain's steps ``t`` (B,)."""
        kept = at(self.kept, t)
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise

    def x0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The image that ``x_t`` comes from if ``eps`` is its noise (Ho et al., equation 4 solved for x_0)."""
        kept = at(self.kept, t)
        return (x_t - (1 - kept).sqrt() * eps) / kept.sqrt()

    def mean(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of x_{t-1} given x_t and ``x0``."""
        return at(self.on_x0, t) * x0 + at(self.on_xt, t) * x_t

    def learned_log_variance(self, v: Tensor, t: Tensor) -> Tensor:
        """The model's log variance: ``v`` in [-1, 1] interpolates between both bounds (Nichol & Dhariwal, eq. 15)."""
        share = (v + 1) / 2
        return share * at(self.log_beta, t) + (1 - share) * at(self.log_variance, t)


def training_loss(
    out: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, posterior: Posterior, loss: str = "hybrid"
) -> Tensor:
    """The loss of every sample, (B,), from the network's output (B, 3 or 6, H, W).

    ``mse`` is the mean squared error of the noise. ``hybrid``, which needs 6 channels, is that of Nichol & Dhariwal
    (2021, https://arxiv.org/abs/2102.09672), equation 16: L_simple + 0.001 L_vlb, L_vlb being 1000 times the drawn
    step's term in bits per dimension. Its gradient reaches only the variance: the mean is detached (section 3.1).
    """
    out = out.float()
    eps = out[:, :3]
    simple = (eps - noise).square().mean(dim=(1, 2, 3))
    if loss == "mse":
        return simple
    return simple + 0.001 * 1000 * vlb_term(eps.detach(), out[:, 3:], x0, x_t, t, posterior)


def vlb_term(eps: Tensor, v: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, posterior: Posterior) -> Tensor:
    """The variational bound's term of step t in bits per dimension, (B,) (Ho et al. 2020, equations 5 and 13)."""
    mean = posterior.mean(posterior.x0(x_t, t, eps), x_t, t)
    log_variance = posterior.learned_log_variance(v, t)
    true_mean, true_log_variance = posterior.mean(x0, x_t, t), at(posterior.log_variance, t)
    divergence = 0.5 * (
        log_variance
        - true_log_variance
        - 1
        + (true_log_variance - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = -discrete_log_likelihood(x0, mean, 0.5 * log_variance)
    first = (t == 0)[:, None, None, None]
    return torch.where(first, likelihood, divergence).mean(dim=(1, 2, 3)) / math.log(2)


def discrete_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of 8-bit levels, ``x`` = level / 127.5 - 1, under a Gaussian whose tails go to 0 and 255."""
    inverse, half = (-log_scale).exp(), 1 / 255
    upper = torch.special.ndtr((x - mean + half) * inverse)
    lower = torch.special.ndtr((x - mean - half) * inverse)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp_min(1e-12).log()


def at(constants: Tensor, t: Tensor) -> Tensor:
    """The constants of steps ``t`` (B,), to multiply with (B, C, H, W)."""
    return constants[t][:, None, None, None]
