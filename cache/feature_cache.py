"""The feature cache: writing rows, and reading what was written."""

__all__ = ["FeatureCache"]

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from textdiff.cache import chunks
from textdiff.cache.cast import Cast
from textdiff.cache.create import CachePlan, Contents, build_cache, read_attributes, read_table, rewrite_about
from textdiff.cache.fingerprint import differing_fields, differing_rows, same_features
from textdiff.cache.info import cache_info
from textdiff.cache.ledger import entry_key
from textdiff.cache.reader import TABLE, CacheReader
from textdiff.cache.rows import CacheError, DamagedError, Row
from textdiff.cache.stores import store_at
from textdiff.cache.verify import Fault, verify_rows
from textdiff.cache.writer import checked_pixels, take_over_row, write_row
from textdiff.files import check_free_space
from textdiff.places import located


class FeatureCache(CacheReader):
    """Decoder activations, images, masks and text embeddings of a data set, in a Zarr v3 group (see ``layout``).

    Make one with ``create`` or ``open``. Several processes may write different rows at the same time, and several
    threads may read. A row exists once its ledger entry does, which is written last.
    """

    filled: Mapping[str, Any] | None = None
    """What the ``extract`` that gave this cache took: rows, bytes, seconds, and by stage the seconds that it waited,
    those of its processes added up; None where it made no row, or where the cache was opened."""

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        tokens: npt.ArrayLike | None = None,
        token_mask: npt.ArrayLike | None = None,
        overwrite: bool = False,
        rows_to_write: int = 0,
        **plan: Unpack[CachePlan],
    ) -> Self:
        """Makes a cache without rows; one of the same fingerprint that is there already is opened instead.

        It appears complete with metadata, table and texts, or not at all.

        Args:
            path: where to, a directory.
            tokens: (n, L, D) float32 embeddings of the texts, or None.
            token_mask: (n, L) bool, False where there is padding, or None.
            overwrite: replace a TextDiff cache that is there.
            rows_to_write: how many are about to be; without free space for them nothing is made or replaced.
            plan: what it is to hold: ``fingerprint``, ``rows``, ``blocks``, ``steps``, ``image_size`` and, where there
                are any, ``texts`` and facts ``about`` it; see ``CachePlan``.

        Raises:
            CacheError: another cache is there, or something that is no cache.
            UserError: the disk is full, or has too little free space for the rows.
            TypeError: a field of the plan is missing or unknown.
            ValueError: arguments that contradict each other.
        """
        path, contents = located(path), Contents.of(plan, tokens, token_mask)
        store = store_at(path)
        if overwrite or not store.occupied():
            check_free_space(
                path,
                rows_to_write * contents.layout.row_nbytes,
                f"the {rows_to_write} rows need",
                "free some, choose another --cache, fewer --blocks or --steps. Nothing was written",
                store.nbytes() if overwrite else 0,
            )
            build_cache(path, contents, overwrite)
        cache = cls.open(path, writable=True)
        cache.check_fingerprint(plan["fingerprint"])
        cache._refuse(cache.differing_table(plan["rows"], plan.get("texts", ())))
        return cache

    @classmethod
    def plan(cls, path: str | os.PathLike[str], **plan: Unpack[CachePlan]) -> Self:
        """The cache that ``create`` would make, without making it: no row exists, and nothing is on the disk.

        Raises:
            TypeError: a field of the plan is missing or unknown.
            ValueError: arguments that contradict each other.
        """
        contents = Contents.of(plan)
        cache = cls(located(path), contents.attributes, contents.table, False)
        cache._identity = None  # whatever is at the path by now, it is not this cache
        return cache

    @classmethod
    def open(cls, path: str | os.PathLike[str], writable: bool = False) -> Self:
        """Opens the cache at ``path``; ``writable`` also removes what killed writers left behind.

        Raises:
            CacheError: nothing there, no TextDiff cache, or one of another schema.
            DamagedError: its root or its table is not as it was written.
        """
        path = located(path)
        store = store_at(path)
        identity = store.identity(TABLE)
        attributes = read_attributes(path)
        if writable:
            store.sweep()
        try:
            cache = cls(path, attributes, read_table(path, attributes["table_sha256"]), writable)
            if cache._identity == identity:
                return cache
        except chunks.ChunkError as error:
            if store.identity(TABLE) == identity:
                raise DamagedError(f"{path}: its sample table is damaged: {error}; {DamagedError.FIX}") from error
        return cls.open(path, writable)  # another cache took its place between two reads

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Checks that the cache's features were made, and would be extended, in exactly this way.

        Raises:
            CacheError: names what differs, with both values.
        """
        masks_alone = same_features(self.fingerprint, fingerprint)
        fix = "--update, which keeps the activations," if masks_alone else "--overwrite"
        self._refuse(differing_fields(self.fingerprint, fingerprint), fix)

    def _refuse(self, differing: Sequence[str], fix: str = "--overwrite") -> None:
        if differing:
            raise CacheError(f"{self.path}: made otherwise: {'; '.join(differing)}; use {fix} or another --cache")

    def differing_table(self, rows: Sequence[Row], texts: Sequence[str]) -> list[str]:
        """What differs between the cache's samples and texts and these, in a few lines; empty if nothing does."""
        if (*rows,) == self.rows and (*texts,) == self.texts:
            return []
        return differing_rows(self.rows, rows, self.texts, texts) or ["the same texts in another order"]

    def write(
        self,
        row: int,
        features: Mapping[int, npt.ArrayLike | Cast],
        image: np.ndarray,
        mask: np.ndarray | None = None,
        truth: np.ndarray | None = None,
        instances: np.ndarray | None = None,
    ) -> None:
        """Writes one row, replacing the one that is there. Until it is complete, nothing changes.

        Args:
            row: its index.
            features: for every block (steps, C, h, w), any float dtype, cast to the cache's; or a ``Cast``. An int8
                cache also takes what its ``stored`` gives.
            image: (H, W, 3) uint8.
            mask: (H, W) uint8 class numbers, exactly for rows whose image has one.
            truth: ``Row.truth_shape`` uint8, in the original size, exactly for rows with a mask and view 0.
            instances: ``Row.truth_shape`` unsigned object numbers, exactly for those rows of a cache with instances.

        Raises:
            CacheError: a value is not finite in the cache's dtype; says which block and step.
            ValueError: shapes or dtypes that are not the cache's, or the cache was opened for reading.
            OSError: the disk is full or not writable.
        """
        with self._writing(row):
            pixels = checked_pixels(self.layout, self.rows[row], image, mask, truth, instances)
            write_row(self, row, features, pixels)

    def take_over(
        self,
        row: int,
        source: "FeatureCache",
        source_row: int,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        truth: np.ndarray | None = None,
        instances: np.ndarray | None = None,
    ) -> None:
        """Writes one row as ``write`` does, with the activations of another cache's row.

        That row is verified first: its checksums, its ledger entry, and that its image is this one.

        Args:
            row: its index.
            source: a cache of the same features: their fingerprints differ by the masks at most.
            source_row: the index of the row there, which shows the same.
            image: as for ``write``, like the next three.
            mask: see ``write``.
            truth: see ``write``.
            instances: see ``write``.

        Raises:
            ChunkError: the source's row is missing, damaged, or of another image. Nothing was written.
            ValueError: other features; shapes or dtypes that are not the cache's; opened for reading.
            OSError: the disk is full or not writable.
        """
        if not same_features(source.fingerprint, self.fingerprint) or source.blocks != self.blocks:
            raise ValueError(f"{source.path}: its features were made otherwise than those of {self.path}")
        with source.store.locked(shared=True), self._writing(row):
            source.check_same()
            pixels = checked_pixels(self.layout, self.rows[row], image, mask, truth, instances)
            take_over_row(self, row, source, source_row, pixels)

    def _require_writable(self) -> None:
        if not self._writable:
            raise ValueError(f"{self.path}: opened for reading")

    @contextmanager
    def _writing(self, row: int) -> Iterator[None]:
        """Checks that a row may be written, and keeps the cache from being replaced meanwhile."""
        self._require_writable()
        if not 0 <= row < len(self.rows):
            raise IndexError(f"row {row} of {len(self.rows)}")
        with self.store.locked(shared=True):
            self.check_same()
            yield

    def make_durable(self) -> None:
        """Has every row that is written from now on outlast a loss of power, as far as the file system promises.

        So do the metadata, the table and the texts, and the rows that are there.
        """
        self._require_writable()
        self.store.make_durable()

    def describe(self, about: Mapping[str, Any]) -> None:
        """Replaces ``about``, the facts that do not determine the features, where they are others now."""
        self._require_writable()
        if about == self.about:
            return
        with self.store.locked():
            self.check_same()
            self.attributes = rewrite_about(self.path, self.attributes, about)
        self.about = self.attributes["about"]

    def forget(self, rows: Iterable[int]) -> None:
        """Takes rows out of the ledger, so that ``extract`` makes them again."""
        self._require_writable()
        for row in rows:
            self.store.delete(entry_key(row))

    def verify(self, progress: Callable[[], object] | None = None) -> list[Fault]:
        """Recomputes every checksum and every ledger entry, and compares all metadata with what they should be.

        Args:
            progress: called once for each row that exists.

        Returns:
            Everything that is not as it was written, in the order of the rows.
        """
        return verify_rows(self, progress)

    def info(self) -> dict[str, Any]:
        """What the cache holds and how it was made, JSON-able."""
        return cache_info(self)
