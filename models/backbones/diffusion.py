"""The forward process: how an image is noised for a timestep."""

__all__ = ["STEPS", "alphas_cumprod", "betas", "q_sample", "shared_noise"]

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEPS = 1000  # of the schedule that ADM models are trained with; a timestep is one of 0..999


def betas(steps: int = STEPS) -> NDArray[np.float64]:
    """The linear schedule's variances, (steps,) float64, scaled so that any number of steps ends at the same noise.

    Ho et al. (2020, https://arxiv.org/abs/2006.11239), section 4: 1e-4 to 0.02 over 1000 steps.
    """
    scale = 1000 / steps
    return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)


def alphas_cumprod(steps: int = STEPS) -> NDArray[np.float64]:
    """The share of the signal's variance left at each timestep, (steps,) float64: products of 1 - beta."""
    return np.cumprod(1 - betas(steps), dtype=np.float64)


def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Noises images to timesteps: sqrt(a_t) x0 + sqrt(1 - a_t) noise (Ho et al., equation 4).

    ``x0`` (B or 1, C, H, W) float in [-1, 1], ``t`` (B,) integers in 0..999, ``noise`` (B or 1, C, H, W) standard
    normal. Gives (B, C, H, W) of ``x0``'s dtype on ``x0``'s device.
    """
    at = t.to(x0.device)
    signal, spread = (table[at][:, None, None, None] for table in _tables(x0.device, x0.dtype))
    return signal * x0 + spread * noise


@lru_cache(8)
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t) by t, kept where they are needed: to look steps up on the CPU, a GPU had to stop."""
    with torch.inference_mode(False):  # they may be asked for in training next
        a = torch.from_numpy(alphas_cumprod())  # float64: rounded once, after the square root
        return a.sqrt().to(dtype).to(device), (1 - a).sqrt().to(dtype).to(device)


def shared_noise(seed: int, image_size: int = 256) -> Tensor:
    """The one draw of noise that every image is given, (1, 3, image_size, image_size) float32.

    Drawn on the CPU whatever device computes, so that every device and every worker sees the same noise.
    """
    return torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed))
