"""What a cache consists of: a Zarr v3 group, its attributes, and the metadata of its arrays.

=================  ========================  =======  ======================================================
array              shape                     dtype    one chunk for
=================  ========================  =======  ======================================================
features/b{block}  (rows, steps, C, H, W)    fp16/32  each row and step; stored as (C, h, w), see ``codec``
image              (rows, H, W, 3)           uint8    each row
mask               (rows, H, W)              uint8    each row that has a mask
truth              (rows, Hmax, Wmax)        uint8    each unturned row that has a mask; padded with zeros, zstd
instances          (rows, Hmax, Wmax)        uint16/32  as truth; only where masks number their objects (schema 2)
text/tokens        (texts, L, D)             float32  each text
text/mask          (texts, L)                uint8    each text
table              (bytes,)                  uint8    all; rows and texts as JSON, zstd
ledger             (rows, 16)                uint8    each row
=================  ========================  =======  ======================================================

Masks hold class numbers. Their names are in the fingerprint's "classes" where there is more than foreground and
background, the type of ``instances`` in its "instances"; a cache with either has schema 2, all others schema 1.

Every chunk ends with a crc32c. There are no shards, because two processes that write one shard lose rows.
"""

__all__ = ["FORMAT", "SCHEMA", "Layout", "features_name", "schema_of"]

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from textdiff.cache.chunks import CRC_BYTES, ZSTD_LEVEL
from textdiff.cache.codec import DTYPES, Upsample
from textdiff.cache.ledger import ENTRY_BYTES
from textdiff.cache.rows import Row

FORMAT = "textdiff feature cache"
SCHEMA = 2
"""The newest schema; older ones are read as well."""
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
        itemsize = np.dtype(self.dtype).itemsize
        features = sum(len(self.steps) * (math.prod(shape) * itemsize + CRC_BYTES) for shape in self.blocks.values())
        pixels = self.image_size**2
        return features + (3 * pixels + CRC_BYTES) + (pixels + CRC_BYTES) + (ENTRY_BYTES + CRC_BYTES)

    def build(self, group: zarr.Group) -> None:
        """Creates every array in an empty group; no chunk is written."""
        size, rows = self.image_size, self.rows
        for block, (C, h, w) in self.blocks.items():
            # Blocks differ in channels, and xarray wants one size per name in a group.
            names = ("row", "step", f"channel_b{block:02d}", "y", "x")
            shape = (rows, len(self.steps), C, size, size)
            # Where a chunk is missing, other readers get NaN rather than plausible zeros.
            self._create(
                group, features_name(block), shape, (1, 1, C, size, size), self.dtype, names, Upsample((h, w)), np.nan
            )
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
        codec: Upsample | None = None,
        fill_value: Any = 0,
    ) -> None:
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            filters=[] if codec is None else [codec],
            serializer=BytesCodec(endian="little"),
            compressors=[*([ZstdCodec(level=ZSTD_LEVEL)] if name in COMPRESSED else []), Crc32cCodec()],
            fill_value=fill_value,
            # One file per chunk in one directory: nested directories would take as much room as some chunks.
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=dimensions,
        )

    def row_chunks(self, path: Path, row: int, entry: Row) -> Iterator[tuple[str, int | None, Path]]:
        """(array, index of the step, file) of every chunk of a row, in the order of the ledger's digest."""
        for block in self.blocks:
            name = features_name(block)
            for step in range(len(self.steps)):
                yield name, step, path / name / f"c.{row}.{step}.0.0.0"
        yield "image", None, path / "image" / f"c.{row}.0.0.0"
        if entry.has_mask:
            yield "mask", None, path / "mask" / f"c.{row}.0.0"
        if entry.has_truth:
            yield "truth", None, path / "truth" / f"c.{row}.0.0"
            if self.instances is not None:
                yield "instances", None, path / "instances" / f"c.{row}.0.0"


def features_name(block: int) -> str:
    """The array that holds a block's activations."""
    return f"features/b{block:02d}"


def schema_of(fingerprint: Mapping[str, Any]) -> int:
    """The schema of a cache: 2 with what schema 1 did not have, so that a TextDiff that does not know it says so."""
    return 2 if "instances" in fingerprint or "classes" in fingerprint else 1
