"""The Zarr codec that makes native grids look like upsampled ones."""

__all__ = ["DTYPES", "Upsample", "native_twin", "upsample"]

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from zarr.abc.codec import ArrayArrayCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import NDBuffer
from zarr.core.chunk_grids import ChunkGrid, RegularChunkGrid
from zarr.core.metadata.v3 import ArrayV3Metadata

NAME = "textdiff.upsample"
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Upsample(ArrayArrayCodec):
    """Stores the native ``h x w`` grid of a chunk ``(..., H, W)`` and upsamples it bilinearly when it is read.

    What a reader sees equals ``F.interpolate(native.float(), (H, W), mode="bilinear").to(dtype)`` bit for bit. Zarr
    finds the codec by its entry point, so ``zarr.open`` needs no import of this package. Codec interface: Zarr v3
    specification, https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html#codecs

    Args:
        native: (h, w), the size of the stored grid.
    """

    native: tuple[int, int]

    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Reads ``{"name": "textdiff.upsample", "configuration": {"native": [h, w], "mode": "bilinear"}}``."""
        configuration = dict(data.get("configuration") or {})
        match configuration:
            case {"native": [int(h), int(w)], "mode": "bilinear"} if min(h, w) > 0 and len(configuration) == 2:
                return cls((h, w))
        raise ValueError(f'{NAME}: needs {{"native": [h, w], "mode": "bilinear"}}, got {configuration}')

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry in ``zarr.json``."""
        return {"name": NAME, "configuration": {"native": list(self.native), "mode": "bilinear"}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: ChunkGrid) -> None:
        """Refuses arrays that the codec cannot stand for.

        Raises:
            ValueError: fewer than three dimensions, not float16 or float32, or chunks that divide H or W.
        """
        chunks = getattr(chunk_grid, "chunk_shape", None)
        if len(shape) < 3 or chunks is None or tuple(chunks[-2:]) != tuple(shape[-2:]):
            raise ValueError(f"{NAME}: needs (..., C, H, W) in chunks of whole images, got {shape} in chunks {chunks}")
        if dtype.to_native_dtype().name not in DTYPES:
            raise ValueError(f"{NAME}: needs float16 or float32, got {dtype.to_native_dtype()}")

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """The chunk as it is stored: (..., C, h, w)."""
        return replace(chunk_spec, shape=(*chunk_spec.shape[:-2], *self.native))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Bytes of the native grid of a chunk that has ``input_byte_length`` bytes when upsampled."""
        H, W = chunk_spec.shape[-2:]
        return input_byte_length // (H * W) * self.native[0] * self.native[1]

    async def _decode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        # Not in a thread: Zarr decodes up to ten chunks at a time, and ten upsampled ones can be gigabytes.
        upsampled = upsample(chunk_data.as_numpy_array(), chunk_spec.shape)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(upsampled)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer | None:
        raise ValueError(
            "features are read-only through their upsampled view, as upsampling cannot be undone exactly; write native "
            "grids with textdiff.cache.FeatureCache.write"
        )


def upsample(native: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bilinear upsampling (half-pixel centres) from (..., C, h, w) to ``shape`` (..., C, H, W) in the same dtype."""
    # The channels keep their own axis, because torch chooses its kernel by their number.
    grid = torch.from_numpy(np.array(native, dtype=np.float32)).reshape(-1, *native.shape[-3:])
    upsampled = F.interpolate(grid, shape[-2:], mode="bilinear")
    result: np.ndarray = upsampled.numpy().astype(native.dtype, copy=False).reshape(shape)
    return result


def native_twin(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The native grids behind an upsampled array: same store, same chunks, metadata without the codec.

    Args:
        array: (..., C, H, W) with an ``Upsample`` codec, as ``zarr.open(path)["features/b08"]`` gives it.

    Returns:
        (..., C, h, w), in the stored dtype. It lives in memory only; nothing is written.

    Raises:
        ValueError: the array has no such codec.
    """
    metadata = array.metadata
    codec = next((codec for codec in getattr(metadata, "codecs", ()) if isinstance(codec, Upsample)), None)
    if codec is None or not isinstance(metadata, ArrayV3Metadata):
        raise ValueError(f"{array.name}: has no {NAME} codec, so there is no native grid behind it")
    native = replace(
        metadata,
        shape=(*metadata.shape[:-2], *codec.native),
        chunk_grid=RegularChunkGrid(chunk_shape=(*metadata.chunks[:-2], *codec.native)),
        codecs=tuple(other for other in metadata.codecs if other is not codec),
    )
    # Zeros are data here: without this a chunk of zeros would be deleted instead of written.
    config = replace(array.async_array.config, write_empty_chunks=True)
    return zarr.Array(zarr.AsyncArray(metadata=native, store_path=array.store_path, config=config))
