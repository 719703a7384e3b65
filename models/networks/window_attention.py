"""Attention within windows of a map, every other time shifted ones: the blocks of the Swin Transformer.

Source: Liu et al., ICCV 2021, https://arxiv.org/abs/2103.14030, sections 3.1 and 3.2.
"""

__all__ = ["SwinBlock", "resized_table"]

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BARRED = -100.0  # as published: large enough for a softmax, and finite


class SwinBlock(nn.Module):
    """``x + attention(norm1(x))``, then ``x + mlp(norm2(x))``, on maps (B, H, W, C).

    Args:
        width: C.
        heads: of the attention; they divide ``width``.
        side: H and W, a multiple of ``window``.
        window: pixels along a side of a window.
        shifted: attend in windows moved by half a window, unless the map is a single one.
        drop: probability that an image in training skips a residual branch (stochastic depth, Huang et al., 2016,
            https://arxiv.org/abs/1603.09382).
    """

    def __init__(self, width: int, heads: int, side: int, window: int, shifted: bool, drop: float) -> None:
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted and side > window else 0
        self.drop = drop
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), gelu=nn.GELU(), fc2=nn.Linear(4 * width, width))
        )
        barred = _barred(side, window, self.shift) if self.shift else None
        self.register_buffer("barred", barred, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        h = self.norm1(x).roll((-self.shift, -self.shift), (1, 2))
        h = self.attn(_windows(h, self.window), self.barred)
        h = _joined(h, x.shape[1], self.window).roll((self.shift, self.shift), (1, 2))
        x = x + self.drop_branch(h)
        return x + self.drop_branch(self.mlp(self.norm2(x)))

    def drop_branch(self, x: Tensor) -> Tensor:
        """A branch with some images' zeroed in training, and the others' scaled up for it."""
        if not self.training or self.drop == 0:
            return x
        kept = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.drop)
        return x * (kept / (1 - self.drop))


class _WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learnt number per head for every relative position."""

    index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", _relative_positions(window), persistent=False)

    def forward(self, x: Tensor, barred: Tensor | None) -> Tensor:
        """Windows of tokens (B, windows, T, C), and what is added to each window's scores: (windows, T, T)."""
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)  # (heads, T, T)
        if barred is not None:
            bias = bias + barred[:, None]  # (windows, heads, T, T)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        query = query * query.shape[-1] ** -0.5  # (B, windows, heads, T, C / heads)
        weights = (query @ key.mT + bias).softmax(-1)
        attended: Tensor = self.proj((weights @ value).transpose(2, 3).flatten(-2))
        return attended


def resized_table(table: Tensor, window: int) -> Tensor:
    """A table of relative positions ((2 w - 1)^2, heads) for another window, by bicubic interpolation.

    So do the Swin Transformer's authors when they train on with larger images. What is no such table is left alone.
    """
    before, after = round(table.shape[:1].numel() ** 0.5), 2 * window - 1
    if before == after or before % 2 == 0 or table.ndim != 2 or len(table) != before**2:
        return table
    grid = table.float().t().reshape(1, -1, before, before)
    return F.interpolate(grid, size=(after, after), mode="bicubic").flatten(2)[0].t()


def _windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B, windows, window^2, C), both row by row."""
    B, H, W, C = x.shape
    return x.view(B, H // window, window, W // window, window, C).transpose(2, 3).reshape(B, -1, window**2, C)


def _joined(x: Tensor, side: int, window: int) -> Tensor:
    """The inverse of :func:`_windows` for a map of ``side`` x ``side``."""
    B, _, _, C = x.shape
    x = x.view(B, side // window, side // window, window, window, C)
    return x.transpose(2, 3).reshape(B, side, side, C)


def _relative_positions(window: int) -> Tensor:
    """The table's row for every pair of a window's tokens, query first: (T, T)."""
    row, column = torch.arange(window).repeat_interleave(window), torch.arange(window).repeat(window)
    down, right = row[:, None] - row, column[:, None] - column
    return (down + window - 1) * (2 * window - 1) + right + window - 1


def _barred(side: int, window: int, shift: int) -> Tensor:
    """What keeps apart, in a window that rolling composed of opposite edges, the pixels of either: (windows, T, T)."""
    place = torch.arange(side)
    edge = (place >= side - window).int() + (place >= side - shift).int()
    region = _windows((3 * edge[:, None] + edge)[None, ..., None], window)[0, ..., 0]  # (windows, T)
    return _BARRED * (region[:, :, None] != region[:, None]).float()
