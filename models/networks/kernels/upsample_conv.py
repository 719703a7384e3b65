"""3x3 convolution of bilinearly upsampled maps, carried out before the upsampling.

Upsampling acts on positions and a convolution's taps on channels, so the two commute: the nine taps are applied as 1x1
convolutions at native size, and their results upsampled, shifted and summed. With r-fold upsampling that saves up to
r^2 of the multiplications. It is exact: what is shifted in from outside the image is zero, as the convolution's padding
is, while the edges clamp as in the interpolation.

Upsampling and shifting by one tap are separable, so they are two products with banded matrices, done tile by tile: each
tile of output positions reads only the few native ones that it lies between.
"""

__all__ = ["conv_upsampled", "interpolation", "upsample"]

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from textdiff.models.networks.kernels.pointwise import full_precision, pointwise, wants_large_products

# Output positions of a tile: fewer multiply fewer zeros, more make better matrix products. On a CPU 16 was the best of
# 16, 32, 64 and 128. A GPU gets one tile: the zeros cost it less than the launches.
TILE = 16


class _Tile(NamedTuple):
    """Some rows of a banded matrix, and the columns outside of which they are zero."""

    rows: slice
    columns: slice
    values: Tensor
    """(rows, columns)."""


class _Taps(NamedTuple):
    """Interpolation along one axis, shifted by each tap, and the transposes."""

    each: list[list[_Tile]]
    """Three matrices (size, native): row y of tap d interpolates at y + d - 1, zero outside of the image."""
    each_t: list[list[_Tile]]
    joint: list[_Tile]
    """(size, 3 native): all taps at once, for operands whose rows are (native, tap)."""
    joint_t: list[_Tile]


@lru_cache(maxsize=64)
def interpolation(
    native: int, size: int, dtype: torch.dtype, device: torch.device, align_corners: bool = False
) -> Tensor:
    """PyTorch's linear interpolation from ``native`` to ``size`` positions, as a matrix (size, native)."""
    unit = torch.eye(native, dtype=torch.float64, device="cpu")[None]
    return F.interpolate(unit, size=size, mode="linear", align_corners=align_corners)[0].t().to(dtype).to(device)


def upsample(x: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """``x`` (B, C, h, w) bilinearly interpolated to (B, C, H, W), with a gradient that repeats itself on any device.

    On CUDA the gradient of :func:`torch.nn.functional.interpolate` adds up in any order, or by a slow sort. Products
    with the interpolation's two matrices give the same but for rounding, so a GPU gets those.
    """
    if not wants_large_products(x.device):
        return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    rows, columns = (
        interpolation(n, m, x.dtype, x.device, align_corners) for n, m in zip(x.shape[2:], size, strict=True)
    )
    with full_precision(x.device.type):
        return rows @ (x @ columns.mT)


def _tiles(matrix: Tensor, height: int, device: torch.device) -> list[_Tile]:
    tiles = []
    for start in range(0, len(matrix), height):
        rows = slice(start, min(start + height, len(matrix)))
        used = matrix[rows].any(0).nonzero().flatten().tolist() or [0]
        columns = slice(used[0], used[-1] + 1)
        tiles.append(_Tile(rows, columns, matrix[rows, columns].to(device)))
    return tiles


def _taps(native: int, size: int, x: Tensor) -> _Taps:
    """The matrices for one axis of ``x``, in its dtype, on its device and in tiles that suit it."""
    return _make_taps(native, size, size if wants_large_products(x.device) else TILE, x.dtype, x.device)


@lru_cache(maxsize=64)
def _make_taps(native: int, size: int, tile: int, dtype: torch.dtype, device: torch.device) -> _Taps:
    padded = F.pad(interpolation(native, size, dtype, torch.device("cpu")), (0, 0, 1, 1))
    taps = [padded[d : d + size] for d in range(3)]
    joint = torch.stack(taps, 2).flatten(1)
    back = max(1, tile * native // size)
    return _Taps(
        [_tiles(tap, tile, device) for tap in taps],
        [_tiles(tap.t(), back, device) for tap in taps],
        _tiles(joint, tile, device),
        _tiles(joint.t(), 3 * back, device),
    )


def _product(tiles: list[_Tile], x: Tensor) -> Tensor:
    """The banded matrix times each of ``x`` (B, columns, N): (B, rows, N)."""
    y = x.new_empty(len(x), tiles[-1].rows.stop, x.shape[2])
    for tile in tiles:
        torch.bmm(tile.values.expand(len(x), -1, -1), x[:, tile.columns], out=y[:, tile.rows])
    return y


class _Spread(Function):
    """Adds native results of one row tap, or all, upsampled and shifted, to a sum: linear in both, as its backward."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, z: Tensor, tap: int | None) -> Tensor:
        """``total`` (B, K, H, W) channels last, changed in place; ``z`` (B, h, 1, w, 3, K) holds the column taps.

        With a ``tap`` of None ``z`` (B, h, 3, w, 3, K) holds the row taps too.
        """
        B, h, T, w, _, K = z.shape
        H, W = total.shape[2:]
        ctx.shape, ctx.tap, ctx.dtype = z.shape, tap, z.dtype
        # Autocast leaves in-place and out= products alone, so the sums over taps and levels keep total's precision.
        z = z.contiguous().to(total.dtype).view(B * h * T, w * 3, K)
        y = _product(_taps(w, W, z).joint, z).view(B, h * T, W * K)
        rows = total.permute(0, 2, 3, 1).view(B, H, W * K)
        taps = _taps(h, H, z)
        for tile in taps.joint if tap is None else taps.each[tap]:
            rows[:, tile.rows].baddbmm_(tile.values.expand(B, -1, -1), y[:, tile.columns])
        ctx.mark_dirty(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """The transposed products: gradients of ``total``, which is ``grad`` itself, and of ``z``."""
        B, h, T, w, _, K = ctx.shape
        H, W = grad.shape[2:]
        rows = grad.permute(0, 2, 3, 1).reshape(B, H, W * K)
        taps = _taps(h, H, grad)
        y = _product(taps.joint_t if ctx.tap is None else taps.each_t[ctx.tap], rows).view(B * h * T, W, K)
        z = _product(_taps(w, W, grad).joint_t, y)
        return grad, z.view(ctx.shape).to(ctx.dtype), None


def conv_upsampled(levels: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor, size: tuple[int, int]) -> Tensor:
    """The sum of ``conv2d(interpolate(level, size), weight, padding=1)`` over all levels, plus the bias.

    Which is the convolution of the levels' concatenation, interpolated bilinearly (align_corners=False).

    Args:
        levels: maps with channels last, (B, h_k, w_k, C_k), of any sizes.
        weights: (K, C_k, 3, 3) for each.
        bias: (K,).
        size: the output's (H, W).

    Returns:
        (B, K, H, W) in channels-last memory order, at least float32.
    """
    full: list[tuple[Tensor, Tensor]] = []
    small: list[tuple[Tensor, Tensor]] = []
    for x, weight in zip(levels, weights, strict=True):
        # Commuting pays while there are fewer native positions than output ones; at full size it is a convolution.
        (small if x.shape[1] * x.shape[2] < size[0] * size[1] else full).append((x, weight))
    K, dtype = len(bias), torch.promote_types(levels[0].dtype, torch.float32)
    total = bias.to(dtype)[:, None, None].expand(len(levels[0]), K, *size)
    for i, (x, weight) in enumerate(full):
        y = F.conv2d(_resampled(x, size).permute(0, 3, 1, 2), weight, None if i else bias, padding=1).to(dtype)
        total = total + y if i else y
    total = total.contiguous(memory_format=torch.channels_last)
    for x, weight in small:
        B, h, w, _ = x.shape
        if wants_large_products(x.device):
            taps = weight.permute(2, 3, 0, 1).flatten(0, 2)  # (9 K, C_k)
            z = pointwise(x.flatten(0, 2), taps).view(B, h, w, 3, 3, K).transpose(2, 3)
            total = _Spread.apply(total, z, None)  # type: ignore[no-untyped-call]
            continue
        for tap in range(3):
            taps = weight[:, :, tap].permute(2, 0, 1).flatten(0, 1)  # (3 K, C_k)
            z = pointwise(x.flatten(0, 2), taps).view(B, h, 1, w, 3, K)
            total = _Spread.apply(total, z, tap)  # type: ignore[no-untyped-call]
    return total


def _resampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``x`` (B, h, w, C) bilinearly interpolated to (B, H, W, C)."""
    if x.shape[1:3] == size:
        return x
    rows, columns = (interpolation(n, m, x.dtype, x.device) for n, m in zip(x.shape[1:3], size, strict=True))
    return torch.einsum("yh,bhwc,xw->byxc", rows, x, columns)
