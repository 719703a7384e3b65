"""Which ADM UNet a state dict belongs to, read from the names and shapes of its entries."""

__all__ = ["check_entries", "recognise"]

import math
import re
from collections.abc import Mapping
from typing import Any

from textdiff.errors import UserError, few

Shapes = Mapping[str, tuple[int, ...]]

# Without these nothing can be said about the architecture; a classifier, for one, has no decoder.
_ANCHORS = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "output_blocks.0.0.in_layers.2.weight",
    "output_blocks.0.0.out_layers.3.weight",
    "output_blocks.0.0.emb_layers.1.weight",
    "out.2.weight",
)


def recognise(shapes: Shapes, image_size: int, source: str) -> dict[str, Any]:
    """The constructor arguments of the ``UNet`` that has entries of these ``shapes``.

    Everything that costs parameters is read off. Two things are not in the shapes and follow the defaults of
    guided-diffusion's published models: the attention order is the older one, and heads have 64 channels (or as many
    below as divide every attention's width) in models with ``resblock_updown``, while models without are taken to
    have 4 heads. ``image_size`` is passed through; attention resolutions are downsampling factors already.

    Raises UserError, calling the checkpoint ``source``, for models that are not ADM UNets on RGB images or that are
    class-conditional. What comes back may still not fit: compare with ``check_entries``.
    """
    missing = [name for name in _ANCHORS if len(shapes.get(name, ())) < 2]
    if missing:
        raise UserError(
            f"{source}: not an ADM UNet (guided-diffusion): no {few(missing, 3)} among its {len(shapes)} entries"
            f" ({few(shapes, 3)}); use OpenAI's 256x256_diffusion_uncond.pt, one of ddpm-segmentation's, or your own"
        )
    if "label_emb.weight" in shapes:
        raise UserError(
            f"{source}: a class-conditional model (label_emb.weight, {shapes['label_emb.weight'][0]} classes), but"
            " images here have no classes; use an unconditional one such as 256x256_diffusion_uncond.pt"
        )
    in_channels = shapes["input_blocks.0.0.weight"][1]
    if in_channels != 3:
        raise UserError(f"{source}: takes {in_channels} input channels, not RGB images; use an unconditional model")

    model_channels = shapes["time_embed.0.weight"][1]
    numbers = {match[1] for name in shapes if (match := re.match(r"output_blocks\.(\d+)\.", name))}
    # A level ends where the decoder doubles the size: by a second residual block, or by a convolution.
    by_resblock = [i for i in numbers if any(f"output_blocks.{i}.{j}.in_layers.2.weight" in shapes for j in (1, 2))]
    by_conv = [i for i in numbers if any(f"output_blocks.{i}.{j}.conv.weight" in shapes for j in (1, 2))]
    levels = 1 + len(by_resblock) + len(by_conv)
    per_level = len(numbers) // levels
    if per_level < 2 or len(numbers) % levels:
        raise UserError(f"{source}: not an ADM UNet: {len(numbers)} decoder blocks do not divide into {levels} levels")

    first = [f"output_blocks.{(levels - 1 - level) * per_level}" for level in range(levels)]
    widths = [shapes.get(f"{name}.0.out_layers.3.weight", (0,))[0] for name in first]
    attended = [level for level in range(levels) if f"{first[level]}.1.qkv.weight" in shapes]
    head_channels = math.gcd(64, widths[-1], *(widths[level] for level in attended))
    return {
        "image_size": image_size,
        "in_channels": in_channels,
        "model_channels": model_channels,
        "out_channels": shapes["out.2.weight"][0],
        "num_res_blocks": per_level - 1,
        "attention_resolutions": [2**level for level in attended],
        "channel_mult": [width // model_channels for width in widths],
        "num_heads": 4,
        "num_head_channels": head_channels if by_resblock else -1,
        "use_scale_shift_norm": shapes["output_blocks.0.0.emb_layers.1.weight"][0] == 2 * widths[-1],
        "resblock_updown": bool(by_resblock),
        "use_new_attention_order": False,
    }


def check_entries(found: Shapes, expected: Shapes, source: str) -> None:
    """Raises a UserError that names what differs, unless both have the same entries of the same shapes."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    other = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    parts = [
        f"{len(names)} {what} ({few(names, 3)})"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (other, "of another shape"))
        if names
    ]
    if parts:
        raise UserError(f"{source}: does not fit the ADM UNet: of {len(expected)} entries {', '.join(parts)}")
