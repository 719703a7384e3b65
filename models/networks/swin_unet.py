"""Swin-Unet: a U-Net of windowed attention, one of the networks that the paper compares with."""

__all__ = ["SwinUNet"]

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from textdiff.errors import UserError
from textdiff.models.arguments import arguments
from textdiff.models.backbones.checkpoints import read_state
from textdiff.models.networks.reference_names import copy_reference
from textdiff.models.networks.window_attention import SwinBlock, resized_table

_COMPUTED = ("attn_mask", "relative_position_index")  # the ends of the names of what others store beside the weights
_TABLE = "relative_position_bias_table"


class SwinUNet(nn.Module):
    """The network of Cao et al., ECCV workshops 2022 (https://arxiv.org/abs/2105.05537), figure 1.

    Four stages of Swin blocks going down, three going up with the inputs of the former joined to them, then a fourfold
    enlargement. Windows have a 32nd of the image's side, so that the smallest map is one: 27,168,228 parameters with
    two classes at 224 pixels (windows of 7), 27,175,620 at 256 (windows of 8). Written anew from the paper and from
    facts about the authors' program; module names are those of its weights.

    Args:
        classes: scores per pixel, background included; 1 for a logit.
        image_size: the side of the images, a multiple of 32.
        width: channels of the first stage; they double with every stage.
        depths: blocks of each stage, going down and going up, at most four stages.
        heads: attention heads of each stage.
        drop: probability that the last block going down is skipped in training; it rises to that from 0 at the first.
    """

    def __init__(
        self,
        classes: int = 2,
        image_size: int = 224,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        drop: float = 0.2,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        if image_size % 32 or image_size <= 0:
            raise ValueError(f"image_size {image_size}: must be a multiple of 32, as 224 or 256")
        if len(depths) != len(heads) or not 1 <= len(depths) <= 4:
            raise ValueError(f"depths {list(depths)}, heads {list(heads)}: each needs a number per stage, at most four")
        self.image_size, self.window = image_size, image_size // 32
        stages = range(len(depths))
        widths = [width << stage for stage in stages]
        sides = [image_size // 4 >> stage for stage in stages]
        drops = torch.linspace(0, drop, sum(depths), device="cpu").tolist()

        def blocks(stage: int) -> list[SwinBlock]:
            first = sum(depths[:stage])
            return [
                SwinBlock(widths[stage], heads[stage], sides[stage], self.window, bool(i % 2), drops[first + i])
                for i in range(depths[stage])
            ]

        last = stages[-1]
        self.patch_embed = _Patches(width)
        self.layers = nn.ModuleList(
            _Stage(blocks(stage), downsample=None if stage == last else _Merge(widths[stage])) for stage in stages
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.concat_back_dim = nn.ModuleList([nn.Identity()])
        self.layers_up = nn.ModuleList([_Expand(widths[-1], 2, widths[-1] // 2) if last else nn.Identity()])
        for stage in reversed(stages[:-1]):
            self.concat_back_dim.append(nn.Linear(2 * widths[stage], widths[stage]))
            upsample = _Expand(widths[stage], 2, widths[stage] // 2) if stage else None
            self.layers_up.append(_Stage(blocks(stage), upsample=upsample))
        self.norm_up = nn.LayerNorm(width)
        self.up = _Expand(width, 4, width)
        self.output = nn.Conv2d(width, classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def scores(self, x: Tensor) -> Tensor:
        """Scores before the softmax or sigmoid: normalised images (B, 3, S, S) float -> (B, classes, S, S).

        Raises:
            ValueError: the images have another size than the network was made for.
        """
        if tuple(x.shape[1:]) != (3, self.image_size, self.image_size):
            raise ValueError(
                f"images of shape {tuple(x.shape)}: this network takes (B, 3, {self.image_size}, {self.image_size});"
                " resize them, or make it with another image_size"
            )
        x = self.patch_embed(x)  # (B, S / 4, S / 4, width), as all maps to come
        skipped = []
        for stage in self.layers:
            skipped.append(x)
            x = stage(x)
        skipped.pop()  # the last stage begins with the map that the decoder enlarges
        x = self.layers_up[0](self.norm(x))
        for join, stage in zip(self.concat_back_dim[1:], self.layers_up[1:], strict=True):
            x = stage(join(torch.cat([x, skipped.pop()], dim=-1)))
        scores: Tensor = self.output(self.up(self.norm_up(x)).permute(0, 3, 1, 2))
        return scores

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict of the authors' program; prefixes ``module.`` and ``swin_unet.`` are understood.

        Raises:
            UserError: entries are missing, unknown or of another shape; nothing has been loaded then.
        """
        given = {name.removeprefix("module.").removeprefix("swin_unet."): value for name, value in state.items()}
        given = {name: value for name, value in given.items() if not name.endswith(_COMPUTED)}
        copy_reference(given, self.state_dict(), "SwinUNet", "use the image size, depths and heads of their training")

    def load_pretrained(self, path: Path) -> None:
        """Loads a Swin Transformer that was trained to classify images, as Microsoft's Swin-T, into both halves.

        The decoder's blocks get the weights of the encoder's stage of their width, as in the paper; its other layers
        stay. Of the file's blocks each stage takes its first ones, and tables of positions for other windows are
        interpolated.

        Raises:
            UserError: the file is missing, damaged or of another network; nothing has been loaded then.
        """
        state = read_state(path)
        own = {
            name: value
            for name, value in self.state_dict().items()
            if name.startswith(("patch_embed.", "layers.", "norm."))
        }
        given = {}
        for name, value in state.items():
            if name.endswith(_COMPUTED) or name.startswith("head.") or self._beyond(name):
                continue
            given[name] = resized_table(value, self.window) if name.endswith(_TABLE) else value
        try:
            copy_reference(given, own, "SwinUNet", "use Microsoft's swin_tiny_patch4_window7_224.pth")
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        with torch.no_grad():
            for name, value in self.layers_up.state_dict().items():
                up, _, rest = name.partition(".")
                if rest.startswith("blocks."):
                    value.copy_(own[f"layers.{len(self.layers) - 1 - int(up)}.{rest}"])

    def _beyond(self, name: str) -> bool:
        """Whether an entry belongs to a block of one of the stages that has no counterpart here."""
        found = re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name)
        depths: list[int] = self.config["depths"]
        return found is not None and int(found[1]) < len(depths) and int(found[2]) >= depths[int(found[1])]


class _Patches(nn.Module):
    """Patches of 4x4 pixels: (B, 3, S, S) -> (B, S / 4, S / 4, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return patches


class _Stage(nn.Module):
    """Blocks of one width, and what leads on to the next: ``downsample``, ``upsample`` or nothing."""

    def __init__(
        self, blocks: Sequence[SwinBlock], downsample: nn.Module | None = None, upsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        then = self.downsample or self.upsample
        return x if then is None else then(x)


class _Merge(nn.Module):
    """The four pixels of every cell in one, of twice the channels: (B, H, W, C) -> (B, H / 2, W / 2, 2 C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        cells = x.view(B, H // 2, 2, W // 2, 2, C)  # (..., row, ..., column, C)
        # The weights expect the pixels column by column.
        merged: Tensor = self.reduction(self.norm(cells.permute(0, 1, 3, 4, 2, 5).flatten(3)))
        return merged


class _Expand(nn.Module):
    """Each pixel as a cell of ``factor`` x ``factor``: (B, H, W, C) -> (B, factor H, factor W, after)."""

    def __init__(self, width: int, factor: int, after: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, factor**2 * after, bias=False)
        self.norm = nn.LayerNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.expand(x).unflatten(-1, (self.factor, self.factor, -1))  # (B, H, W, row, column, after)
        expanded: Tensor = self.norm(cells.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        return expanded
