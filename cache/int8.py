"""Activations in 8 bits: whole numbers from -127 to 127, and a scale for each channel of each row and step.

Packed, a channel is ``4 + h * w`` bytes: its scale, float32 in little-endian order, then its numbers as int8, row by
row. A value is ``scale * number``, and the scale is the channel's largest magnitude over 127: symmetric, so that zero
stays zero. The scale is in the chunk, so the chunk's checksum, and with it the ledger, covers it, and what copies,
links, verifies or drops a chunk does so with its scales.
"""

__all__ = ["SCALE_BYTES", "Int8", "joined", "numbers_of", "pack", "rounded", "scales_of", "unpack"]

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from zarr.abc.codec import ArrayArrayCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import NDBuffer
from zarr.core.chunk_grids import ChunkGrid
from zarr.dtype import Int8 as Int8Type
from zarr.registry import register_codec

NAME = "textdiff.int8"
SCALE_BYTES = 4
LARGEST = 127
_SMALLEST = torch.finfo(torch.float32).tiny
"""The least scale of a channel that is not all zero: smaller ones lose bits, and GPUs may take them for zero."""


def pack(grid: torch.Tensor) -> torch.Tensor:
    """(..., C, h, w) floats, all finite, to (..., C, 4 + h * w) int8, on whatever device they are."""
    x = grid.float().flatten(-2)
    largest = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True)
    scale = torch.where(largest > 0, (largest / LARGEST).clamp(min=_SMALLEST), 0.0)
    numbers = (x / scale.clamp(min=_SMALLEST)).round_().to(torch.int8)
    return torch.cat([scale.view(torch.int8), numbers], -1)


def unpack(packed: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """(..., C, 4 + h * w) int8 to (..., C, h, w) float32, on whatever device they are.

    What comes back differs from what was packed by at most half a scale, but for float32's rounding.
    """
    # Not ``contiguous``, which of a single channel leaves the stride of the whole.
    scale = packed[..., :SCALE_BYTES].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return packed[..., SCALE_BYTES:].float().mul_(scale).view(*packed.shape[:-1], h, w)


def scales_of(packed: np.ndarray) -> np.ndarray:
    """The scales (..., C) float32 of what is packed (..., C, 4 + h * w)."""
    return np.ascontiguousarray(packed[..., :SCALE_BYTES]).view("<f4")[..., 0]


def numbers_of(packed: np.ndarray, h: int, w: int) -> np.ndarray:
    """The numbers (..., C, h, w) int8 of what is packed (..., C, 4 + h * w)."""
    return packed[..., SCALE_BYTES:].reshape(*packed.shape[:-1], h, w)


def joined(scales: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Packed (..., C, 4 + h * w) int8, from scales (..., C) and numbers (..., C, h, w)."""
    scale = np.ascontiguousarray(scales, "<f4")[..., None].view(np.int8)
    return np.concatenate([scale, numbers.reshape(*numbers.shape[:-2], -1)], axis=-1)


def rounded(grid: torch.Tensor, dtype: str) -> torch.Tensor:
    """(..., C, h, w) as a cache of this dtype gives it back: float16, or float32 where it holds float32 or int8."""
    if dtype == "int8":
        return unpack(pack(grid), *grid.shape[-2:])
    converted: torch.Tensor = grid.to(getattr(torch, dtype))
    return converted


@dataclass(frozen=True)
class Int8(ArrayArrayCodec):
    """Stores a chunk (..., C, h, w) of float32 packed, as (..., C, 4 + h * w) int8.

    Zarr's own codecs do the rest, so a reader without this one opens the packed array once the codec's line is taken
    out of ``zarr.json``. Those codecs that other readers know (``numcodecs.fixedscaleoffset``, ``scale_offset`` with
    ``cast_value``) have one scale for an array, fixed before its first row is known; channels differ by orders of
    magnitude. Codec interface: Zarr v3 specification,
    https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html#codecs
    """

    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Reads ``{"name": "textdiff.int8"}``."""
        if data.get("configuration"):
            raise ValueError(f"{NAME}: takes no configuration, got {data['configuration']}")
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry in ``zarr.json``."""
        return {"name": NAME}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: ChunkGrid) -> None:
        """Refuses arrays that the codec cannot stand for.

        Raises:
            ValueError: fewer than three dimensions, or not float32.
        """
        if len(shape) < 3 or dtype.to_native_dtype() != np.float32:
            raise ValueError(f"{NAME}: needs (..., C, h, w) of float32, got {shape} of {dtype.to_native_dtype()}")

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """The chunk as it is stored: (..., C, 4 + h * w) int8."""
        *outer, h, w = chunk_spec.shape
        return replace(chunk_spec, shape=(*outer, SCALE_BYTES + h * w), dtype=Int8Type(), fill_value=np.int8(0))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Bytes of a packed chunk that has ``input_byte_length`` bytes in float32."""
        h, w = chunk_spec.shape[-2:]
        return input_byte_length // (4 * h * w) * (SCALE_BYTES + h * w)

    async def _decode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        # A copy, as what comes from a store may be read-only, which tensors cannot be.
        packed = torch.from_numpy(np.array(chunk_data.as_numpy_array()))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(unpack(packed, *chunk_spec.shape[-2:]).numpy())

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer | None:
        grid = np.array(chunk_data.as_numpy_array(), dtype=np.float32)
        if not np.isfinite(grid).all():
            raise ValueError(f"{NAME}: the values hold NaN or infinity, which have no scale")
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pack(torch.from_numpy(grid)).numpy())


# The entry point is for who does not import this package. An install in place does not learn of new ones.
register_codec(NAME, Int8)
