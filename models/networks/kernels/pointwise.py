"""Matrix products over pixels, by the fastest route: a linear layer of pixels is a 1x1 convolution of images."""

__all__ = ["full_precision", "pointwise", "wants_large_products"]

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

# PyTorch hands 1x1 convolutions of fewer images than this to the BLAS when it runs on one thread.
BATCH = 16
LARGE = ("cuda", "mps")
"""Kinds of devices that are fastest with few large products. A processor is with pieces that its cache holds."""


def wants_large_products(device: torch.device) -> bool:
    """Whether to do the images of a batch, and the taps of a convolution, at once: each kernel of a GPU has its price.

    Results are the same but for rounding.
    """
    return device.type in LARGE


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias + residual``, of one matrix or of several.

    On a CPU it runs as a 1x1 convolution, which oneDNN computes: on an AMD EPYC (Zen 5) that was measured to be twice
    as fast as :func:`torch.nn.functional.linear`, which MKL computes.

    Args:
        x: (N, C), contiguous; or (B, N, C).
        weight: (D, C); or (B, D, C), one for each of ``x``.
        bias: (D,); or (B, D), one for each.
        residual: (N, D), contiguous, in the result's dtype; or (B, N, D).

    Returns:
        (N, D), or (B, N, D), in autocast's dtype under autocast.
    """
    if weight.dim() == 3:
        y = torch.bmm(x, weight.mT)
        y = y if bias is None else y + (bias if bias.dim() == 1 else bias[:, None]).to(y.dtype)
        return y if residual is None else y + residual
    if x.device.type != "cpu" or x.dim() == 3 or len(x) % BATCH:
        y = F.linear(x, weight, bias)
        return y if residual is None else y + residual
    y = F.conv2d(_as_images(x), weight[:, :, None, None], bias)
    if residual is not None:
        # Here, not on the reshaped result: autograd copies gradients twice for a change in place through a view.
        y += _as_images(residual)
    return y.permute(0, 2, 3, 1).reshape(len(x), -1)


def full_precision(kind: str) -> AbstractContextManager[object]:
    """Suspends autocast on a kind of device, ``cpu`` or ``cuda``, where it exists at all."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _as_images(x: Tensor) -> Tensor:
    """(N, C) as (BATCH, C, N / BATCH, 1) in channels-last order, without a copy."""
    return x.view(BATCH, -1, 1, x.shape[1]).permute(0, 3, 1, 2)
