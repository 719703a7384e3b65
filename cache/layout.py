"""What a cache consists of: a Zarr v3 group, its attributes, and the metadata of its arrays.

=================  ========================  =======  ======================================================
array              shape                     dtype    one chunk for
=================  ========================  =======  ======================================================
features/b{block}  (rows, steps, C, H, W)    fp16/32  each row and step; stored as (C, h, w), see ``codec``, or in
                                                      8 bits as (C, 4 + h * w), see ``int8``
image              (rows, H, W, 3)           uint8    each row
mask               (rows, H, W)              uint8    each row that has a mask
truth              (rows, Hmax, Wmax)        uint8    each unturned row that has a mask; padded with zeros, zstd
instances          (rows, Hmax, Wmax)        uint16/32  as truth; only where masks number their objects
text/tokens        (texts, L, D)             float32  each text
text/mask          (texts, L)                uint8    each text
table              (bytes,)                  uint8    all; rows and texts as JSON, zstd
ledger             (rows, 16)                uint8    each row
=================  ========================  =======  ======================================================

Masks hold class numbers. Their names are in the fingerprint's "classes" where there is more than foreground and
background, the type of ``instances`` in its "instances". Where it has "unlabelled", 255 in a mask and in the truth says
nothing of a pixel.

Every chunk ends with a crc32c; docs/cache.md tells what guards these. There are no shards, because two processes that
write one shard lose rows.
"""

__all__ = ["FORMAT", "SCHEMA", "Layout", "features_name", "scales_name"]

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import zarr
from zarr.abc.codec import ArrayArrayCodec
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from textdiff.cache.chunks import CRC_BYTES, ZSTD_LEVEL
from textdiff.cache.codec import Upsample
from textdiff.cache.int8 import SCALE_BYTES, Int8
from textdiff.cache.ledger import ENTRY_BYTES
from textdiff.cache.rows import Row

FORMAT = "textdiff feature cache"
SCHEMA = 3
DTYPES = ("float16", "float32", "int8")
PIXELS = ("image", "mask", "truth", "instances")
COMPRESSED = ("truth", "instances", "table")
INSTANCES = ("uint16", "uint32")


@dataclass(frozen=True)
class Layout:
    """The sizes that fix all metadata and every chunk's place."""

    rows: int
    blocks: dict[int, tuple[int, int, int]]
    """Native shape (C, h, w) of every block, ascending."""
    steps: tuple[int, ...]
    image_size: int
    dtype: str
    """What the chunks of features hold."""
    truth: tuple[int, int]
    """The largest height and width of a ``truth``."""
    table: int
    """Bytes of the table."""
    tokens: tuple[int, int, int] | None
    """(texts, L, D), None without embeddings."""
    instances: str | None = None
    """The type of ``instances``, None without."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        blocks: Mapping[int, Sequence[int]],
        steps: Sequence[int],
        image_size: int,
        fingerprint: Mapping[str, Any],
        table: int,
        tokens: Sequence[int] | None,
    ) -> Self:
        """The layout for these rows.

        Raises:
            ValueError: no blocks, no steps, an impossible size, or a dtype of features or instances that is none.
        """
        if not blocks or not steps or image_size < 1 or any(len(s) != 3 or min(s) < 1 for s in blocks.values()):
            raise ValueError(f"impossible sizes: blocks {dict(blocks)}, steps {list(steps)}, image size {image_size}")
        dtype = fingerprint.get("dtype", "float16")
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype}: must be one of {', '.join(DTYPES)}")
        instances = fingerprint.get("instances")
        if instances is not None and instances not in INSTANCES:
            raise ValueError(f"instances {instances}: must be one of {', '.join(INSTANCES)}")
        truths = [row.truth_shape for row in rows if row.has_truth]
        return cls(
            rows=len(rows),
            blocks={block: (C, h, w) for block, (C, h, w) in sorted(blocks.items())},
            steps=tuple(int(step) for step in steps),
            image_size=image_size,
            dtype=dtype,
            truth=(max((h for h, _ in truths), default=1), max((w for _, w in truths), default=1)),
            table=table,
            tokens=None if tokens is None else (tokens[0], tokens[1], tokens[2]),
            instances=instances,
        )

    @property
    def row_nbytes(self) -> int:
        """Bytes of the files of a row that has a mask.

        Its ``truth`` and ``instances`` come on top: some kB, known once compressed.
        """
        features = sum(self.block_nbytes(block) for block in self.blocks)
        pixels = self.image_size**2
        return features + (3 * pixels + CRC_BYTES) + (pixels + CRC_BYTES) + (ENTRY_BYTES + CRC_BYTES)

    def block_nbytes(self, block: int) -> int:
        """Bytes of the files of a block in a row, for all steps."""
        shape, dtype = self.stored(block)
        return len(self.steps) * (math.prod(shape) * dtype.itemsize + CRC_BYTES)

    def stored(self, block: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of what a chunk of a block holds: (C, h, w) floats, or (C, 4 + h * w) int8."""
        C, h, w = self.blocks[block]
        return ((C, SCALE_BYTES + h * w) if self.dtype == "int8" else (C, h, w)), np.dtype(self.dtype)

    @property
    def values(self) -> str:
        """The dtype of activations as they are read: int8 are float32 once their scale is multiplied in."""
        return "float32" if self.dtype == "int8" else self.dtype

    def build(self, group: zarr.Group) -> None:
        """Creates every array in an empty group; no chunk is written."""
        size, rows = self.image_size, self.rows
        for block, (C, h, w) in self.blocks.items():
            # Blocks differ in channels, and xarray wants one size per name in a group.
            names = ("row", "step", f"channel_b{block:02d}", "y", "x")
            shape = (rows, len(self.steps), C, size, size)
            # Where a chunk is missing, other readers get NaN rather than plausible zeros.
            codecs = [Upsample((h, w)), *([Int8()] if self.dtype == "int8" else [])]
            self._create(group, features_name(block), shape, (1, 1, C, size, size), self.values, names, codecs, np.nan)
        self._create(group, "image", (rows, size, size, 3), (1, size, size, 3), "uint8", ("row", "y", "x", "rgb"))
        self._create(group, "mask", (rows, size, size), (1, size, size), "uint8", ("row", "y", "x"))
        self._create(group, "truth", (rows, *self.truth), (1, *self.truth), "uint8", ("row", "truth_y", "truth_x"))
        if self.instances is not None:
            dimensions = ("row", "truth_y", "truth_x")
            self._create(group, "instances", (rows, *self.truth), (1, *self.truth), self.instances, dimensions)
        self._create(group, "ledger", (rows, ENTRY_BYTES), (1, ENTRY_BYTES), "uint8", ("row", "byte"))
        self._create(group, "table", (self.table,), (self.table,), "uint8", ("character",))
        if self.tokens is not None:
            n, L, D = self.tokens
            self._create(group, "text/tokens", (n, L, D), (1, L, D), "float32", ("text", "token", "feature"))
            self._create(group, "text/mask", (n, L), (1, L), "uint8", ("text", "token"))

    def _create(
        self,
        group: zarr.Group,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: str,
        dimensions: tuple[str, ...],
        codecs: Sequence[ArrayArrayCodec] = (),
        fill_value: Any = 0,
    ) -> None:
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            filters=[*codecs],
            serializer=BytesCodec(endian="little"),
            compressors=[*([ZstdCodec(level=ZSTD_LEVEL)] if name in COMPRESSED else []), Crc32cCodec()],
            fill_value=fill_value,
            # One file per chunk in one directory: nested directories would take as much room as some chunks.
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=dimensions,
        )

    def row_chunks(self, row: int, entry: Row) -> Iterator[tuple[str, int | None, str]]:
        """(array, index of the step, key) of every chunk of a row, in the order of the ledger's digest."""
        has = (True, entry.has_mask, entry.has_truth, entry.has_truth and self.instances is not None)
        names: list[tuple[str, int | None]] = [
            (features_name(block), step) for block in self.blocks for step in range(len(self.steps))
        ]
        names += [(name, None) for name, there in zip(PIXELS, has, strict=True) if there]
        for name, step in names:
            yield name, step, self.chunk(row, name, step)

    def chunk(self, row: int, name: str, step: int | None) -> str:
        """The key of one chunk of a row."""
        if step is not None:
            return f"{name}/c.{row}.{step}.0.0.0"
        return f"{name}/c.{row}.0.0.0" if name == "image" else f"{name}/c.{row}.0.0"

    def number(self, name: str, step: int | None) -> int:
        """The place of a chunk among those of its row."""
        if step is not None:
            return [features_name(block) for block in self.blocks].index(name) * len(self.steps) + step
        return len(self.blocks) * len(self.steps) + PIXELS.index(name)

    def text_chunks(self) -> Iterator[tuple[str, int, str]]:
        """(array, index of the text, key) of every chunk of the embeddings, text by text."""
        for text in range(0 if self.tokens is None else self.tokens[0]):
            yield "text/tokens", text, f"text/tokens/c.{text}.0.0"
            yield "text/mask", text, f"text/mask/c.{text}.0"

    def named(self, name: str, step: int | None) -> str:
        """A chunk of a row, in words."""
        return f"the {name}" if step is None else f"block {int(name.rpartition('b')[2])} at step {self.steps[step]}"


def features_name(block: int) -> str:
    """The array that holds a block's activations."""
    return f"features/b{block:02d}"


def scales_name(block: int) -> str:
    """What the scales of a block of an int8 cache are called where they are apart from its values."""
    return f"scales/b{block:02d}"
