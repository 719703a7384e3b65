"""A level of activations through a head's linear layer and its attention, in pieces that fit a processor's cache.

It is exact because neither lets a pixel see another one: what a piece of a level becomes is that piece of the result.
"""

__all__ = ["Pieces", "project_level"]

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from textdiff.models.networks.kernels.attention import Attend
from textdiff.models.networks.kernels.pointwise import pointwise


class _Limits(NamedTuple):
    piece: int
    """Pixels are worked through in pieces of about this many numbers."""
    keep: int
    """Bytes of intermediate results to keep for the backward pass; beyond it they are computed again, which takes an
    eighth more time."""


# A CPU is fastest while a piece stays in its cache, a GPU while the pieces are few.
CPU_LIMITS = _Limits(piece=2**20, keep=2**30)
GPU_LIMITS = _Limits(piece=2**27, keep=2**32)


class _Place(Function):
    """Writes rows into a buffer that is made for them and read only when it is full.

    Unlike :func:`torch.cat` it lets go of each piece at once: hundreds of megabytes of short-lived pieces between
    long-lived ones would leave as much memory in fragments.
    """

    @staticmethod
    def forward(ctx: Any, buffer: Tensor, piece: Tensor, image: int, start: int) -> Tensor:
        """``buffer`` (B, N, C), changed in place; ``piece`` (b, n, C) becomes its pixels from ``image``, ``start``."""
        ctx.place = slice(image, image + len(piece)), slice(start, start + piece.shape[1])
        buffer[ctx.place] = piece
        ctx.mark_dirty(buffer)
        return buffer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The buffer's gradient goes on as it is: what its pixels held before was nobody's result."""
        return grad, grad[ctx.place], None, None


class Pieces(NamedTuple):
    """How a level is worked through."""

    size: int
    """Pixels in a piece."""
    recompute: bool
    """Whether a piece's intermediate results are computed again in the backward pass instead of kept."""

    @classmethod
    def plan(cls, levels: Sequence[Tensor], width: int, scores: int) -> "Pieces":
        """What suits the device.

        Args:
            levels: per level (B, steps * C_k, h_k, w_k).
            width: channels within the head.
            scores: attention scores of a pixel, heads times tokens; 0 where there is no attention.
        """
        limits = CPU_LIMITS if levels[0].device.type == "cpu" else GPU_LIMITS
        pixels = sum(x.shape[0] * x.shape[2] * x.shape[3] for x in levels)
        kept = 4 * pixels * 6 * (width + scores)  # bytes; six of each kind, near enough
        recompute = scores > 0 and kept > limits.keep
        return cls(max(64, limits.piece // max(width, scores) // 64 * 64), recompute)


def project_level(
    x: Tensor, down: nn.Linear | None, attends: Sequence[Attend | None], width: int, dtype: torch.dtype, pieces: Pieces
) -> Tensor:
    """One level projected and attended.

    Args:
        x: (B, C, h, w), any float dtype.
        down: from C to ``width`` channels; None where C is ``width``.
        attends: for each image of the batch its attention, None for none; or one for all images.
        width: channels of the result.
        dtype: of the result.
        pieces: how it is worked through.

    Returns:
        (B, h, w, width).
    """
    B, _, h, w = x.shape

    def through(piece: Tensor, attend: Attend | None) -> Tensor:
        # In two copies: PyTorch transposes contiguous matrices several times faster than strided ones.
        piece = piece.to(dtype).contiguous().mT.contiguous()  # (n, C), or (B, n, C)
        if down is not None:
            piece = pointwise(piece, down.weight, down.bias)
        return piece if attend is None else attend(piece)

    level = x.new_empty(B, h * w, width, dtype=dtype)
    together = B // len(attends)
    for image, attend in zip(range(0, B, together), attends, strict=True):
        images = x[image : image + together].flatten(2)
        start = 0
        for piece in torch.split(images if together > 1 else images[0], max(1, pieces.size // together), dim=-1):
            if pieces.recompute and torch.is_grad_enabled():
                # The block's last and largest product is not among what is computed again.
                done = checkpoint(through, piece, attend, use_reentrant=False, preserve_rng_state=False)
            else:
                done = through(piece, attend)
            level = _Place.apply(level, done.view(together, -1, width), image, start)  # type: ignore[no-untyped-call]
            start += piece.shape[-1]
    return level.view(B, h, w, width)
