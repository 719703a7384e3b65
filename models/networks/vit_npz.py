"""Google's file of R50+ViT weights (https://github.com/google-research/vision_transformer), under PyTorch's names."""

__all__ = ["read_vit"]

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textdiff.errors import UserError, explain, few

_POSITIONS = "Transformer/posembed_input/pos_embedding"
# TransUNet's names and theirs; each pattern is for what the ones before have left.
_RENAMED = (
    (r"^embeddings\.position_embeddings$", _POSITIONS),
    (r"^embeddings\.patch_embeddings\.", "embedding."),
    (r"^embeddings\.hybrid_model\.root\.(conv|gn)\.", r"\1_root."),
    (r"^embeddings\.hybrid_model\.body\.", ""),
    (r"\.downsample\.", ".conv_proj."),
    (r"^encoder\.layer\.(\d+)\.", r"Transformer.encoderblock_\1."),
    (r"^encoder\.encoder_norm\.", "Transformer.encoder_norm."),
    (r"\.attention_norm\.", ".LayerNorm_0."),
    (r"\.ffn_norm\.", ".LayerNorm_2."),
    (r"\.ffn\.fc1\.", ".MlpBlock_3.Dense_0."),
    (r"\.ffn\.fc2\.", ".MlpBlock_3.Dense_1."),
    (r"\.attn\.", ".MultiHeadDotProductAttention_1."),
    (r"(norm|LayerNorm_\d|gn\d|gn_root|gn_proj)\.weight$", r"\1.scale"),
    (r"\.weight$", ".kernel"),
    (r"\.", "/"),
)


def read_vit(path: Path, shapes: Mapping[str, tuple[int, ...]], heads: int) -> dict[str, Tensor]:
    """The entries ``shapes`` of TransUNet's ``transformer`` from the file, float32, in these shapes.

    Convolutions are stored as (height, width, in, out), linear layers as (in, out), with the attention's heads as an
    axis of their own. The class token's position embedding is dropped, and the others are resized bilinearly, corner on
    corner, where the file's grid is another. What the file holds besides (classifier, class token) is not read.

    Raises:
        UserError: the file is missing or damaged, or arrays are missing or of other shapes.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive, or a part of one")
        with np.load(path, allow_pickle=False) as file:
            names = {ours: _theirs(ours) for ours in shapes}
            arrays = {ours: file[theirs] for ours, theirs in names.items() if theirs in file.files}
    except Exception as error:  # zip, zlib and NumPy have exceptions of their own
        if explain(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise UserError(f"{path}: not a readable .npz file ({reason}); fetch it again") from error
    wrong = [f"no {theirs}" for ours, theirs in names.items() if ours not in arrays]
    state = {}
    for ours, array in arrays.items():
        try:
            state[ours] = _as_ours(array, names[ours], shapes[ours], heads)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        said = few(wrong, 3, count=True, between="; ")
        raise UserError(f"{path}: {said}; use Google's R50+ViT-B_16.npz, of ImageNet-21k")
    return state


def _theirs(name: str) -> str:
    for ours, theirs in _RENAMED:
        name = re.sub(ours, theirs, name)
    return name


def _as_ours(array: NDArray[np.generic], name: str, shape: tuple[int, ...], heads: int) -> Tensor:
    """One array in our layout; ValueError if it isn't a float array of the shape that belongs to ``name``."""
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} is {array.dtype}, not floating-point")
    if name == _POSITIONS:
        return _positions(array, shape)
    if array.shape == (1, 1, 1, *shape):  # group normalisation has four axes there
        array = array.reshape(shape)
    expected = _their_shape(name, shape, heads)
    if array.shape != expected:
        raise ValueError(f"{name} is {array.shape}, not {expected}")
    value = torch.from_numpy(array.astype(np.float32, copy=False))
    if len(shape) == 4:
        return value.permute(3, 2, 0, 1)
    return value.reshape(shape[::-1]).T if len(shape) == 2 else value.reshape(shape)


def _their_shape(name: str, shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
    out, *rest = shape
    kind = name.split("/")[-2]
    split = (heads, out // heads) if kind in ("query", "key", "value") else (out,)
    if len(shape) == 4:
        return (*rest[1:], rest[0], out)
    if kind == "out" and rest:
        return (heads, rest[0] // heads, out)
    return (*rest, *split)


def _positions(array: NDArray[np.generic], shape: tuple[int, ...]) -> Tensor:
    """Position embeddings (1, 1 + their grid's tokens, dim) -> (1, our grid's tokens, dim)."""
    _, tokens, dim = shape
    there = math.isqrt(max(0, array.shape[1] - 1)) if array.ndim == 3 else 0
    if not there or array.shape != (1, 1 + there * there, dim):
        raise ValueError(f"{_POSITIONS} is {array.shape}, not (1, 1 + a square number, {dim})")
    here = math.isqrt(tokens)
    grid = torch.from_numpy(array[:, 1:].astype(np.float32)).transpose(1, 2).reshape(1, dim, there, there)
    if here != there:
        grid = F.interpolate(grid, size=(here, here), mode="bilinear", align_corners=True)
    return grid.flatten(2).transpose(1, 2)
