"""Reading a cache: which rows exist, and what they hold."""

__all__ = ["TABLE", "CacheReader"]

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textdiff.cache import chunks, ledger
from textdiff.cache.int8 import unpack
from textdiff.cache.layout import Layout, features_name
from textdiff.cache.rows import CacheError, Row, unpack_table
from textdiff.cache.stores import Store, store_at
from textdiff.console import counted
from textdiff.errors import quoted
from textdiff.places import Location

TABLE = "table/c.0"
"""It is written once, so it tells the cache from one that takes its place."""


class CacheReader:
    """The reading half of ``FeatureCache``; several threads may read.

    Only rows that are in the ledger are served. When a row is first read, its entry is checked against the checksums of
    all its chunks, and every chunk that is read later against its own among them. So whatever part of a row is asked
    for, it is the part that was written for this row. Of a row that another process writes again meanwhile, the new
    chunks are served. The embeddings of the texts are checked in the same way.
    """

    def __init__(self, path: Location, attributes: Mapping[str, Any], table: bytes, writable: bool) -> None:
        self.path, self.attributes = path, attributes
        self.store: Store = store_at(path)
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
        self.blocks = self.layout.blocks
        """Native shape (C, h, w) of every block, ascending."""
        self.steps = self.layout.steps
        """The diffusion steps."""
        self.image_size = self.layout.image_size
        """H = W of the stored images and masks."""
        self.dtype: np.dtype[Any] = np.dtype(self.layout.values)
        """The type of the features as they are read, float16 or float32; ``layout.dtype`` is that of what is stored."""
        self.text_dim = None if self.layout.tokens is None else self.layout.tokens[2]
        """D of the text embeddings, None without."""
        self.classes: tuple[str, ...] = tuple(self.fingerprint.get("classes", ("foreground",)))
        """The names of the mask's values 1, 2, ...; one, ``foreground``, where the data set names none."""
        self.has_instances = self.layout.instances is not None
        """Whether rows with a ``truth`` also have ``instances``."""
        self.sparse = "unlabelled" in self.fingerprint
        """Whether masks may say nothing of some pixels, which are 255 in ``mask`` and ``truth``."""
        self.row_nbytes = self.layout.row_nbytes
        """Bytes of a row's files, but for some kB of its compressed ``truth`` and ``instances``."""
        self.table_hash: str = attributes["table_sha256"]
        """The SHA-256 of the samples and the texts; equal for caches of the same data set, read in the same way."""
        self.texts_digest: str = attributes["texts_digest"]
        """The digest of the embeddings of the texts."""
        self._sound: dict[int, tuple[bytes, bytes]] = {}
        """By rows whose entry was found right, that entry and the checksums of the row's chunks."""
        self._sound_texts: bytes | None = None
        self._writable = writable
        self._identity = self.store.identity(TABLE)
        self._seen: dict[str, str] = {}
        """Entries of rows that exist, as the store's list tells them from others."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        blocks, steps = (", ".join(map(str, numbers)) for numbers in (self.blocks, self.steps))
        images = len({row.id for row in self.rows})
        what = f"{counted(len(self.rows), 'row')} of {counted(images, 'image')}, {self.image_size}x{self.image_size}"
        return f"<FeatureCache {self.path}: {what}, blocks {blocks}, steps {steps}>"

    def done(self) -> npt.NDArray[np.bool_]:
        """(rows,) bool: which rows exist. A row whose ledger entry is damaged does not."""
        if self._identity is None:
            return np.zeros(len(self.rows), np.bool_)
        present = self.store.list("ledger")  # without it nothing vouches for any row
        there = np.zeros(len(self.rows), np.bool_)
        rows = [row for row in range(len(self.rows)) if ledger.entry_key(row) in present]
        there[rows] = self.store.map(lambda row: self._exists(row, present[ledger.entry_key(row)]), rows)
        return there

    def pending(self) -> list[int]:
        """The rows that do not exist yet."""
        return np.flatnonzero(~self.done()).tolist()

    def check_done(self, rows: Iterable[int], what: str) -> None:
        """Checks that some images are all there.

        Args:
            rows: of the images.
            what: they are, in the plural.

        Raises:
            CacheError: some are not; says how many.
        """
        done = self.done()
        if missing := {self.rows[row].id for row in rows if not done[row]}:
            raise CacheError(
                f"{self.path}: not complete, {len(missing)} {what} have rows to do; run the same `textdiff extract` "
                "again to finish it"
            )

    def features(
        self, row: int, block: int, out: np.ndarray | None = None, steps: Sequence[int] | None = None
    ) -> np.ndarray:
        """The native grids (steps, C, h, w) of one block in the cache's dtype, read into ``out`` if given.

        ``steps`` are those to read, in this order; all of the cache's by default.

        Raises:
            CacheError: the row does not exist or is damaged.
        """
        if self.layout.dtype != "int8":
            return self.stored(row, block, out, steps)
        packed = torch.from_numpy(self.stored(row, block, None, steps))
        grids: np.ndarray = unpack(packed, *self.blocks[block][1:]).numpy()
        if out is None:
            return grids
        np.copyto(_checked(out, grids.shape, self.dtype), grids)
        return out

    def stored(
        self, row: int, block: int, out: np.ndarray | None = None, steps: Sequence[int] | None = None
    ) -> np.ndarray:
        """As ``features``, but of an int8 cache what its chunks hold, (steps, C, 4 + h * w), which ``unpack`` takes."""
        checksums = self._require(row)
        wanted = self.steps if steps is None else steps
        chunk, dtype = self.layout.stored(block)
        shape = (len(wanted), *chunk)
        result = np.empty(shape, dtype) if out is None else _checked(out, shape, dtype)

        def read(at: int) -> None:
            self._read(row, checksums, features_name(block), self.steps.index(wanted[at]), result[at])

        self.store.map(read, range(len(wanted)))
        return result

    def image(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB. Raises CacheError as ``features`` does."""
        image = np.empty((self.image_size, self.image_size, 3), np.uint8)
        self._read(row, self._require(row), "image", None, image)
        return image

    def mask(self, row: int) -> np.ndarray | None:
        """(H, W) uint8 class labels, None where the image has none. Raises CacheError as ``features`` does."""
        checksums, mask = self._require(row), np.empty((self.image_size, self.image_size), np.uint8)
        if not self.rows[row].has_mask:
            return None
        self._read(row, checksums, "mask", None, mask)
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
        checksums = self._require(row)
        if not self.rows[row].has_truth:
            return None
        padded = chunks.decompress(self._read(row, checksums, name, None), self.layout.truth, dtype)
        h, w = self.rows[row].truth_shape
        return padded[:h, :w].astype(dtype)

    def text_of(self, entry: Row) -> str:
        """The text of an entry of the table, in words; empty where there is none."""
        return self.texts[entry.text] if entry.text >= 0 else ""

    def sentence(self, row: int) -> str:
        """The text of the row's image in words, as it is before it turns with a view; empty where there is none."""
        return self._sentences[self.rows[row].id]

    @cached_property
    def _sentences(self) -> dict[str, str]:
        """By image the text of its first view."""
        return {entry.id: self.text_of(entry) for entry in sorted(self.rows, key=lambda entry: -entry.view)}

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
            read = self.store.read_into(f"text/tokens/c.{text}.0.0", tokens)
            read += self.store.read_into(f"text/mask/c.{text}.0", mask)
        except chunks.ChunkError as error:
            raise self._damaged_text(f"text {text}", error) from error
        if self._sound_texts is None:
            self._sound_texts = ledger.text_checksums(self)
        if self._sound_texts is None or self._sound_texts[len(read) * text :][: len(read)] != read:
            bad = ledger.bad_texts(self)
            raise self._damaged_text(*(bad[0][::2] if bad else (f"text {text}", ledger.NOT_THEIRS)))
        self.check_same()
        return tokens, mask.astype(bool)

    def check_same(self) -> None:
        """Refuses to go by this table where another cache is in the place of the one that was opened.

        Checked after a read: what was read then is of the cache that was opened.
        """
        if self.store.identity(TABLE) != self._identity:
            raise CacheError(f"{self.path}: was replaced by another cache while it was in use; run the command again")

    def _damaged_text(self, name: str, error: object) -> CacheError:
        self.check_same()
        return CacheError(
            f"{self.path}: the embeddings of the texts are damaged: {name}: {error}; run textdiff cache repair "
            f"{quoted(self.path)}, then the same textdiff extract again"
        )

    def _exists(self, row: int, entry: str) -> bool:
        """Whether an entry, which the store's list tells from others by ``entry``, is sound and not zero."""
        key = ledger.entry_key(row)
        if not self.store.near and self._seen.get(key) == entry:
            return True
        try:
            there = ledger.read_entry(self.store, row) is not None
        except chunks.ChunkError:
            return False
        if there:
            self._seen[key] = entry
        return there

    def _entry(self, row: int) -> bytes:
        """The ledger entry of a row that exists."""
        try:
            if (entry := ledger.read_entry(self.store, row)) is not None:
                return entry
        except chunks.ChunkError as error:
            raise self._damaged(row, "the ledger entry", error) from error
        raise CacheError(
            f"{self.path}: row {row} ({self.rows[row]}) is not in the cache yet; run textdiff extract again to add it"
        )

    def _require(self, row: int) -> bytes:
        """The checksums of the chunks of a row that exists, as its ledger entry vouches for them."""
        if not 0 <= row < len(self.rows):
            raise IndexError(f"row {row} of {len(self.rows)}")
        self.check_same()
        if not self.store.near and row in self._sound:
            return self._sound[row][1]  # every chunk is held against it: one that was replaced since shows itself
        entry = self._entry(row)
        while True:
            known = self._sound.get(row)
            if known is not None and known[0] == entry:
                return known[1]
            checksums = ledger.row_checksums(self, row, entry)
            if checksums is not None:
                self._sound[row] = (entry, checksums)
                return checksums
            # Another process may be writing the row again.
            before, entry = entry, self._entry(row)
            if entry == before:
                break
        bad = ledger.bad_chunks(self, row, entry) or [("ledger", None, ledger.NOT_THEIRS)]
        name, step, what = bad[0]
        raise self._damaged(row, self.layout.named(name, step), what)

    def _read(self, row: int, checksums: bytes, name: str, step: int | None, out: np.ndarray | None = None) -> bytes:
        """One chunk of a row with the checksum that it has to have; of one that is read into ``out`` that alone."""
        at = self.layout.number(name, step) * chunks.CRC_BYTES
        while True:
            try:
                key = self.layout.chunk(row, name, step)
                data = self.store.checked(key) if out is None else self.store.read_into(key, out)
            except chunks.ChunkError as error:
                self.check_same()
                raise self._damaged(row, self.layout.named(name, step), error) from error
            self.check_same()
            if data[-chunks.CRC_BYTES :] == checksums[at : at + chunks.CRC_BYTES]:
                return data
            # The row was written again since its entry was checked, or this is none of its chunks.
            self._sound.pop(row, None)
            checksums = self._require(row)

    def _damaged(self, row: int, what: str, error: object) -> CacheError:
        return CacheError(
            f"{self.path}: row {row} ({self.rows[row]}) is damaged: {what}: {error}; "
            f"run textdiff cache repair {quoted(self.path)}, then the same textdiff extract again"
        )


def _checked(out: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"out must be a contiguous {dtype} array {shape}")
    return out
