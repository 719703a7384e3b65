"""Cross-attention from many pixels to a few text tokens, folded into two small matrices a text.

The scores are (h W_q)(t W_k)^T for pixels h and tokens t. A matrix product is associative, so W_q (t W_k)^T can be made
once per text, one (width, heads x L) matrix, and so can the values with the output projection, one (heads x L, width)
matrix. A pixel then costs 2 x width x heads x L multiply-adds instead of 2 x width x inner and more, with the same
result. Both layer norms fold as well: the affine part of the first into the scores' matrix, all of the second (the
projected output's) into the values' matrix and one number per pixel.

Long texts have more tokens than it pays for: then every pixel is projected to a query, as in the definition.
"""

__all__ = ["Attend", "block_attention", "cross_attention", "folded", "folded_cost", "projected", "projected_cost"]

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.models.networks.kernels.pointwise import full_precision, pointwise
from textdiff.models.networks.textdiff import CrossAttention, TransformerBlock

Attend = Callable[[Tensor], Tensor]
"""An attention with its text: pixels (N, width) to pixels (N, width); with B texts (B, N, width) to (B, N, width)."""


def block_attention(block: TransformerBlock, text: Tensor, mask: Tensor | None, pixels: int) -> Attend:
    """The transformer block with a text, or several; the arguments are those of :func:`cross_attention`."""
    first = cross_attention(block.attention1, text, mask, pixels)
    second = cross_attention(block.attention2, text, mask, pixels)

    def attend(x: Tensor) -> Tensor:
        x = second(first(x))
        return pointwise(F.gelu(block.norm(x)), block.feed.weight, block.feed.bias, residual=x)

    return attend


def cross_attention(attention: CrossAttention, text: Tensor, mask: Tensor | None, pixels: int) -> Attend:
    """A cross-attention with a text, or with those of several images at once, in the cheaper of the two forms.

    Args:
        attention: the definition, and the weights.
        text: (L, text_dim) token embeddings, or (B, L, text_dim).
        mask: (L,) or (B, L) bool, False for padding; ``None`` when there is none.
        pixels: how many pixels of each image are to come in all, which decides between the forms.
    """
    tokens = text.shape[-2]
    cheaper = folded_cost(attention, tokens, pixels) < projected_cost(attention, tokens, pixels)
    return (folded if cheaper else projected)(attention, text, mask)


def folded_cost(attention: CrossAttention, tokens: int, pixels: int) -> int:
    """Multiply-adds of the folded form for one text."""
    inner, width = attention.output.in_features, attention.output.out_features
    columns = attention.heads * tokens
    return pixels * columns * (2 * width + columns) + columns * width * (2 * inner // attention.heads + columns)


def projected_cost(attention: CrossAttention, tokens: int, pixels: int) -> int:
    """Multiply-adds of the projected form for one text."""
    inner, width = attention.output.in_features, attention.output.out_features
    return pixels * inner * (2 * width + 2 * tokens)


def folded(attention: CrossAttention, text: Tensor, mask: Tensor | None) -> Attend:
    """A cross-attention with a text (..., L, text_dim), every projection of it folded into two matrices."""
    heads, width, inner = attention.heads, attention.output.out_features, attention.output.in_features
    norm_in, norm_out = attention.norm_in, attention.norm_out
    # Folding is a few small products once per image: in full precision, so that autocast rounds once, not thrice.
    with full_precision(text.device.type):
        keys, values, barred = _read(attention, text, mask)
        keys, values = (_split(a, -1, heads).transpose(-3, -2) for a in (keys, values))  # (heads, L, head_dim)
        query = attention.query.weight.view(heads, -1, width) * (inner // heads) ** -0.5
        scores = (keys @ query).flatten(-3, -2)  # W_q (t W_k)^T, transposed: (heads L, width)
        score_bias = torch.cat([barred] * heads, -1) + scores @ norm_in.bias
        scores = scores * norm_in.weight
        project = attention.output.weight.t().reshape(heads, -1, width)
        # A head's weights sum to one, so a share of the bias in each of its values adds up to the bias.
        mixed = (values @ project).flatten(-3, -2) + attention.output.bias / heads
        # Norm_out subtracts the mean over channels, a linear map, and divides by the deviation, a quadratic form.
        mixed = mixed - mixed.mean(-1, keepdim=True)
        gram = mixed @ mixed.mT / width
        mixed = (mixed * norm_out.weight).mT

    def attend(x: Tensor) -> Tensor:
        s = pointwise(_normalized(x), scores, score_bias)  # (N, heads L)
        with full_precision(x.device.type):
            # Pixels last: a CPU takes the softmax of many short vectors fastest side by side.
            p = _split(_transposed(s.to(gram.dtype)), -2, heads).softmax(-2)
            p = _transposed(p.flatten(-3, -2))
            p = p * (pointwise(p, gram) * p).sum(-1, keepdim=True).add(norm_out.eps).rsqrt()
        return pointwise(p, mixed, norm_out.bias, residual=x)

    return attend


def projected(attention: CrossAttention, text: Tensor, mask: Tensor | None) -> Attend:
    """A cross-attention with a text (..., L, text_dim), each pixel projected to a query: the definition by products."""
    heads = attention.heads
    with full_precision(text.device.type):
        keys, values, barred = _read(attention, text, mask)
        head_dim = keys.shape[-1] // heads
        query = attention.query.weight * head_dim**-0.5
        keys = _split(keys, -1, heads).transpose(-3, -2)  # (heads, L, head_dim)
        values = _split(values, -1, heads).transpose(-3, -2).mT  # (heads, head_dim, L)

    def attend(x: Tensor) -> Tensor:
        q = _split(_transposed(pointwise(attention.norm_in(x), query)), -2, heads)
        s = keys @ q  # (heads, L, N)
        p = (s.to(barred.dtype) + barred[..., None, :, None]).softmax(-2)
        h = _transposed((values @ p).flatten(-3, -2))  # (N, inner)
        h = pointwise(h, attention.output.weight, attention.output.bias)
        return x + F.layer_norm(h, x.shape[-1:], attention.norm_out.weight, attention.norm_out.bias).to(x.dtype)

    return attend


def _read(attention: CrossAttention, text: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of a text, (..., L, inner) each, and what is added to the scores of each token, (..., L)."""
    text = text.to(attention.key.weight.dtype)
    keys, values = attention.key(text), attention.value(text)
    barred = torch.zeros(text.shape[:-1], dtype=text.dtype, device=text.device)
    if mask is not None:
        # The lowest number rather than -inf, which softmax turns into NaN if there is nothing else.
        barred = barred.masked_fill(~mask, torch.finfo(text.dtype).min)
        values = values.masked_fill(~mask[..., None], 0)
    return keys, values, barred


def _split(x: Tensor, dim: int, heads: int) -> Tensor:
    """``x`` with its dimension ``dim`` as two, heads and what each has."""
    split: Tensor = x.unflatten(dim, (heads, -1))  # type: ignore[no-untyped-call]
    return split


def _transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous()


def _normalized(x: Tensor) -> Tensor:
    """Zero mean and unit variance over channels: a layer norm whose affine part is applied elsewhere."""
    return F.layer_norm(x, x.shape[-1:])
