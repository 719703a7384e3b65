"""The image itself, blurred, in place of a network's activations: what a backbone has to beat."""

__all__ = ["Blurs"]

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.models.backbones.base import Noised

# Of the 256x256 ADM: eighteen decoder blocks, the third of each level enlarging to the next, from 1/32 of the image up.
BLOCKS, COARSEST = 18, 5
REACH = 4.0  # standard deviations of a Gaussian that its kernel covers


class Blurs(Noised):
    """The noised image at the sizes of the decoder blocks' activations, with no more detail than they can hold.

    Has no weights and learns nothing, so that a head on it shows what heads owe to the colours alone. A level that is f
    times smaller than the image is the image blurred by a Gaussian of f / 2 pixels, averaged over squares of f x f.
    """

    multiple = 2**COARSEST
    follows_presets = True

    def __init__(self) -> None:
        super().__init__()
        self.config = {"levels": "RGB and Gaussian blurs", "standard_deviation": 0.5, "reach": REACH}
        for power in range(1, COARSEST + 1):
            self.register_buffer(f"kernel{2**power}", _gaussian(2.0 ** (power - 1)))

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """The shape (3, h, w) of every level, for square images."""
        return {block: (3, image_size // _factor(block), image_size // _factor(block)) for block in range(BLOCKS)}

    def activations(self, x: Tensor, t: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """Some levels, in ascending order: (B, 3, h, w) each, of ``x`` (B, 3, H, W) float.

        ``t``, the diffusion steps, are seen in ``x`` alone. Edges are extended by their last pixels.

        Raises:
            ValueError: the sides of ``x`` are no multiples of 32.
        """
        if any(side % 2**COARSEST for side in x.shape[-2:]):
            raise ValueError(f"the image's sides must be multiples of {2**COARSEST}, not {tuple(x.shape[-2:])}")
        # A sum over a hundred pixels in bfloat16 would have bands.
        with torch.autocast(x.device.type, enabled=False):
            return {block: self._level(x.float(), _factor(block)) for block in sorted(set(levels))}

    def _level(self, x: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return x
        kernel: Tensor = getattr(self, f"kernel{factor}")
        reach, channels = len(kernel) // 2, x.shape[1]
        along = kernel.expand(channels, 1, -1)
        x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), along[:, :, None], groups=channels)
        x = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), along[..., None], groups=channels)
        return F.avg_pool2d(x, factor)


def _factor(block: int) -> int:
    """How much smaller than the image a decoder block's activation is."""
    return int(2 ** max(0, COARSEST - (block + 1) // 3))


def _gaussian(deviation: float) -> Tensor:
    """A kernel of sum 1, of odd length, float32."""
    reach = int(REACH * deviation + 0.5)
    x = torch.arange(-reach, reach + 1, dtype=torch.float64) / deviation
    weights = (-x.square() / 2).exp()
    return (weights / weights.sum()).float()
