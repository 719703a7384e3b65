"""What is done to an image before a backbone sees it: what the backbone was trained to undo."""

__all__ = ["CORRUPTIONS", "PATCH", "STEPS", "Corruption", "Masks", "Noise", "alphas_cumprod", "betas"]

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

STEPS = 1000  # of the schedule that ADM models are trained with; a timestep is one of 0..999
PATCH = 8  # pixels a side of what is masked at once


class Corruption(ABC):
    """A way to take information out of an image, more of it at every step 0..999, by something that is drawn."""

    usual_steps: ClassVar[tuple[int, ...] | None] = None
    """The steps at which features are best read; None for those of the preset."""
    facts: ClassVar[dict[str, Any]] = {}
    """What a cache records of it beside the architecture; nothing of noise, which has always been the usual."""

    @abstractmethod
    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """What is drawn for one square image of ``size`` pixels in training, (C, h, w)."""

    @abstractmethod
    def shared(self, size: int, seed: int) -> Tensor:
        """The one draw for all images whose features are read, (1, C, h, w) float32, made on the CPU."""

    @abstractmethod
    def apply(self, x0: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """The images as they are seen at steps ``t``, of ``x0``'s dtype and on its device.

        Args:
            x0: (B, 3, H, W) float in [-1, 1].
            t: (B,) integers in 0..999.
            drawn: (B or 1, C, h, w), for images of this size or larger ones.
        """


class Noise(Corruption):
    """Gaussian noise, that of diffusion models."""

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Standard normal, (3, size, size)."""
        return rng.standard_normal((3, size, size), np.float32)

    def shared(self, size: int, seed: int) -> Tensor:
        """Standard normal, (1, 3, size, size), on the CPU so that every device and worker sees the same noise."""
        return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))

    def apply(self, x0: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """sqrt(a_t) x0 + sqrt(1 - a_t) noise (Ho et al. 2020, equation 4); of one image as many as there are steps."""
        at, (height, width) = t.to(x0.device), x0.shape[-2:]
        signal, spread = (table[at][:, None, None, None] for table in _tables(x0.device, x0.dtype))
        return signal * x0 + spread * drawn[..., :height, :width]


class Masks(Corruption):
    """Patches of 8 x 8 pixels are made grey, 0 in [-1, 1], a share of t / 1000 of them; no noise.

    Masked diffusion (Pan, Chen & Shi 2023, https://arxiv.org/abs/2308.05695), section 3.2. What is drawn is an order of
    the patches in [0, 1): those below the share are masked, so that what is masked at a step is at every later one. At
    step 0 the whole image is seen. Features are read at step 50, as there.
    """

    usual_steps = (50,)
    facts: ClassVar = {"objective": "masked", "patch": PATCH}

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """The order, (1, size / 8, size / 8), rounded up."""
        side = -(-size // PATCH)
        return ((rng.permutation(side * side) + 0.5) / side**2).astype(np.float32).reshape(1, side, side)

    def shared(self, size: int, seed: int) -> Tensor:
        """The same, (1, 1, size / 8, size / 8)."""
        return torch.from_numpy(self.draw(size, np.random.default_rng([seed, PATCH])))[None]

    def apply(self, x0: Tensor, t: Tensor, drawn: Tensor) -> Tensor:
        """The images without their masked patches; every channel loses the same ones."""
        height, width = x0.shape[-2:]
        drawn = drawn[..., : -(-height // PATCH), : -(-width // PATCH)]
        kept = (drawn >= t.to(x0.device)[:, None, None, None] / STEPS).to(x0.dtype)
        return x0 * F.interpolate(kept, scale_factor=PATCH, mode="nearest")[..., :height, :width]


CORRUPTIONS: dict[str, type[Corruption]] = {"noise": Noise, "masked": Masks}
"""By the objective of ``pretrain``, which a checkpoint records."""


def betas() -> NDArray[np.float64]:
    """The linear schedule's variances, (1000,) float64: 1e-4 to 0.02.

    Ho et al. (2020, https://arxiv.org/abs/2006.11239), section 4.
    """
    return np.linspace(1e-4, 0.02, STEPS, dtype=np.float64)


def alphas_cumprod() -> NDArray[np.float64]:
    """The share of the signal's variance left at each timestep, (1000,) float64: products of 1 - beta."""
    return np.cumprod(1 - betas(), dtype=np.float64)


@lru_cache(8)
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t) by t, kept where they are needed: to look steps up on the CPU, a GPU had to stop."""
    with torch.inference_mode(False):  # they may be asked for in training next
        a = torch.from_numpy(alphas_cumprod())  # float64: rounded once, after the square root
        return a.sqrt().to(dtype).to(device), (1 - a).sqrt().to(dtype).to(device)
