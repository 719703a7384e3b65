"""The stage-two network as the paper's authors published it, written the straightforward way.

Kept for tests and benchmarks: activations are upsampled first, concatenated, and convolved at full size; attention is
ordinary multi-head attention with every projection carried out for every pixel. State-dict names are the authors'.
"""

__all__ = ["PlainHead"]

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(text_dim, inner, bias=False)
        self.to_v = nn.Linear(text_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.LayerNorm(width))

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(text), self.to_v(text)
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, heads, N, L)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        return self.to_out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.attn1 = Attention(width, text_dim, heads, head_dim)
        self.ff = nn.Module()
        self.ff.net = nn.Sequential(nn.GELU(), nn.Identity(), nn.Linear(width, width))
        self.attn2 = Attention(width, text_dim, heads, head_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn1(self.norm1(x), text, mask) + x
        x = self.attn2(self.norm2(x), text, mask) + x
        return self.ff.net(self.norm3(x)) + x


class PlainHead(nn.Module):
    def __init__(
        self,
        dims: Sequence[int],
        steps: int,
        text_dim: int,
        width: int = 768,
        classes: int = 2,
        image_size: int = 256,
        heads: int | None = None,
        head_dim: int | None = None,
        variant: str = "full",
    ) -> None:
        super().__init__()
        self.width, self.image_size, self.variant = width, image_size, variant
        level = width + text_dim if variant == "concat" else width
        self.decodes = nn.Sequential(
            nn.Conv2d(level * len(dims), 128, 3, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, classes, 3, padding=1),
        )
        if variant == "full":
            self.cross1 = Block(width, text_dim, heads or 8, head_dim or max(8, 64 * width // 768))
        self.names, later = [], []
        for k, dim in enumerate(dims):
            if steps * dim == width:
                self.names.append("")
                continue
            if k and dim not in later:
                later.append(dim)
            name = f"down{later.index(dim) + 2 if k else 1}"
            if not hasattr(self, name):
                setattr(self, name, nn.Conv2d(steps * dim, width, 1))
            self.names.append(name)

    def forward(self, features: list[Tensor], text: Tensor, mask: Tensor | None = None) -> Tensor:
        maps = []
        for level, name in zip(features, self.names, strict=True):
            x = getattr(self, name)(level) if name else level
            h, w = x.shape[-2:]
            if self.variant == "full":
                maps.append(self.cross1(x.flatten(2).transpose(1, 2), text, mask).transpose(1, 2).unflatten(2, (h, w)))
            elif self.variant == "concat":
                weight = torch.ones(text.shape[:2]) if mask is None else mask
                pooled = (text * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
                maps.append(torch.cat([x, pooled[:, :, None, None].expand(-1, -1, h, w)], 1))
            else:
                maps.append(x)
        size = (self.image_size, self.image_size)
        return self.decodes(torch.cat([F.interpolate(x, size=size, mode="bilinear") for x in maps], 1))
