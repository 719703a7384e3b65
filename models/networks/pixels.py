"""Activations of single pixels, for classifiers that look at one pixel at a time."""

__all__ = ["Pixels", "all_pixels"]

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Pixels:
    """The pixels of N images in a size of S x S, each with the activations of every level, bilinearly upsampled.

    Levels stay at their native size; a pixel is made when it is asked for, as
    :func:`torch.nn.functional.interpolate` makes it (``align_corners=False``).

    Args:
        levels: (N, C_k, h_k, w_k) each.
        size: S.
    """

    def __init__(self, levels: Sequence[Tensor], size: int) -> None:
        self.size = size
        self._levels = [(level.permute(0, 2, 3, 1).flatten(0, 2).contiguous(), *level.shape[2:]) for level in levels]
        self._images = len(levels[0])

    def __len__(self) -> int:
        return self._images * self.size * self.size

    def __getitem__(self, places: Tensor) -> Tensor:
        """The pixels at ``places`` (n,) int64, (image x S + row) x S + column: (n, C_1 + C_2 + ...) float32."""
        found, rows, columns = [], places // self.size, places % self.size
        images, rows = rows // self.size, rows % self.size
        for level, height, width in self._levels:
            above, below, down = self._between(rows, height)
            left, right, along = self._between(columns, width)
            above, below = ((images * height + row) * width for row in (above, below))
            top = torch.lerp(level[above + left].float(), level[above + right].float(), along)
            bottom = torch.lerp(level[below + left].float(), level[below + right].float(), along)
            found.append(torch.lerp(top, bottom, down))
        return torch.cat(found, 1)

    def _between(self, at: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """The two positions of a level that pixels lie between, and the weights (n, 1) of the second."""
        place = ((at + 0.5) * (length / self.size) - 0.5).clamp(min=0)
        first = place.long()
        return first, (first + 1).clamp(max=length - 1), (place - first)[:, None].float()


def all_pixels(levels: Sequence[Tensor], size: int) -> Tensor:
    """Every pixel of an image in a size of S x S, row by row: (S x S, C_1 + C_2 + ...) float32."""
    full = [F.interpolate(level.float(), (size, size), mode="bilinear") for level in levels]
    return torch.cat([level[0].flatten(1) for level in full]).t()
