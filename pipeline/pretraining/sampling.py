"""Pictures drawn by a diffusion model, and the sheet they are looked at on."""

__all__ = ["contact_sheet", "denoise"]

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from textdiff.files import atomic_path
from textdiff.models.backbones.diffusion import alphas_cumprod
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import autocast


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


def contact_sheet(rows: Sequence[Tensor], path: str | os.PathLike[str], gap: int = 4) -> None:
    """Writes a PNG with one row of pictures for each (n, 3, S, S) tensor in [-1, 1], on white, atomically."""
    size = rows[0].shape[-1]
    sheet = np.full((len(rows) * (size + gap) + gap, max(map(len, rows)) * (size + gap) + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        pictures = ((row.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for j, picture in enumerate(pictures):
            top, left = gap + i * (size + gap), gap + j * (size + gap)
            sheet[top : top + size, left : left + size] = picture
    with atomic_path(path) as partial:
        Image.fromarray(sheet).save(partial)
