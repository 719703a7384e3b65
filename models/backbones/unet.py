"""The ADM UNet of guided diffusion, able to stop at the deepest decoder block asked for.

Architecture and state-dict names are those of Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2021,
https://arxiv.org/abs/2105.05233) as published in https://github.com/openai/guided-diffusion, so its checkpoints load
strictly. Class-conditional models are left out: nothing here has class labels.
"""

__all__ = ["UNet", "fresh_unet"]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from textdiff.models.arguments import arguments
from textdiff.models.backbones.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm32,
    ResBlock,
    Stage,
    Upsample,
    timestep_embedding,
    zeroed,
)


class UNet(nn.Module):
    """The noise-predicting UNet.

    ``attention_resolutions`` are downsampling factors (image_size / resolution) at which attention runs.
    ``num_head_channels`` fixes the channels of each head; -1 means ``num_heads`` heads instead. ``out_channels`` is 6
    for models with learned variance. With ``resblock_updown`` residual blocks change the size, else convolutions do.
    ``use_new_attention_order`` splits queries, keys and values before the heads.
    """

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        channel_mult: Sequence[int],
        num_heads: int,
        num_head_channels: int,
        use_scale_shift_norm: bool,
        resblock_updown: bool,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__()
        self.config = arguments(locals()) | {"attention_resolutions": sorted(attention_resolutions)}
        emb_channels = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )

        def res(channels: int, out: int, resample: Literal["up", "down"] | None = None) -> ResBlock:
            return ResBlock(channels, emb_channels, out, use_scale_shift_norm, resample)

        def attention(channels: int) -> AttentionBlock:
            heads = num_heads if num_head_channels == -1 else channels // num_head_channels
            if heads < 1 or channels % heads or (num_head_channels != -1 and channels % num_head_channels):
                raise ValueError(f"{channels} channels do not divide into heads: {num_heads=}, {num_head_channels=}")
            return AttentionBlock(channels, heads, use_new_attention_order)

        ch = channel_mult[0] * model_channels
        last = len(channel_mult) - 1
        inputs = [Stage(nn.Conv2d(in_channels, ch, 3, padding=1))]
        skips = [ch]  # channels of every encoder output, taken from the end by the decoder
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [res(ch, mult * model_channels)]
                ch = mult * model_channels
                if 2**level in attention_resolutions:
                    layers.append(attention(ch))
                inputs.append(Stage(*layers))
                skips.append(ch)
            if level < last:
                inputs.append(Stage(res(ch, ch, "down") if resblock_updown else Downsample(ch)))
                skips.append(ch)
        self.input_blocks = nn.ModuleList(inputs)

        self.middle_block = Stage(res(ch, ch), attention(ch), res(ch, ch))

        outputs = []
        self._outlets: list[tuple[int, int]] = []  # (channels, downsampling factor) of each decoder block's output
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                layers = [res(ch + skips.pop(), mult * model_channels)]
                ch = mult * model_channels
                if 2**level in attention_resolutions:
                    layers.append(attention(ch))
                grows = level > 0 and i == num_res_blocks
                if grows:
                    layers.append(res(ch, ch, "up") if resblock_updown else Upsample(ch))
                outputs.append(Stage(*layers))
                self._outlets.append((ch, 2 ** (level - 1) if grows else 2**level))
        self.output_blocks = nn.ModuleList(outputs)

        self.out = nn.Sequential(
            GroupNorm32(ch), nn.SiLU(inplace=True), zeroed(nn.Conv2d(ch, out_channels, 3, padding=1))
        )

    def block_shapes(self, image_size: int | None = None) -> dict[int, tuple[int, int, int]]:
        """The shape (C, h, w) of every decoder block's activation for square images, found without running anything."""
        size = image_size or self.config["image_size"]
        return {i: (channels, size // factor, size // factor) for i, (channels, factor) in enumerate(self._outlets)}

    def features(self, x: Tensor, t: Tensor, blocks: Iterable[int]) -> dict[int, Tensor]:
        """The activations of decoder blocks, in ascending order, computing nothing beyond the deepest one.

        ``x`` (B, in_channels, H, W) is the noised image, ``t`` (B,) its timesteps. Block b gives (B, C_b, h_b, w_b),
        the output of ``output_blocks[b]``: the features of Baranchuk et al. (2022, https://arxiv.org/abs/2112.03126).
        Raises ValueError for a block number that does not exist, or an ``x`` of a size that cannot be halved as often
        as the network does.
        """
        wanted = sorted(set(blocks))
        if not wanted or wanted[0] < 0 or wanted[-1] >= len(self.output_blocks):
            raise ValueError(f"decoder blocks must be 0 to {len(self.output_blocks) - 1}, not {wanted}")
        multiple = 2 ** (len(self.config["channel_mult"]) - 1)
        if any(side % multiple for side in x.shape[-2:]):
            raise ValueError(f"the image's sides must be multiples of {multiple}, not {tuple(x.shape[-2:])}")
        emb = self.time_embed(timestep_embedding(t, self.config["model_channels"]).to(x.dtype))
        depth = wanted[-1] + 1
        skips, kept = [], {}
        h = x
        for i, block in enumerate(self.input_blocks):
            h = block(h, emb)
            # The first ones, which are the largest, only serve the last decoder blocks.
            if i >= len(self.input_blocks) - depth:
                skips.append(h)
        h = self.middle_block(h, emb)
        for i, block in enumerate(self.output_blocks[:depth]):
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if i in wanted:
                kept[i] = h
        return kept

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise, followed by the variance where it is learned.

        ``x`` (B, in_channels, H, W), ``t`` (B,) -> (B, out_channels, H, W).
        """
        last = len(self.output_blocks) - 1
        return self.out(self.features(x, t, [last])[last])  # type: ignore[no-any-return]


def fresh_unet(arguments: Mapping[str, Any], seed: int) -> UNet:
    """The network of these arguments, with weights that ``seed`` determines, in training mode on the CPU.

    Every layer keeps the variance of what passes through it: normal weights of variance 1 / fan-in (LeCun et al.,
    Efficient BackProp, 1998, section 4.6), biases zero. PyTorch's default has a third of that, and with layer after
    layer the gradients of the coarse levels vanish (docs/research has the measurement). Residual branches
    begin silent, as ADM's do.

    Raises:
        TypeError, ValueError, RuntimeError: no network has these arguments.
    """
    with torch.random.fork_rng(()):
        torch.manual_seed(seed)
        unet = UNet(**arguments)
        if torch.get_default_device().type == "meta":  # no weights are wanted
            return unet
        for layer in unet.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and layer.weight.any():
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return unet
