"""Classic filters in place of a network: what a laboratory has without any."""

__all__ = ["CHANNELS", "SIGMAS", "Filters"]

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.models.backbones.base import Backbone

SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the Gaussians in pixels of the resized image, whatever its size."""
REACH = 4.0
"""Standard deviations that a kernel covers."""
CHANNELS = (
    *(f"gaussian {of}" for of in ("red", "green", "blue", "haematoxylin")),
    *(f"gradient magnitude {of}" for of in ("red", "green", "blue", "haematoxylin")),
    *(f"{which} Hessian eigenvalue {of}" for of in ("grey", "haematoxylin") for which in ("larger", "smaller")),
)
"""The twelve filters of a scale, in their order; the scales follow one another."""
# Ruifrok & Johnston (2001), Quantification of histochemical staining by color deconvolution: optical densities in R, G
# and B of haematoxylin, eosin and DAB.
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_DARKEST = 1e-6  # keeps logarithms finite; a stain of 1 is as dark as this
_HAEMATOXYLIN = 10.0  # makes a nucleus about 1, as the colours are
_GREY = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709


class Filters(Backbone):
    """One level of the image's size: ``CHANNELS`` at each of ``SIGMAS``, 48 in all.

    Colours are in [-1, 1], haematoxylin is 10 times the concentration that ``skimage.color.rgb2hed`` gives. Derivatives
    are those of Gaussians, times sigma for each order, so that they are alike at all scales (Lindeberg 1998, Feature
    detection with automatic scale selection, https://doi.org/10.1023/A:1008045108935), and far from float16's bounds.
    """

    reach = int(REACH * max(SIGMAS) + 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.config = {"filters": list(CHANNELS), "sigmas": list(SIGMAS), "reach": REACH}
        self.register_buffer("_stain", torch.from_numpy(np.linalg.inv(_STAINS)[:, 0]).float())
        self.register_buffer("_grey", torch.tensor(_GREY))
        for index, sigma in enumerate(SIGMAS):
            self.register_buffer(f"_kernels{index}", _kernels(sigma))

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """One, of the image's size."""
        return {0: (len(SIGMAS) * len(CHANNELS), image_size, image_size)}

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The 48 filtered images, (B, 48, H, W) float32. Edges are extended by their last pixels."""
        if wrong := set(levels) - {0}:
            raise ValueError(f"there is level 0 alone, not {sorted(wrong)}")
        with torch.autocast(images.device.type, enabled=False):  # sums over many pixels would have bands in bfloat16
            x = self._channels(images)
            return {0: torch.cat([_scale(x, getattr(self, f"_kernels{index}")) for index in range(len(SIGMAS))], 1)}

    def _channels(self, images: Tensor) -> Tensor:
        """Red, green, blue, haematoxylin and grey: (B, 5, H, W)."""
        x = images.float() / 255
        density = x.clamp(min=_DARKEST).log() / np.log(_DARKEST)
        haematoxylin = torch.einsum("bchw,c->bhw", density, self._stain).clamp(min=0)
        colours = 2 * x - 1
        grey = torch.einsum("bchw,c->bhw", colours, self._grey)
        return torch.cat([colours, _HAEMATOXYLIN * haematoxylin[:, None], grey[:, None]], 1)


def _scale(x: Tensor, kernels: Tensor) -> Tensor:
    """``CHANNELS`` at one scale, (B, 12, H, W), of ``x`` (B, 5, H, W)."""

    def derived(x: Tensor, down: int, across: int) -> Tensor:
        reach, channels = kernels.shape[1] // 2, x.shape[1]
        along = kernels[:, None].expand(-1, channels, -1)  # (order, channel, length)
        x = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), along[down][:, None, :, None], groups=channels)
        return F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), along[across][:, None, None], groups=channels)

    stained = x[:, :4]
    gradient = torch.hypot(derived(stained, 1, 0), derived(stained, 0, 1))
    curved = x[:, [4, 3]]
    yy, yx, xx = derived(curved, 2, 0), derived(curved, 1, 1), derived(curved, 0, 2)
    middle, spread = (yy + xx) / 2, torch.hypot((yy - xx) / 2, yx)
    eigenvalues = torch.stack([middle + spread, middle - spread], 2).flatten(1, 2)
    return torch.cat([derived(stained, 0, 0), gradient, eigenvalues], 1)


def _kernels(sigma: float) -> Tensor:
    """A Gaussian of sum 1 and its first two derivatives times sigma and sigma squared: (3, length) float32."""
    reach = int(REACH * sigma + 0.5)
    x = torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma
    gaussian = (-x.square() / 2).exp()
    gaussian = gaussian / gaussian.sum()
    return torch.stack([gaussian, x * gaussian, (x.square() - 1) * gaussian]).float()
