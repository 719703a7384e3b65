"""LViT: a U-Net beside a vision transformer that reads the text, one of the networks that the paper compares with."""

__all__ = ["DEAD", "LViT", "to_reference"]

import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.arguments import arguments
from textdiff.models.networks.reference_names import copy_reference

_LEVELS = range(4)
_PATCH = 16  # pixels along a side of a token, in the image
DEAD = re.compile(
    r"(down|up)Vit\d?\.(norm|head)\."
    r"|upVit\d?\.embeddings\."
    r"|downVit\.CTBN2?\.|downVit[123]\.CTBN[23]\."
    r"|upVit[12]?\.CTBN3?\.|upVit3\.CTBN[23]?\."
    r"|up\d\.pixModule\.conv_sig\.|pix_module\d\."
)
"""Begins the names of weights that the authors' program makes, saves and never uses."""


class LViT(nn.Module):
    """The network of Li et al., IEEE TMI 2023 (https://arxiv.org/abs/2206.14718), figure 2, as published.

    A U-Net of four levels; beside each level a transformer block going down and one going up, on 14x14 tokens at 224
    pixels. The text is added to the tokens of the first level. What the transformers make of the tokens is added to the
    U-Net's skip connections. 29,908,033 parameters with a logit; the 10,025,312 that the authors' program makes and
    never uses are not made here. Written anew from the paper and from facts about that program.

    Args:
        classes: background included; for two there is one score, the logit of the second, else one per class.
        image_size: the side of the images, a multiple of 16.
        width: channels of the first level.
        heads: attention heads of every transformer block.
        text_tokens: tokens of every text; the number is built in, as tokens are channels of a convolution.
        text_dim: the width of the texts' embeddings.
        dropout: probability that a number is dropped in training, of the patches and within transformer blocks.
    """

    def __init__(
        self,
        classes: int = 2,
        image_size: int = 224,
        width: int = 64,
        heads: int = 8,
        text_tokens: int = 10,
        text_dim: int = 768,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        if image_size % _PATCH or image_size <= 0:
            raise ValueError(f"image_size {image_size}: must be a multiple of {_PATCH}, as 224")
        self.image_size, self.text_shape = image_size, (text_tokens, text_dim)
        widths = [width << level for level in _LEVELS]  # 64, 128, 256, 512
        tokens = (image_size // _PATCH) ** 2

        self.stem = _Layer(3, width)
        self.down = nn.ModuleList(_two_layers(w, v) for w, v in zip(widths, [*widths[1:], widths[-1]], strict=True))
        self.text = nn.ModuleList(
            nn.Conv1d(before, after, 3, padding=1)
            for before, after in zip([*widths[1:], text_dim], widths, strict=True)
        )

        def block(level: int) -> _Block:
            return _Block(widths[level], heads, dropout)

        patches = [_Patches(widths[level], _PATCH >> level, tokens, dropout) for level in _LEVELS]
        self.down_tokens = nn.ModuleList([_First(patches[0], block(0), _TokenLayer(text_tokens, tokens))])
        self.up_tokens = nn.ModuleList()
        for level in _LEVELS:
            if level:
                narrow = _TokenLayer(widths[level], widths[level - 1])
                self.down_tokens.append(_Joined(patches[level], block(level), narrow))
            widen = _TokenLayer(widths[level + 1], widths[level]) if level < _LEVELS[-1] else None
            self.up_tokens.append(_Up(block(level), widen))
        self.rebuild = nn.ModuleList(_Layer(w, w, size=1) for w in widths)
        # The bottom of the U-Net is as wide as its lowest level.
        self.up = nn.ModuleList(_Decoder(w, max(w // 2, width)) for w in widths)
        self.head = nn.Conv2d(width, 1 if classes == 2 else classes, 1)

    def scores(self, x: Tensor, text: Tensor) -> Tensor:
        """Scores before the sigmoid or softmax.

        Args:
            x: normalised images (B, 3, S, S) float.
            text: embeddings of their tokens (B, 10, 768) float; the padding of a shorter text is read as text.

        Returns:
            (B, 1, S, S) for two classes, the logit of the second; else (B, classes, S, S).

        Raises:
            ValueError: images or texts have another size than the network was made for.
        """
        wanted = (len(x), 3, self.image_size, self.image_size)
        if tuple(x.shape) != wanted:
            raise ValueError(
                f"images of shape {tuple(x.shape)}: this network takes {wanted}; resize them, or make it with another"
                " image_size"
            )
        if tuple(text.shape) != (len(x), *self.text_shape):
            raise ValueError(
                f"texts of shape {tuple(text.shape)}: this network takes {(len(x), *self.text_shape)};"
                " cut or pad them to so many tokens"
            )
        maps = [self.stem(x)]  # (B, 64, S, S)
        for down in self.down:
            maps.append(down(F.max_pool2d(maps[-1], 2)))  # (B, 128, S / 2, S / 2) ... (B, 512, S / 16, S / 16)
        tokens = self._tokens(maps, text)
        x = maps.pop()
        for level in reversed(_LEVELS):
            side = self.image_size // _PATCH
            grid = tokens[level].mT.reshape(len(x), -1, side, side)  # (B, C, 14, 14)
            rebuilt = self.rebuild[level](F.interpolate(grid, scale_factor=_PATCH >> level, mode="nearest"))
            x = self.up[level](x, maps[level] + rebuilt)
        scores: Tensor = self.head(x)
        return scores

    def _tokens(self, maps: list[Tensor], text: Tensor) -> list[Tensor]:
        """What the transformers make of the maps (B, C, s, s) of the levels and the text: (B, 196, C) each."""
        words = text.mT  # (B, 768, 10)
        for narrow in reversed(self.text):
            words = narrow(words)
        beside = words.mT  # (B, 10, 64)
        down = []
        for level in _LEVELS:
            beside = self.down_tokens[level](maps[level], beside)
            down.append(beside)
        up: list[Tensor] = []
        for level in reversed(_LEVELS):
            up.insert(0, self.up_tokens[level](down[level], up[0] if up else None))
        return up

    def reference_state_dict(self) -> dict[str, Tensor]:
        """The weights under the authors' names, without those that they never use; tensors are shared."""
        return {to_reference(name): value for name, value in self.state_dict().items()}

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict of the authors' program; a ``module.`` prefix is understood, unused weights are passed by.

        Raises:
            UserError: entries are missing, unknown or of another shape; nothing has been loaded then.
        """
        given = {name: value for name, value in state.items() if not DEAD.match(name.removeprefix("module."))}
        copy_reference(given, self.reference_state_dict(), "LViT", "use the image size and width of their training")


class _Layer(nn.Module):
    """Convolution, batch normalisation, ReLU: (B, before, H, W) -> (B, after, H, W)."""

    def __init__(self, before: int, after: int, size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, padding=size // 2)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def _two_layers(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_Layer(before, after), _Layer(after, after))


class _TokenLayer(nn.Module):
    """The same along a sequence: (B, before, L) -> (B, after, L)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Patches(nn.Module):
    """Tokens of a map, row by row, with a learnt number for every place: (B, C, s, s) -> (B, L, C)."""

    def __init__(self, width: int, patch: int, tokens: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, patch, stride=patch)
        self.places = nn.Parameter(torch.zeros(1, tokens, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.dropout(self.conv(x).flatten(2).mT + self.places)
        return tokens


class _Block(nn.Module):
    """``x + attention(norm1(x))``, then ``x + mlp(norm2(x))``, on tokens (B, L, C)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(width, 4 * width),
                gelu1=nn.GELU(),
                dropout1=nn.Dropout(dropout),
                fc2=nn.Linear(4 * width, width),
                gelu2=nn.GELU(),  # the authors' program has this second one, unlike transformers elsewhere
                dropout2=nn.Dropout(dropout),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        heads = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, heads, C / heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        # Written out, as PyTorch's fused forms have gradients that differ from run to run on GPUs.
        weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)  # (B, heads, L, L)
        x = x + self.attn["proj"]((weights @ value).transpose(1, 2).flatten(2))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class _First(nn.Module):
    """The first level's tokens going down: a block of what map and text say, the texts' tokens being channels."""

    def __init__(self, patches: _Patches, block: _Block, text: _TokenLayer) -> None:
        super().__init__()
        self.patches, self.block, self.text = patches, block, text

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """(B, C, s, s) and the text (B, 10, C) -> (B, L, C)."""
        tokens: Tensor = self.block(self.patches(x) + self.text(text))
        return tokens


class _Joined(nn.Module):
    """A lower level's tokens going down: half of the channels are its own, the others the level's above."""

    def __init__(self, patches: _Patches, block: _Block, narrow: _TokenLayer) -> None:
        super().__init__()
        self.patches, self.block, self.narrow = patches, block, narrow

    def forward(self, x: Tensor, above: Tensor) -> Tensor:
        """(B, C, s, s) and the tokens above (B, L, C / 2) -> (B, L, C)."""
        own = self.narrow(self.block(self.patches(x)).mT).mT
        return torch.cat([own, above], dim=2)


class _Up(nn.Module):
    """A level's tokens going up: those that went down through another block, plus the level's below."""

    def __init__(self, block: _Block, widen: _TokenLayer | None) -> None:
        super().__init__()
        self.block, self.widen = block, widen

    def forward(self, x: Tensor, below: Tensor | None) -> Tensor:
        """(B, L, C) and the tokens below (B, L, 2 C), of which the lowest level has none -> (B, L, C)."""
        tokens: Tensor = self.block(x)
        return tokens if self.widen is None or below is None else tokens + self.widen(below.mT).mT


class _Decoder(nn.Module):
    """A level of the U-Net going up."""

    def __init__(self, width: int, after: int) -> None:
        super().__init__()
        self.gate = _Gate(width)
        self.layers = _two_layers(2 * width, after)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """The map below (B, C, H / 2, W / 2) and the skip (B, C, H, W) -> (B, after, H, W)."""
        above = F.interpolate(below, scale_factor=2, mode="nearest")
        decoded: Tensor = self.layers(torch.cat([self.gate(skip), above], dim=1))
        return decoded


class _Gate(nn.Module):
    """The skip times a weight per pixel, the pixel-level attention of the paper: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Conv2d(width, width, 1, bias=False)
        self.largest = nn.Conv2d(width, width, 1, bias=False)
        self.mix = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = F.relu(self.mean(x)).mean(1)
        largest = F.relu(self.largest(x)).amax(1)
        weight = self.mix(torch.stack([mean, largest, mean + largest], dim=-1))  # (B, H, W, 1)
        gated: Tensor = x * weight.movedim(3, 1)
        return gated


def _prefixes() -> dict[str, str]:
    """The beginning of every name of ours, and theirs."""
    names = {"stem.": "inc.", "head.": "outc."}
    for level in _LEVELS:
        number = level + 1
        down, up = (f"{way}Vit{level or ''}." for way in ("down", "up"))
        names |= {
            f"down.{level}.": f"down{number}.nConvs.",
            f"text.{level}.": f"text_module{number}.",
            f"rebuild.{level}.": f"reconstruct{number}.",
            f"up.{level}.layers.": f"up{number}.nConvs.",
            f"up.{level}.gate.mean.": f"up{number}.pixModule.conv_avg.",
            f"up.{level}.gate.largest.": f"up{number}.pixModule.conv_max.",
            f"up.{level}.gate.mix.": f"up{number}.pixModule.bottleneck.",
            f"down_tokens.{level}.patches.conv.": f"{down}embeddings.patch_embeddings.",
            f"down_tokens.{level}.patches.places": f"{down}embeddings.position_embeddings",
            f"down_tokens.{level}.block.": f"{down}Encoder_blocks.0.",
            f"down_tokens.{level}.text.": f"{down}CTBN3.",
            f"down_tokens.{level}.narrow.": f"{down}CTBN.",
            f"up_tokens.{level}.block.": f"{up}Encoder_blocks.0.",
            f"up_tokens.{level}.widen.": f"{up}CTBN2.",
        }
    return names


_PREFIXES = _prefixes()


def to_reference(name: str) -> str:
    """The authors' name for one of our entries."""
    ours = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    return _PREFIXES[ours] + name.removeprefix(ours)
