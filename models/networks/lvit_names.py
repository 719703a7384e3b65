"""The names that LViT's authors gave its weights, so that checkpoints of their program load."""

__all__ = ["DEAD", "to_reference"]

import re

_LEVELS = range(4)

DEAD = re.compile(
    r"(down|up)Vit\d?\.(norm|head)\."
    r"|upVit\d?\.embeddings\."
    r"|downVit\.CTBN2?\.|downVit[123]\.CTBN[23]\."
    r"|upVit[12]?\.CTBN3?\.|upVit3\.CTBN[23]?\."
    r"|up\d\.pixModule\.conv_sig\.|pix_module\d\."
)
"""Begins the names of weights that the authors' program makes, saves and never uses."""


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
