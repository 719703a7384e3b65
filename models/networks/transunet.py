"""TransUNet: a U-Net whose deepest level is a vision transformer on a ResNet-50."""

__all__ = ["TransUNet"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.arguments import arguments
from textdiff.models.networks.decoder_block import DecoderBlock, convolution
from textdiff.models.networks.kernels.upsample_conv import upsample
from textdiff.models.networks.reference_names import copy_reference
from textdiff.models.networks.vit_npz import read_vit


class TransUNet(nn.Module):
    """R50 + ViT-B/16 of Chen et al. (https://arxiv.org/abs/2102.04306, https://github.com/Beckschen/TransUNet).

    A ResNet with weight standardisation and group normalisation makes 1/16 of the image's size, a transformer without
    class token attends over it, and a decoder with bilinear upsampling reads the ResNet's features on its way up.
    105,322,146 parameters for images of 256 pixels and two classes, 105,276,066 for 224 pixels. Module names are
    theirs.

    Args:
        classes: classes, background included.
        image_size: the images' side in pixels, a multiple of 16; every patch has a position embedding of its own.
        width: channels of the stem, a multiple of 32; the ResNet's blocks have 4, 8 and 16 times as many.
        units: residual units of each block.
        dim: width of a token.
        depth: layers of the transformer.
        heads: attention heads.
        mlp: hidden width of the transformer's MLPs.
        decoder: channels below the decoder, then of its four blocks.
        dropout: of the embedded tokens and in the MLPs.

    Raises:
        ValueError: ``image_size``, ``width`` or ``heads`` do not divide as they must.
    """

    def __init__(
        self,
        classes: int = 2,
        image_size: int = 256,
        width: int = 64,
        units: Sequence[int] = (3, 4, 9),
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        decoder: Sequence[int] = (512, 256, 128, 64, 16),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        if image_size < 32 or image_size % 16:
            raise ValueError(f"image_size {image_size}: use a multiple of 16 from 32 on")
        if width % 32:
            raise ValueError(f"width {width}: use a multiple of 32, the groups of a normalisation")
        if dim % heads:
            raise ValueError(f"dim {dim}: use a multiple of the {heads} heads")
        self.transformer = _Transformer(image_size // 16, width, units, dim, depth, heads, mlp, dropout)
        self.decoder = _Decoder(dim, (8 * width, 4 * width, width, 0), decoder)
        self.segmentation_head = nn.Sequential(nn.Conv2d(decoder[-1], classes, 3, padding=1))

    def scores(self, x: Tensor) -> Tensor:
        """Scores before the softmax: (B, 3, S, S) float -> (B, classes, S, S).

        Raises:
            ValueError: S is not ``image_size``.
        """
        size = self.config["image_size"]
        if x.ndim != 4 or x.shape[1:] != (3, size, size):
            raise ValueError(
                f"images are {tuple(x.shape)}; a TransUNet of image_size {size} reads (B, 3, {size}, {size})"
            )
        scores: Tensor = self.segmentation_head(self.decoder(*self.transformer(x)))
        return scores

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict of the authors' network.

        Raises:
            UserError: entries are missing, unknown or of another shape; nothing has changed then.
        """
        fix = "use the image_size, classes and sizes that they were trained with"
        copy_reference(state, self.state_dict(), "TransUNet", fix)

    def load_pretrained(self, path: Path) -> None:
        """Loads ResNet and transformer from Google's ``R50+ViT-B_16.npz`` (ImageNet-21k); see :func:`read_vit`.

        Raises:
            UserError: the file is missing or damaged, or an array is missing or of another shape; nothing has changed
                then.
        """
        ours = self.transformer.state_dict()
        shapes = {name: tuple(value.shape) for name, value in ours.items()}
        with torch.no_grad():
            for name, value in read_vit(path, shapes, self.config["heads"]).items():
                ours[name].copy_(value)


class _StandardConv(nn.Conv2d):
    """A bias-free convolution whose weights have mean 0 and variance 1 per output channel (arXiv:1903.10520)."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1) -> None:
        super().__init__(before, after, size, stride, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


class _Bottleneck(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        inner = after // 4
        self.conv1 = _StandardConv(before, inner, 1)
        self.gn1 = nn.GroupNorm(32, inner, eps=1e-6)
        self.conv2 = _StandardConv(inner, inner, 3, stride)
        self.gn2 = nn.GroupNorm(32, inner, eps=1e-6)
        self.conv3 = _StandardConv(inner, after, 1)
        self.gn3 = nn.GroupNorm(32, after, eps=1e-6)
        self.relu = nn.ReLU(inplace=True)
        self.projects = before != after
        if self.projects:
            self.downsample = _StandardConv(before, after, 1, stride)
            self.gn_proj = nn.GroupNorm(after, after)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.gn_proj(self.downsample(x)) if self.projects else x
        x = self.relu(self.gn1(self.conv1(x)))
        x = self.relu(self.gn2(self.conv2(x)))
        result: Tensor = self.relu(self.gn3(self.conv3(x)) + shortcut)
        return result


class _ResNet(nn.Module):
    """(B, 3, S, S) -> features of 1/16 the size, and the skips of 1/8, 1/4 and 1/2."""

    def __init__(self, width: int, units: Sequence[int]) -> None:
        super().__init__()
        self.root = nn.Sequential()
        self.root.add_module("conv", _StandardConv(3, width, 7, stride=2))
        self.root.add_module("gn", nn.GroupNorm(32, width, eps=1e-6))
        self.root.add_module("relu", nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2)
        self.body = nn.ModuleDict()
        before = width
        for level, count in enumerate(units):
            after = 4 * width << level
            block = nn.Sequential()
            for unit in range(count):
                block.add_module(f"unit{unit + 1}", _Bottleneck(before, after, stride=2 if level and not unit else 1))
                before = after
            self.body[f"block{level + 1}"] = block

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.root(x)
        skips = [x]
        x = self.pool(x)
        for block in self.body.values():
            x = block(x)
            skips.append(x)
        # The unpadded pooling leaves 4n - 1 pixels a side where the decoder has 4n; the next block reads them unpadded.
        skips[1] = F.pad(skips[1], (0, 1, 0, 1))
        return skips.pop(), skips[::-1]


class _Embeddings(nn.Module):
    def __init__(self, grid: int, width: int, units: Sequence[int], dim: int, dropout: float) -> None:
        super().__init__()
        self.hybrid_model = _ResNet(width, units)
        self.patch_embeddings = nn.Conv2d(4 * width << (len(units) - 1), dim, 1)
        self.position_embeddings = nn.Parameter(torch.zeros(1, grid * grid, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, skips = self.hybrid_model(x)
        tokens = self.patch_embeddings(x).flatten(2).transpose(1, 2)  # (B, grid * grid, dim)
        return self.dropout(tokens + self.position_embeddings), skips


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        split = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(*split)  # (B, heads, tokens, dim / heads)
        result: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return result


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))
        return result


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.ffn_norm = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = _FeedForward(dim, hidden, dropout)
        self.attn = _Attention(dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attention_norm(x))
        result: Tensor = x + self.ffn(self.ffn_norm(x))
        return result


class _Encoder(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(_Layer(dim, heads, hidden, dropout) for _ in range(depth)))
        self.encoder_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.encoder_norm(self.layer(x))
        return result


class _Transformer(nn.Module):
    """(B, 3, S, S) -> tokens (B, dim, S / 16, S / 16), and the ResNet's skips of 1/8, 1/4 and 1/2."""

    def __init__(
        self,
        grid: int,
        width: int,
        units: Sequence[int],
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.embeddings = _Embeddings(grid, width, units, dim, dropout)
        self.encoder = _Encoder(dim, depth, heads, hidden, dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens, skips = self.embeddings(x)
        return self.encoder(tokens).transpose(1, 2).unflatten(2, (self.grid, self.grid)), skips


class _Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return upsample(x, (2 * x.shape[2], 2 * x.shape[3]), align_corners=True)


class _Decoder(nn.Module):
    def __init__(self, dim: int, skips: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.conv_more = convolution(dim, widths[0])
        self.blocks = nn.ModuleList(
            DecoderBlock(*sizes, _Double()) for sizes in zip(widths[:-1], skips, widths[1:], strict=True)
        )

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        x = self.conv_more(x)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return x
