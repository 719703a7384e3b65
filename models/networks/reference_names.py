"""The authors' names for the head's weights, so that checkpoints of their training code load."""

__all__ = ["copy_reference", "to_reference"]

from collections.abc import Mapping

import torch
from torch import Tensor

from textdiff.errors import UserError, few

_PREFIXES = {
    "down.": "down",
    "block.attention1.norm_in.": "cross1.norm1.",
    "block.attention1.query.": "cross1.attn1.to_q.",
    "block.attention1.key.": "cross1.attn1.to_k.",
    "block.attention1.value.": "cross1.attn1.to_v.",
    "block.attention1.output.": "cross1.attn1.to_out.0.",
    "block.attention1.norm_out.": "cross1.attn1.to_out.1.",
    "block.attention2.norm_in.": "cross1.norm2.",
    "block.attention2.query.": "cross1.attn2.to_q.",
    "block.attention2.key.": "cross1.attn2.to_k.",
    "block.attention2.value.": "cross1.attn2.to_v.",
    "block.attention2.output.": "cross1.attn2.to_out.0.",
    "block.attention2.norm_out.": "cross1.attn2.to_out.1.",
    "block.norm.": "cross1.norm3.",
    "block.feed.": "cross1.ff.net.2.",
    "conv1.": "decodes.0.",
    "norm1.": "decodes.1.",
    "conv2.": "decodes.3.",
    "norm2.": "decodes.4.",
    "conv3.": "decodes.6.",
}


def to_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A head's state dict under the authors' names and in their shapes; the tensors share their memory."""
    renamed = {}
    for name, value in state.items():
        ours = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
        # Their level projections are 1x1 convolutions.
        shaped = value[:, :, None, None] if ours == "down." and value.ndim == 2 else value
        renamed[_PREFIXES[ours] + name.removeprefix(ours)] = shaped
    return renamed


def copy_reference(
    state: Mapping[str, Tensor],
    into: Mapping[str, Tensor],
    network: str = "head",
    fix: str = "use the blocks, steps, width and variant that they were trained with",
) -> None:
    """Copies the authors' ``state`` into a network's tensors under their names; a ``module.`` prefix is understood.

    Raises:
        UserError: entries are missing, unknown or of another shape; nothing has been copied then.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wrong = [f"no {name}" for name in into if name not in state]
    wrong += [f"unknown {name}" for name in state if name not in into]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in into.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        raise UserError(f"the weights do not fit this {network}: {few(wrong, 3, count=True, between='; ')}; {fix}")
    with torch.no_grad():
        for name, value in into.items():
            value.copy_(state[name])
