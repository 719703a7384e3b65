"""A cache as one HDF5 file, for ilastik, MATLAB and archives, and back.

The file holds plain datasets: ``features/b08`` (rows, steps, C, h, w) or upsampled (rows, steps, C, H, W), of an int8
cache native ones with ``scales/b08`` (rows, steps, C) float32, by which they are multiplied; ``image``,
``mask``, ``truth`` and, if the cache has them, ``instances`` (zeros where a row has none; ``samples/has_mask`` and
``samples/has_truth`` tell), ``text/tokens``, ``text/mask``, ``texts``, and one dataset per column of the sample table
in ``samples``, beside a digest of each row's arrays. Attributes are strings, one of them a checksum over the others and
the table; ``import_hdf5`` checks all of these.
"""

__all__ = ["export_hdf5", "import_hdf5"]

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from textdiff.cache import chunks
from textdiff.cache.codec import upsample
from textdiff.cache.feature_cache import FeatureCache
from textdiff.cache.fingerprint import canonical
from textdiff.cache.int8 import joined, numbers_of, scales_of
from textdiff.cache.layout import FORMAT, SCHEMA, features_name, scales_name
from textdiff.cache.ledger import texts_digest
from textdiff.cache.rows import CacheError, Row, columns, pack_table
from textdiff.cache.stores.writers import writing
from textdiff.files import atomic_path, check_ours

NUMBERS = ("view", "text", "height", "width", "tile", "y", "x")


def export_hdf5(
    cache: FeatureCache,
    path: str | os.PathLike[str],
    native: bool = True,
    rows: Sequence[int] | None = None,
    compress: bool = False,
) -> None:
    """Writes rows of a cache to one HDF5 file, atomically.

    Args:
        cache: where from.
        path: where to; an export that is there is replaced.
        native: native grids, which ``import_hdf5`` takes back bit for bit; else upsampled ones, many times larger.
        rows: which rows, by default all that exist.
        compress: gzip, which is slow and saves little on activations.

    Raises:
        CacheError: no rows, or one that does not exist or is damaged.
        UserError: a file in the place that is no export.
    """
    import h5py

    check_ours(path, "export of a cache", _is_export)
    chosen = np.flatnonzero(cache.done()).tolist() if rows is None else list(rows)
    if not chosen:
        raise CacheError(f"{cache.path}: has no rows to export; run textdiff extract first")
    table, size = [cache.rows[row] for row in chosen], cache.image_size
    filters: dict[str, Any] = {"compression": "gzip", "shuffle": True} if compress else {}

    nbytes = _most_nbytes(cache, table, native)
    with atomic_path(path) as partial, _Reserved(partial, nbytes) as out, h5py.File(out, "w") as file:
        attributes = {
            "format": FORMAT,
            "schema": str(SCHEMA),
            "grid": "native" if native else "upsampled",
            "about": canonical(cache.about),
            "fingerprint": canonical(cache.fingerprint),
            "fingerprint_hash": cache.fingerprint_hash,
            "blocks": canonical({str(block): shape for block, shape in cache.blocks.items()}),
            "steps": canonical(cache.steps),
            "image_size": str(size),
            "texts_digest": cache.texts_digest,
        }
        file.attrs.update(attributes | {"checksum": _checksum(attributes, table, cache.texts)})
        for name in columns(table):
            values = [getattr(row, name) for row in table]
            file[f"samples/{name}"] = (
                np.array(values, np.int64) if name in NUMBERS else _strings(["" if v is None else v for v in values])
            )
        file["samples/has_mask"] = np.array([row.has_mask for row in table], np.uint8)
        file["samples/has_truth"] = np.array([row.has_truth for row in table], np.uint8)
        file["texts"] = _strings(cache.texts)
        if cache.layout.tokens is not None:
            n, L, D = cache.layout.tokens
            file.create_dataset("text/tokens", (n, L, D), "<f4", chunks=(1, L, D), **filters)
            file.create_dataset("text/mask", (n, L), "u1")
            for text in range(n):
                file["text/tokens"][text], file["text/mask"][text] = cache.embedding(text)

        def create(name: str, shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...]) -> None:
            file.create_dataset(name, (len(chosen), *shape), dtype, chunks=(1, *chunk), **filters)

        for block, (C, h, w) in cache.blocks.items():
            grid = (C, h, w) if native else (C, size, size)
            dtype = np.dtype(cache.layout.dtype) if native else cache.dtype
            create(features_name(block), (len(cache.steps), *grid), dtype.newbyteorder("<"), (1, *grid))
            if native and cache.layout.dtype == "int8":
                create(scales_name(block), (len(cache.steps), C), "<f4", (len(cache.steps), C))
        create("image", (size, size, 3), "u1", (size, size, 3))
        create("mask", (size, size), "u1", (size, size))
        create("truth", cache.layout.truth, "u1", cache.layout.truth)
        if cache.layout.instances is not None:
            create("instances", cache.layout.truth, cache.layout.instances, cache.layout.truth)

        digests = []
        for number, row in enumerate(chosen):
            grids = {block: (cache.stored if native else cache.features)(row, block) for block in cache.blocks}
            for block, of_block in grids.items():
                native_grids = of_block
                if native and cache.layout.dtype == "int8":
                    file[scales_name(block)][number] = scales_of(of_block)
                    native_grids = numbers_of(of_block, *cache.blocks[block][1:])
                # One step at a time: an upsampled block of one image can be hundreds of megabytes.
                for step, grid in enumerate(native_grids):
                    file[features_name(block)][number, step] = (
                        grid if native else upsample(grid, (len(grid), size, size))
                    )
            file["image"][number] = image = cache.image(row)
            if (mask := cache.mask(row)) is not None:
                file["mask"][number] = mask
            if (truth := cache.truth(row)) is not None:
                file["truth"][number, : truth.shape[0], : truth.shape[1]] = truth
            if (objects := cache.instances(row)) is not None:
                file["instances"][number, : objects.shape[0], : objects.shape[1]] = objects
            digests.append(_digest([*grids.values(), image, mask, truth, objects]))
        file["samples/digest"] = _strings(digests)


class _Reserved(io.FileIO):
    """A file that has its space on the disk before anything is written.

    HDF5 cannot close a file that it cannot write to, as on a full disk: it crashes the process.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        super().__init__(path, "w+b")
        self._size = 0
        try:
            os.posix_fallocate(self.fileno(), 0, nbytes)
        except OSError:
            super().close()
            raise

    def write(self, data: Any) -> int:
        """As a file without reserved space."""
        count = super().write(data)
        self._size = max(self._size, self.tell())
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file without reserved space: it ends where nothing was written beyond."""
        end = self._size if whence == os.SEEK_END else 0
        return super().seek(end + offset, os.SEEK_SET if whence == os.SEEK_END else whence)

    def truncate(self, size: int | None = None) -> int:
        """Says where the file ends; what is reserved stays."""
        self._size = self.tell() if size is None else size
        return self._size

    def close(self) -> None:
        """Gives back what was not needed."""
        if not self.closed:
            super().truncate(self._size)
        super().close()


def _most_nbytes(cache: FeatureCache, rows: Sequence[Row], native: bool) -> int:
    """Bytes that an export takes at most."""
    size, chunks = cache.image_size, len(cache.blocks) * len(cache.steps) + 4
    grids = [(C, h, w) if native else (C, size, size) for C, h, w in cache.blocks.values()]
    row = len(cache.steps) * cache.dtype.itemsize * sum(map(math.prod, grids)) + 4 * size**2
    chunks += len(cache.blocks)  # scales, if there are any; their bytes are within those of floats
    row += 5 * math.prod(cache.layout.truth)
    tokens = 8 * math.prod(cache.layout.tokens or (0,))
    words = 4 * sum(len(str(value)) + 32 for entry in rows for value in vars(entry).values())
    words += 4 * sum(len(text) + 32 for text in cache.texts)
    return (1 << 20) + len(rows) * (row + 512 * chunks) + tokens + words


def _is_export(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except (PermissionError, BlockingIOError):
        raise
    except OSError:
        return False


def import_hdf5(
    path: str | os.PathLike[str],
    cache_path: str | os.PathLike[str],
    progress: Callable[[], object] | None = None,
) -> FeatureCache:
    """Makes a cache of an exported file with native grids: the rows, bit for bit. A stopped import goes on.

    Args:
        path: the HDF5 file.
        cache_path: where to.
        progress: called once per row that is written.

    Raises:
        CacheError: no such file, not an export, upsampled grids, or another cache at ``cache_path``.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "no such file" if not Path(path).exists() else "not an HDF5 file, or a damaged one"
        raise CacheError(f"{path}: {reason}; name a file that textdiff cache export wrote") from error
    with file, _damage_named(path):
        attributes = dict(file.attrs)
        if attributes.get("format") != FORMAT or attributes.get("schema") != str(SCHEMA):
            raise CacheError(f"{path}: not an export of this version; name a file that textdiff cache export wrote")
        if attributes["grid"] != "native":
            raise CacheError(f"{path}: holds upsampled grids, which cannot be taken back; export with native grids")
        rows, texts = _rows(file["samples"]), file["texts"].asstr()[:].tolist()
        if attributes.pop("checksum") != _checksum(attributes, rows, texts):
            raise ValueError("its attributes, samples or texts are not those that were written")
        blocks = {int(block): tuple(shape) for block, shape in json.loads(attributes["blocks"]).items()}
        embedded = "text/tokens" in file
        tokens, token_mask = (file["text/tokens"][:], file["text/mask"][:]) if embedded else (None, None)
        parts = () if tokens is None or token_mask is None else zip(tokens, token_mask, strict=True)
        if texts_digest(chunks.checksum(part) for text in parts for part in text) != attributes["texts_digest"]:
            raise ValueError("its text embeddings are not those that were written")
        digests = file["samples/digest"].asstr()[:].tolist()
        try:
            cache = FeatureCache.create(
                cache_path,
                fingerprint=json.loads(attributes["fingerprint"]),
                rows=rows,
                blocks=blocks,
                steps=json.loads(attributes["steps"]),
                image_size=int(attributes["image_size"]),
                texts=texts,
                tokens=tokens,
                token_mask=token_mask,
                about=json.loads(attributes["about"]),
            )
        except CacheError as error:  # what extract could do about it, an import cannot
            raise CacheError(
                f"{cache_path}: what is there is not the cache that {path} was written from; name a place that is free"
            ) from error
        with writing(cache.store):
            for row in cache.pending():
                entry = rows[row]
                original = np.s_[row, : entry.truth_shape[0], : entry.truth_shape[1]]
                grids = {block: file[features_name(block)][row] for block in cache.blocks}
                if cache.layout.dtype == "int8":
                    grids = {block: joined(file[scales_name(block)][row], grid) for block, grid in grids.items()}
                pixels = (
                    file["image"][row],
                    file["mask"][row] if entry.has_mask else None,
                    file["truth"][original] if entry.has_truth else None,
                    file["instances"][original] if entry.has_truth and cache.has_instances else None,
                )
                if _digest([*grids.values(), *pixels]) != digests[row]:
                    raise ValueError(f"row {row} ({entry}) is not as it was written")
                cache.write(row, grids, *pixels)
                if progress is not None:
                    progress()
    return cache


def _checksum(attributes: Mapping[str, str], rows: Sequence[Row], texts: Sequence[str]) -> str:
    """SHA-256 over all but the arrays, which have digests of their own."""
    return hashlib.sha256(canonical(dict(attributes)).encode() + pack_table(rows, texts)).hexdigest()


def _digest(arrays: Iterable[np.ndarray | None]) -> str:
    """xxh3-128 over what a row holds."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextmanager
def _damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns whatever HDF5 raises over damage, which is of many kinds, into one line."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, on which the cache is made
        raise CacheError(f"{path}: is damaged ({' '.join(str(error).split())}); export the cache again") from error


def _rows(samples: Any) -> list[Row]:
    table: dict[str, list[Any]] = {}
    for field in fields(Row):
        if field.name in samples:
            values = samples[field.name]
            table[field.name] = (values if field.name in NUMBERS else values.asstr())[:].tolist()
    table["mask_sha256"] = [digest or None for digest in table["mask_sha256"]]
    return [Row(**dict(zip(table, values, strict=True))) for values in zip(*table.values(), strict=True)]


def _strings(values: Sequence[str]) -> np.ndarray:
    import h5py

    return np.array(values, dtype=h5py.string_dtype())
