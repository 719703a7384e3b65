"""Reading a cache: which rows exist, and what they hold."""

__all__ = ["CacheReader", "identity_of"]

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textdiff.cache import chunks
from textdiff.cache.layout import Layout, features_name
from textdiff.cache.ledger import read_entry
from textdiff.cache.rows import CacheError, Row, unpack_table


class CacheReader:
    """The reading half of ``FeatureCache``. Only rows that are in the ledger are served; several threads may read."""

    def __init__(self, path: Path, attributes: Mapping[str, Any], table: bytes, writable: bool) -> None:
        self.path = path
        self.rows, self.texts = unpack_table(table)
        self.fingerprint: dict[str, Any] = attributes["fingerprint"]
        self.fingerprint_hash: str = attributes["fingerprint_hash"]
        self.about: dict[str, Any] = attributes["about"]
        self.layout = Layout.of(
            self.rows,
            {int(block): shape for block, shape in attributes["blocks"].items()},
            attributes["steps"],
            attributes["image_size"],
            self.fingerprint,
            len(table),
            attributes["tokens"],
        )
        self.table_hash = hashlib.sha256(table).hexdigest()
        """Of the samples and the texts; equal for caches of the same data set, read in the same way."""
        self._writable = writable
        self._identity = identity_of(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        blocks, steps = (", ".join(map(str, numbers)) for numbers in (self.blocks, self.steps))
        images = len({row.id for row in self.rows})
        what = f"{len(self.rows)} rows of {images} images, {self.image_size}x{self.image_size}"
        return f"<FeatureCache {self.path}: {what}, blocks {blocks}, steps {steps}>"

    @property
    def blocks(self) -> dict[int, tuple[int, int, int]]:
        """Native shape (C, h, w) of every block, ascending."""
        return self.layout.blocks

    @property
    def steps(self) -> tuple[int, ...]:
        """The diffusion steps."""
        return self.layout.steps

    @property
    def image_size(self) -> int:
        """H = W of the stored images and masks."""
        return self.layout.image_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the features: float16 or float32."""
        return np.dtype(self.layout.dtype)

    @property
    def text_dim(self) -> int | None:
        """D of the text embeddings, None without."""
        return None if self.layout.tokens is None else self.layout.tokens[2]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the mask's values 1, 2, ...; one, ``foreground``, where the data set names none."""
        return tuple(self.fingerprint.get("classes", ("foreground",)))

    @property
    def has_instances(self) -> bool:
        """Whether rows with a ``truth`` also have ``instances``."""
        return self.layout.instances is not None

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row's files, but for some kB of its compressed ``truth`` and ``instances``."""
        return self.layout.row_nbytes

    def done(self) -> npt.NDArray[np.bool_]:
        """(rows,) bool: which rows exist. A row whose ledger entry is damaged does not."""
        if self._identity is None:
            return np.zeros(len(self.rows), np.bool_)
        present = {name.name for name in os.scandir(self.path / "ledger")}
        return np.array([self._ledger(row).name in present and self._exists(row) for row in range(len(self.rows))])

    def pending(self) -> list[int]:
        """The rows that do not exist yet."""
        return np.flatnonzero(~self.done()).tolist()

    def features(
        self, row: int, block: int, out: np.ndarray | None = None, steps: Sequence[int] | None = None
    ) -> np.ndarray:
        """The native grids (steps, C, h, w) of one block in the cache's dtype, read into ``out`` if given.

        ``steps`` are those to read, in this order; all of the cache's by default.

        Raises:
            CacheError: the row does not exist or is damaged.
        """
        self._require(row)
        wanted = self.steps if steps is None else steps
        shape = (len(wanted), *self.blocks[block])
        result = np.empty(shape, self.dtype) if out is None else out
        if result.shape != shape or result.dtype != self.dtype or not result.flags.c_contiguous:
            raise ValueError(f"out must be a contiguous {self.dtype} array {shape}")
        for step, grid in zip(wanted, result, strict=True):
            file = self.path / features_name(block) / f"c.{row}.{self.steps.index(step)}.0.0.0"
            self._read(file, grid, row, f"block {block} at step {step}")
        return result

    def image(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB. Raises CacheError as ``features`` does."""
        self._require(row)
        image = np.empty((self.image_size, self.image_size, 3), np.uint8)
        self._read(self.path / "image" / f"c.{row}.0.0.0", image, row, "the image")
        return image

    def mask(self, row: int) -> np.ndarray | None:
        """(H, W) uint8 class labels, None where the image has none. Raises CacheError as ``features`` does."""
        if not self._require(row).has_mask:
            return None
        mask = np.empty((self.image_size, self.image_size), np.uint8)
        self._read(self.path / "mask" / f"c.{row}.0.0", mask, row, "the mask")
        return mask

    def truth(self, row: int) -> np.ndarray | None:
        """The mask (h, w) uint8 in the original size, None for turned views and where the image has none.

        Of a tile that is the part of the image that it shows, without what it has beyond the image's end.

        Raises:
            CacheError: the row does not exist or is damaged.
        """
        return self._original("truth", row, "uint8")

    def instances(self, row: int) -> np.ndarray | None:
        """The numbers of the objects (h, w) uint16 or uint32 in the original size, 0 for the background.

        None where the data set does not tell objects apart, for turned views and where the image has no mask. A number
        is as the data set has it: they need not be consecutive.

        Raises:
            CacheError: the row does not exist or is damaged.
        """
        return None if self.layout.instances is None else self._original("instances", row, self.layout.instances)

    def _original(self, name: str, row: int, dtype: str) -> np.ndarray | None:
        """What ``truth`` or ``instances`` holds for a row, without padding."""
        entry = self._require(row)
        if not entry.has_truth:
            return None
        try:
            padded = chunks.decompress(chunks.checked(self.path / name / f"c.{row}.0.0"), self.layout.truth, dtype)
        except chunks.ChunkError as error:
            raise self._damaged(row, f"the {name}", error) from error
        self.check_same()
        h, w = entry.truth_shape
        return padded[:h, :w].astype(dtype)

    def text(self, row: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The row's text as tokens (L, D) float32 and mask (L,) bool, without masked padding at its end.

        None where there is no text or there are no embeddings. Texts are there before the rows are.

        Raises:
            CacheError: the text is damaged.
        """
        text = self.rows[row].text
        if self.layout.tokens is None or text < 0:
            return None
        tokens, mask = self.embedding(text)
        length = int(np.flatnonzero(mask)[-1]) + 1
        return tokens[:length].copy(), mask[:length].copy()

    def embedding(self, text: int) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of ``texts[text]`` as they are stored: tokens (L, D) float32 and mask (L,) bool.

        Raises:
            CacheError: they are damaged.
        """
        assert self.layout.tokens is not None
        tokens, mask = np.empty(self.layout.tokens[1:], np.float32), np.empty(self.layout.tokens[1], np.uint8)
        try:
            chunks.read_into(self.path / f"text/tokens/c.{text}.0.0", tokens)
            chunks.read_into(self.path / f"text/mask/c.{text}.0", mask)
        except chunks.ChunkError as error:
            raise CacheError(
                f"{self.path}: the embedding of text {text} is damaged: {error}; make the cache again with textdiff "
                "extract --overwrite (textdiff cache verify lists all damage)"
            ) from error
        self.check_same()
        return tokens, mask.astype(bool)

    def check_same(self) -> None:
        """Refuses to go by this table where another cache is in the place of the one that was opened.

        Checked after a read: what was read then is of the cache that was opened.
        """
        if identity_of(self.path) != self._identity:
            raise CacheError(f"{self.path}: was replaced by another cache while it was in use; run the command again")

    def _ledger(self, row: int) -> Path:
        return self.path / "ledger" / f"c.{row}.0"

    def _exists(self, row: int) -> bool:
        try:
            return read_entry(self._ledger(row)) is not None
        except chunks.ChunkError:
            return False

    def _require(self, row: int) -> Row:
        """The entry of a row that exists."""
        if not 0 <= row < len(self.rows):
            raise IndexError(f"row {row} of {len(self.rows)}")
        self.check_same()
        try:
            if read_entry(self._ledger(row)) is not None:
                return self.rows[row]
        except chunks.ChunkError as error:
            raise self._damaged(row, "the ledger entry", error) from error
        raise CacheError(
            f"{self.path}: row {row} ({self.rows[row]}) is not in the cache yet; run textdiff extract again to add it"
        )

    def _read(self, file: Path, out: np.ndarray, row: int, what: str) -> None:
        try:
            chunks.read_into(file, out)
        except chunks.ChunkError as error:
            self.check_same()
            raise self._damaged(row, what, error) from error
        self.check_same()

    def _damaged(self, row: int, what: str, error: Exception) -> CacheError:
        return CacheError(
            f"{self.path}: row {row} ({self.rows[row]}) is damaged: {what}: {error}; "
            f"run textdiff cache verify {self.path} --drop, then the same textdiff extract again"
        )


def identity_of(path: Path) -> tuple[int, int, int] | None:
    """What tells the cache at ``path`` from one that takes its place; None where there is none.

    The table is written once. Its number alone may be given to another file when it is gone.
    """
    try:
        found = (path / "table/c.0").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
