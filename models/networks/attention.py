"""Cross-attention from many pixels to a few text tokens.

With scores (h W_q)(t W_k)^T, the product W_q (t W_k)^T can be folded into one (width, heads x L) matrix per text, and
the values with the output projection into one (heads x L, width) matrix. A pixel then costs 2 x width x heads x L
multiply-adds instead of 2 x width x inner and more, with the same result. Both layer norms fold as well: the affine
part of the first into the scores' matrix, all of the second (the projected output's) into the values' matrix and one
number per pixel.
"""

__all__ = ["CrossAttention", "TransformerBlock"]

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.networks.pointwise import full_precision, pointwise


class CrossAttention(nn.Module):
    """``x + norm_out(output(attention(norm_in(x), text)))`` for pixels ``x`` (N, width).

    Multi-head attention (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.2), as in the blocks of
    latent diffusion (Rombach et al., 2022, https://arxiv.org/abs/2112.10752, section 3.3) but for ``norm_out``.
    """

    def __init__(self, width: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm_in = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(text_dim, inner, bias=False)
        self.value = nn.Linear(text_dim, inner, bias=False)
        self.output = nn.Linear(inner, width)
        self.norm_out = nn.LayerNorm(width)

    def attend_to(self, text: Tensor, mask: Tensor | None, pixels: int) -> Callable[[Tensor], Tensor]:
        """What maps pixels (N, width) to pixels (N, width) for one text, in the cheaper of the two forms.

        Args:
            text: (L, text_dim) token embeddings.
            mask: (L,) bool, False for padding; ``None`` when there is none. A text of nothing but padding says
                nothing: its attention output is zero before the output projection.
            pixels: how many pixels are to come in all, which decides between the forms.
        """
        # Folding is a few small products once per image: in full precision, so that autocast rounds once, not thrice.
        with full_precision(text.device.type):
            text = text.to(self.key.weight.dtype)
            keys, values = self.key(text), self.value(text)  # (L, inner)
            barred = torch.zeros(len(text), dtype=text.dtype, device=text.device)
            if mask is not None:
                # The lowest number rather than -inf, which softmax turns into NaN if there is nothing else.
                barred = barred.masked_fill(~mask, torch.finfo(text.dtype).min)
                values = values.masked_fill(~mask[:, None], 0)
            if self.folded_cost(len(text), pixels) < self.plain_cost(len(text), pixels):
                return self._folded(keys, values, barred)
            return self._plain(keys, values, barred)

    def folded_cost(self, tokens: int, pixels: int) -> int:
        """Multiply-adds of the folded form for one text."""
        inner, width = self.output.in_features, self.output.out_features
        columns = self.heads * tokens
        return pixels * columns * (2 * width + columns) + columns * width * (2 * inner // self.heads + columns)

    def plain_cost(self, tokens: int, pixels: int) -> int:
        """Multiply-adds of the plain form for one text."""
        inner, width = self.output.in_features, self.output.out_features
        return pixels * inner * (2 * width + 2 * tokens)

    def _folded(self, keys: Tensor, values: Tensor, barred: Tensor) -> Callable[[Tensor], Tensor]:
        L, inner = keys.shape
        heads, width = self.heads, self.output.out_features
        keys, values = (a.view(L, heads, -1).transpose(0, 1) for a in (keys, values))  # (heads, L, head_dim)
        query = self.query.weight.view(heads, -1, width) * (inner // heads) ** -0.5
        scores = (keys @ query).flatten(0, 1)  # W_q (t W_k)^T, transposed: (heads L, width)
        score_bias = barred.repeat(heads) + scores @ self.norm_in.bias
        scores = scores * self.norm_in.weight
        project = self.output.weight.t().reshape(heads, -1, width)
        # A head's weights sum to one, so a share of the bias in each of its values adds up to the bias.
        mixed = (values @ project).flatten(0, 1) + self.output.bias / heads
        # Norm_out subtracts the mean over channels, a linear map, and divides by the deviation, a quadratic form.
        mixed = mixed - mixed.mean(1, keepdim=True)
        gram = mixed @ mixed.t() / width
        mixed = (mixed * self.norm_out.weight).t()
        out_bias, eps = self.norm_out.bias, self.norm_out.eps

        def attend(x: Tensor) -> Tensor:
            s = pointwise(_normalized(x), scores, score_bias)  # (N, heads L)
            with full_precision(x.device.type):
                # Pixels last: a CPU takes the softmax of many short vectors fastest side by side.
                p = _transposed(s.to(gram.dtype)).view(heads, L, -1).softmax(1)
                p = _transposed(p.flatten(0, 1))
                p = p * (pointwise(p, gram) * p).sum(1, keepdim=True).add(eps).rsqrt()
            return pointwise(p, mixed, out_bias, residual=x)

        return attend

    def _plain(self, keys: Tensor, values: Tensor, barred: Tensor) -> Callable[[Tensor], Tensor]:
        heads, head_dim = self.heads, keys.shape[1] // self.heads
        query = self.query.weight * head_dim**-0.5
        keys = keys.view(-1, heads, head_dim).transpose(0, 1)  # (heads, L, head_dim)
        values = values.view(-1, heads, head_dim).permute(1, 2, 0)  # (heads, head_dim, L)

        def attend(x: Tensor) -> Tensor:
            q = _transposed(pointwise(self.norm_in(x), query)).view(heads, head_dim, -1)
            s = torch.bmm(keys, q)  # (heads, L, N)
            p = (s.to(barred.dtype) + barred[:, None]).softmax(1)
            h = _transposed(torch.bmm(values, p).flatten(0, 1))  # (N, inner)
            h = pointwise(h, self.output.weight, self.output.bias)
            return x + F.layer_norm(h, x.shape[1:], self.norm_out.weight, self.norm_out.bias).to(x.dtype)

        return attend


class TransformerBlock(nn.Module):
    """Transformer block: two cross-attentions to the text, then GELU and one linear layer, all residual, pre-norm."""

    def __init__(self, width: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.attention1 = CrossAttention(width, text_dim, heads, head_dim)
        self.attention2 = CrossAttention(width, text_dim, heads, head_dim)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Linear(width, width)

    def attend_to(self, text: Tensor, mask: Tensor | None, pixels: int) -> Callable[[Tensor], Tensor]:
        """What maps pixels (N, width) to pixels (N, width) for one text (L, text_dim)."""
        first = self.attention1.attend_to(text, mask, pixels)
        second = self.attention2.attend_to(text, mask, pixels)

        def attend(x: Tensor) -> Tensor:
            x = second(first(x))
            return pointwise(F.gelu(self.norm(x)), self.feed.weight, self.feed.bias, residual=x)

        return attend


def _transposed(x: Tensor) -> Tensor:
    return x.t().contiguous()


def _normalized(x: Tensor) -> Tensor:
    """Zero mean and unit variance over channels: a layer norm whose affine part is applied elsewhere."""
    return F.layer_norm(x, x.shape[-1:])
