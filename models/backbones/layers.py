"""The layers of the ADM UNet, with the names and shapes of https://github.com/openai/guided-diffusion.

Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2021, https://arxiv.org/abs/2105.05233), section 3.
"""

__all__ = [
    "AttentionBlock",
    "Downsample",
    "GroupNorm32",
    "ResBlock",
    "Stage",
    "Upsample",
    "timestep_embedding",
    "zeroed",
]

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
    """Sinusoidal embedding of timesteps ``t`` (B,), cosines first: (B, dim) float32; ``dim`` is even.

    Vaswani et al. (2017, https://arxiv.org/abs/1706.03762), section 3.5, in the order ADM was trained with.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t[:, None].float() * frequencies  # (B, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class GroupNorm32(nn.GroupNorm):
    """Group normalisation over 32 groups, computed in float32 under autocast too, returned in the input's dtype."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)
        return y.to(x.dtype)


def zeroed(module: M) -> M:
    """The module with its parameters at zero: a fresh ADM starts with every residual branch silent."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResBlock(nn.Module):
    """Residual block conditioned on the timestep, which may halve or double the size on its way (BigGAN style)."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        out_channels: int,
        use_scale_shift_norm: bool,
        resample: Literal["up", "down"] | None = None,
    ) -> None:
        super().__init__()
        self.use_scale_shift_norm = use_scale_shift_norm
        self.resample = resample
        # The activations are this block's own, so SiLU may overwrite them: at 256x256 that saves hundreds of megabytes.
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(inplace=True), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        emb_out = 2 * out_channels if use_scale_shift_norm else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, emb_out))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(inplace=True),
            nn.Identity(),  # the reference's dropout: keeps the convolution's name, out_layers.3
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)

    def _resize(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``x`` (B, C, H, W), ``emb`` (B, E) -> (B, C', H', W')."""
        norm, silu, conv = self.in_layers
        h = conv(self._resize(silu(norm(x))))
        e = self.emb_layers(emb).to(h.dtype)[:, :, None, None]  # (B, C' or 2C', 1, 1)
        if self.use_scale_shift_norm:
            scale, shift = e.chunk(2, dim=1)
            norm, *rest = self.out_layers
            h = torch.addcmul(shift, norm(h), 1 + scale)
            for layer in rest:
                h = layer(h)
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(self._resize(x)) + h  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Self-attention over all positions of a feature map, residual."""

    def __init__(self, channels: int, num_heads: int, use_new_attention_order: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.use_new_attention_order = use_new_attention_order
        self.norm = GroupNorm32(channels)
        # Convolutions of width 1 in name and shape only: they are applied as matrices, to suit attention's layout.
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); the timestep is not used."""
        B, C, H, W = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        qkv = F.linear(tokens, self.qkv.weight.squeeze(-1), self.qkv.bias)  # (B, HW, 3C)
        if self.use_new_attention_order:
            qkv = qkv.view(B, H * W, 3, self.num_heads, -1)
        else:
            qkv = qkv.view(B, H * W, self.num_heads, 3, -1).transpose(2, 3)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, HW, C / heads)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, H * W, C)
        h = F.linear(h, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + h.transpose(1, 2).reshape(B, C, H, W)


class Downsample(nn.Module):
    """Halves the size by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2); the timestep is not used."""
        return self.op(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Doubles the size by repetition and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W); the timestep is not used."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))  # type: ignore[no-any-return]


class Stage(nn.Sequential):
    """The layers of one numbered block; all but plain convolutions are also given the timestep's embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        """``x`` (B, C, H, W), ``emb`` (B, E) -> (B, C', H', W')."""
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, emb)
        return x
