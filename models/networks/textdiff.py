"""The network of TextDiff as the paper defines it, computed the plain way.

Feng, "Enhancing Label-efficient Medical Image Segmentation with Text-guided Diffusion Models", MICCAI 2024
(https://arxiv.org/abs/2407.05323), section 2, with the sizes of the authors' code: the three ``forward`` methods below
are the whole method of stage two. What is trained is :class:`textdiff.models.networks.head.Head`, the same network by
shortcuts that are exact; tests hold it to this file.
"""

__all__ = [
    "CrossAttention",
    "TextDiff",
    "TransformerBlock",
    "mean_token",
    "placed",
    "standardised",
]

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.networks.norms import NORMS


class CrossAttention(nn.Module):
    """``x + norm_out(output(attention(norm_in(x), text)))`` for pixels ``x``.

    Multi-head attention (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.2), as in the blocks of
    latent diffusion (Rombach et al., 2022, https://arxiv.org/abs/2112.10752, section 3.3) but for ``norm_out``. A text
    of nothing but padding says nothing: its attention is zero before the output projection.
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

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (B, N, width), ``text`` (B, L, text_dim) and ``mask`` (B, L), False for padding, to (B, N, width)."""
        return x + self.said(x, text, mask)

    def said(self, x: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the text adds to every pixel; shapes as in ``forward``."""
        v = self.value(text).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, head_dim)
        if mask is not None:
            v = v.masked_fill(~mask[:, None, :, None], 0)
        h = self.weights(x, text, mask) @ v  # (B, heads, N, head_dim); Vaswani et al., equation 1
        said: Tensor = self.norm_out(self.output(h.transpose(1, 2).flatten(2)))  # (B, N, width)
        return said

    def weights(self, x: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much of each pixel's attention goes to each token: (B, heads, N, L), over L they add up to 1."""
        q, k = self.query(self.norm_in(x)), self.key(text)
        q, k = (a.unflatten(2, (self.heads, -1)).transpose(1, 2) for a in (q, k))  # (B, heads, N or L, head_dim)
        s = q @ k.transpose(2, 3) * q.shape[3] ** -0.5  # (B, heads, N, L)
        if mask is not None:
            s = s.masked_fill(~mask[:, None, None], torch.finfo(s.dtype).min)
        shares: Tensor = s.softmax(3)
        return shares


class TransformerBlock(nn.Module):
    """Transformer block: two cross-attentions to the text, then GELU and one linear layer, all residual, pre-norm."""

    def __init__(self, width: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.attention1 = CrossAttention(width, text_dim, heads, head_dim)
        self.attention2 = CrossAttention(width, text_dim, heads, head_dim)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (B, N, width), ``text`` (B, L, text_dim) and ``mask`` (B, L), False for padding, to (B, N, width)."""
        x = self.attention1(x, text, mask)
        x = self.attention2(x, text, mask)
        x = x + self.feed(F.gelu(self.norm(x)))
        return x


class TextDiff(nn.Module):
    """Activations of several decoder blocks, and a text, to class scores of every pixel; ``Head`` has the arguments."""

    def __init__(
        self,
        dims: Sequence[int],
        steps: int,
        text_dim: int,
        width: int,
        classes: int,
        image_size: int,
        heads: int,
        head_dim: int,
        variant: str,
        hidden: Sequence[int],
        norm: str,
        standardise: bool,
        positions: bool,
        mapped: bool = False,
    ) -> None:
        super().__init__()
        self.variant, self.width, self.image_size = variant, width, image_size
        self.standardise, self.positions = standardise, positions
        self.down = nn.ModuleDict()
        self.routes: list[str | None] = []  # by level: the name of its projection
        sizes = [steps * dim + (2 if positions else 0) + mapped for dim in dims]
        later = list(dict.fromkeys(size for size in sizes[1:] if size != width))
        for k, size in enumerate(sizes):
            name = None if size == width else str(later.index(size) + 2) if k else "1"
            if name is not None and name not in self.down:
                self.down[name] = nn.Linear(size, width)
            self.routes.append(name)
        if variant == "full":
            self.block = TransformerBlock(width, text_dim, heads, head_dim)
        level = width + text_dim if variant == "concat" else width
        self.conv1 = nn.Conv2d(level * len(dims), hidden[0], 3, padding=1)
        self.norm1 = NORMS[norm](hidden[0])
        self.conv2 = nn.Conv2d(hidden[0], hidden[1], 3, padding=1)
        self.norm2 = NORMS[norm](hidden[1])
        self.conv3 = nn.Conv2d(hidden[1], classes, 3, padding=1)

    def forward(self, features: Sequence[Tensor], text: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """Scores before the softmax: projection, cross-attention, upsampling, concatenation, pixel classifier.

        Args:
            features: per level (B, steps * C_k, h_k, w_k), any float dtype, at native size.
            text: (B, L, D) token embeddings; ignored by ``no-text``.
            text_mask: (B, L) bool, False for padding; ``None`` when there is none.

        Returns:
            (B, classes, S, S) for images of S x S pixels.
        """
        levels = []
        for level, name in zip(features, self.routes, strict=True):
            B, _, h, w = level.shape
            x = standardised(level) if self.standardise else level  # (B, steps C, h, w)
            x = placed(x) if self.positions else x  # (B, steps C + 2, h, w)
            x = x.flatten(2).transpose(1, 2).to(self.conv1.weight.dtype)  # (B, h w, steps C): a vector per pixel
            if name is not None:
                x = self.down[name](x)  # (B, h w, width)
            if self.variant == "full":
                x = self.block(x, text, text_mask)  # (B, h w, width)
            elif self.variant == "concat":
                x = torch.cat([x, mean_token(text, text_mask)[:, None].expand(-1, h * w, -1)], 2)
            x = x.transpose(1, 2).reshape(B, -1, h, w)  # (B, width, h, w)
            levels.append(F.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear"))
        x = torch.cat(levels, 1)  # (B, levels width, S, S)
        x = F.relu(self.norm1(self.conv1(x)))  # (B, 128, S, S): the authors' sizes
        x = F.relu(self.norm2(self.conv2(x)))  # (B, 32, S, S)
        scores: Tensor = self.conv3(x)  # (B, classes, S, S)
        return scores


def standardised(x: Tensor) -> Tensor:
    """Activations (B, C, h, w) with mean 0 and standard deviation 1 over the pixels, per image and channel: float32.

    A channel that is constant over an image comes out as zero.
    """
    # On a CPU the layer normalisation of the pixels takes a third of the time of mean, variance and quotient.
    return F.layer_norm(x.float(), x.shape[2:], eps=1e-6)


def placed(x: Tensor) -> Tensor:
    """Activations (B, C, h, w) with the places of their pixels' centres as two more channels: (B, C + 2, h, w).

    The first is from -1 at the left edge to 1 at the right one, the second the same from the top to the bottom. Not in
    the paper, whose attention sees every pixel alike wherever it is.
    """
    B, _, h, w = x.shape
    down, right = ((torch.arange(n, device=x.device, dtype=x.dtype) * 2 + 1) / n - 1 for n in (h, w))
    return torch.cat([x, right.expand(B, 1, h, w), down[:, None].expand(B, 1, h, w)], 1)


def mean_token(text: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens that are not padding: (B, L, D) -> (B, D); zero where all is padding."""
    if mask is None:
        return text.mean(1)
    weight = mask[..., None].to(text.dtype)
    return (text * weight).sum(1) / weight.sum(1).clamp(min=1)
