"""A new cache: built aside with all its metadata, then put in its place in one step."""

__all__ = ["CachePlan", "Contents", "build_cache", "fill_cache", "read_attributes", "read_table", "rewrite_about"]

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

import textdiff
from textdiff.cache import chunks
from textdiff.cache.fingerprint import canonical, digest_of
from textdiff.cache.layout import FORMAT, SCHEMA, Layout
from textdiff.cache.ledger import texts_digest
from textdiff.cache.rows import CacheError, DamagedError, Row, check_rows, pack_table, unpack_table
from textdiff.cache.stores import Store, store_at
from textdiff.errors import UserError
from textdiff.places import Location


class CachePlan(TypedDict):
    """What a cache is to hold, all but the embeddings of its texts."""

    fingerprint: Mapping[str, Any]
    """All that determines the rows, JSON-able. Its "dtype" is float16 (default), float32 or int8; with "instances",
    uint16 or uint32, rows also hold object numbers; "classes" names the mask's values 1, 2 ..."""
    rows: Sequence[Row]
    """The sample table."""
    blocks: Mapping[int, tuple[int, int, int]]
    """The native shape (C, h, w) of each block's activations."""
    steps: Sequence[int]
    """The diffusion steps."""
    image_size: int
    """H = W of the stored images and of the upsampled features."""
    texts: NotRequired[Sequence[str]]
    """The distinct texts that ``Row.text`` refers to; none by default."""
    about: NotRequired[Mapping[str, Any] | None]
    """JSON-able facts that do not determine the features, such as the data set's name; none by default."""


@dataclass(frozen=True)
class Contents:
    """What a cache has before its first row."""

    layout: Layout
    table: bytes
    attributes: Mapping[str, Any]
    tokens: np.ndarray | None = None
    """(n, L, D) float32; None leaves the embeddings out, though the layout may have them."""
    token_mask: np.ndarray | None = None
    """(n, L) uint8."""

    @classmethod
    def of(
        cls, plan: CachePlan, tokens: npt.ArrayLike | None = None, token_mask: npt.ArrayLike | None = None
    ) -> "Contents":
        """What a plan asks for, with the embeddings (n, L, D) of its texts and their mask (n, L), if there are any.

        The attributes have checksums of all that belongs to no row, and one over themselves.

        Raises:
            TypeError: a field of the plan is missing, or there is one that plans do not have.
            ValueError: they contradict each other.
        """
        if missing := sorted(CachePlan.__required_keys__ - plan.keys()):
            raise TypeError(f"a cache needs {', '.join(missing)} too; see CachePlan")
        if unknown := sorted(plan.keys() - CachePlan.__annotations__.keys()):
            raise TypeError(f"a cache has no {', '.join(unknown)}; see CachePlan")
        rows, texts, fingerprint = plan["rows"], plan.get("texts", ()), plan["fingerprint"]
        check_rows(rows, texts)
        values = None if tokens is None else np.ascontiguousarray(tokens, dtype="<f4")
        mask = None if token_mask is None else np.ascontiguousarray(token_mask).astype(bool).astype(np.uint8)
        check_text(texts, values, mask)
        table, shape = pack_table(rows, texts), None if values is None else values.shape
        layout = Layout.of(rows, plan["blocks"], plan["steps"], plan["image_size"], fingerprint, len(table), shape)
        parts = [] if values is None or mask is None else zip(values, mask, strict=True)
        # The canonical form, so that equal caches have equal bytes in whatever order the fields were given.
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "schema": SCHEMA,
            "textdiff": textdiff.__version__,
            "about": json.loads(canonical(plan.get("about") or {})),
            "fingerprint": json.loads(canonical(fingerprint)),
            "fingerprint_hash": digest_of(fingerprint),
            "blocks": {str(block): list(size) for block, size in layout.blocks.items()},
            "steps": list(layout.steps),
            "image_size": layout.image_size,
            "tokens": None if layout.tokens is None else list(layout.tokens),
            "table_sha256": hashlib.sha256(table).hexdigest(),
            "texts_digest": texts_digest(chunks.checksum(part) for text in parts for part in text),
        }
        return cls(layout, table, attributes | {"checksum": _checksum(attributes)}, values, mask)


def build_cache(path: Location, contents: Contents, overwrite: bool) -> None:
    """Makes an empty cache at ``path``, with its table and texts.

    If another process puts one there meanwhile, that one stays: the caller opens and checks what it finds.

    Raises:
        CacheError: ``overwrite`` and what is at ``path`` is not a TextDiff cache.
        UserError: the disk is full.
    """
    store = store_at(path)
    if overwrite and store.occupied() and _attributes(store) is None and not _has_table(store):
        raise CacheError(
            f"{path}: not a TextDiff cache, so --overwrite does not delete it; remove it by hand or choose another "
            "--cache"
        )
    try:
        store.install(lambda new: fill_cache(new, contents), overwrite)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{path}: the disk is full; free some space or choose another --cache") from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise UserError(f"{path}: cannot be made ({error.strerror}); choose another --cache") from error
        error.filename = error.filename or str(path)  # Zarr's has none
        raise


def rewrite_about(path: Location, attributes: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the root of the cache at ``path`` other facts ``about`` it, and returns all attributes."""
    new = dict(attributes) | {"about": json.loads(canonical(about))}
    new["checksum"] = _checksum(new)
    memory: dict[str, Buffer] = {}
    zarr.create_group(MemoryStore(memory), attributes=new)
    try:
        store_at(path).put("zarr.json", [memory["zarr.json"].to_bytes()])
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    return new


def read_attributes(path: Location) -> dict[str, Any]:
    """The checked attributes of the cache at ``path``.

    Raises:
        CacheError: nothing there, no TextDiff cache, or one of another schema.
        DamagedError: they are not as they were written.
    """
    store = store_at(path)
    attributes = _attributes(store)
    if attributes is None:
        if not store.occupied():
            raise CacheError(f"{path}: no such cache; make it with textdiff extract, or name another")
        if not _has_table(store):
            raise CacheError(f"{path}: not a TextDiff cache; name a directory that textdiff extract made")
    elif _intact(attributes):
        if attributes["schema"] == SCHEMA:
            return attributes
        raise CacheError(
            f"{path}: a cache of schema {attributes['schema']}, and this TextDiff ({textdiff.__version__}) reads "
            f"{SCHEMA}; make the cache again with textdiff extract --overwrite, or use the TextDiff that made it"
        )
    raise DamagedError(f"{path}: its zarr.json is damaged; {DamagedError.FIX}")


def read_table(path: Location, sha256: str | None = None) -> bytes:
    """The sample table of the cache at ``path``, as JSON.

    Raises:
        ChunkError: it is damaged, or another one than that with the digest ``sha256``.
    """
    return _read_table(store_at(path), sha256)


def _read_table(store: Store, sha256: str | None = None) -> bytes:
    try:
        table = chunks.decompress(store.checked("table/c.0"), (-1,)).tobytes()
        unpack_table(table)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise chunks.ChunkError("it holds no table") from error
    if sha256 not in (None, hashlib.sha256(table).hexdigest()):
        raise chunks.ChunkError("it is sound but not the one that was written")
    return table


def _attributes(store: Store) -> dict[str, Any] | None:
    """What the root says, right or not; None if it is not that of a cache."""
    try:
        attributes = json.loads(store.get("zarr.json"))["attributes"]
        return dict(attributes) if attributes["format"] == FORMAT else None
    except (chunks.ChunkError, ValueError, KeyError, TypeError):
        return None


def _has_table(store: Store) -> bool:
    """Whether there is a sample table: without its root, a cache is known by it."""
    try:
        return bool(_read_table(store))
    except chunks.ChunkError:
        return False


def _intact(attributes: Mapping[str, Any]) -> bool:
    try:
        return bool(attributes["checksum"] == _checksum(attributes))
    except (KeyError, ValueError):  # it may say what was never JSON of ours, such as NaN
        return False


def _checksum(attributes: Mapping[str, Any]) -> str:
    """SHA-256 over all attributes but the checksum itself, so that damage to them is seen."""
    return digest_of({name: value for name, value in attributes.items() if name != "checksum"})


def fill_cache(path: Path, contents: Contents) -> None:
    """Makes an empty cache in a directory that is not there yet."""
    contents.layout.build(zarr.create_group(path, attributes=dict(contents.attributes)))
    _write(path / "table/c.0", chunks.compress(np.frombuffer(contents.table, np.uint8)))
    if contents.tokens is not None and contents.token_mask is not None:
        for text, (values, mask) in enumerate(zip(contents.tokens, contents.token_mask, strict=True)):
            _write(path / f"text/tokens/c.{text}.0.0", values)
            _write(path / f"text/mask/c.{text}.0", mask)


def _write(path: Path, data: np.ndarray | bytes) -> None:
    chunks.write(path, [data, chunks.checksum(data)])


def check_text(texts: Sequence[str], tokens: np.ndarray | None, token_mask: np.ndarray | None) -> None:
    """Checks embeddings against the texts they belong to.

    Raises:
        ValueError: other shapes than (n, L, D) and (n, L), values that are not finite, or a text without a token.
    """
    if (tokens is None) != (token_mask is None):
        raise ValueError("tokens and token_mask go together")
    if tokens is None or token_mask is None:
        return
    if tokens.ndim != 3 or len(tokens) != len(texts) or token_mask.shape != tokens.shape[:2] or not tokens.size:
        raise ValueError(f"{len(texts)} texts, but tokens {tokens.shape} and token_mask {token_mask.shape}")
    for text, values, mask in zip(texts, tokens, token_mask, strict=True):
        if not np.isfinite(values).all() or not mask.any():
            raise ValueError(f"the text {text[:40]!r} has no token, or one that is not finite")
