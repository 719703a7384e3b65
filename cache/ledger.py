"""The ledger: which rows exist, what each shows, which chunks were written for it, and whether they still are these.

The entry of a row is an xxh3-128 digest (https://xxhash.com) over two things. The first is what determines the row: the
cache's fingerprint, and the image, mask, view and tile that the row shows. The second is the crc32c of every chunk, in
this order: for every block ascending its chunks in the order of the steps; image; mask, truth and instances, as far as
the row has them. The entry is written last. A row exists if and only if its entry is there and not zero.

A chunk thus vouches for its bytes, and the entry for the chunk being in its place. There are two ways to check that. A
quick one reads the last four bytes of every chunk, which say whether it is the right one. A thorough one reads all
bytes, which say whether they are as they were written.
"""

__all__ = [
    "ENTRY_BYTES",
    "NOT_THEIRS",
    "bad_chunks",
    "bad_texts",
    "entry_key",
    "entry_of",
    "read_entry",
    "row_checksums",
    "text_checksums",
    "texts_digest",
    "vouched_rows",
]

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from textdiff.cache import chunks
from textdiff.cache.fingerprint import canonical
from textdiff.cache.rows import Row
from textdiff.cache.stores import Store

if TYPE_CHECKING:
    from textdiff.cache.reader import CacheReader

ENTRY_BYTES = 16
_Chunk = tuple[str, int | None, str]
NOT_THEIRS = "the chunks are sound but not those that were written"


def entry_of(fingerprint_hash: str, row: Row, checksums: Iterable[bytes]) -> bytes:
    """The ledger entry of a row whose chunks have these checksums (4 bytes each, in the ledger's order)."""
    digest = xxhash.xxh3_128(canonical([fingerprint_hash, *row.determined_by]).encode())
    digest.update(b"".join(checksums))
    return digest.digest()


def texts_digest(checksums: Iterable[bytes]) -> str:
    """What the root says of the text embeddings: a digest over the checksums of their chunks, text by text."""
    return xxhash.xxh3_128_hexdigest(b"".join(checksums))


def entry_key(row: int) -> str:
    """Where the entry of a row is."""
    return f"ledger/c.{row}.0"


def read_entry(store: Store, row: int) -> bytes | None:
    """A row's entry, None if the row does not exist.

    Raises:
        ChunkError: the entry is damaged.
    """
    entry = np.empty(ENTRY_BYTES, np.uint8)
    try:
        store.read_into(entry_key(row), entry)
    except chunks.MissingError:
        return None
    return entry.tobytes() if entry.any() else None


def row_checksums(cache: "CacheReader", row: int, entry: bytes) -> bytes | None:
    """The checksums of a row's chunks in the ledger's order, 4 bytes each; None unless ``entry`` is of them."""
    found = _stored(cache.store, cache.layout.row_chunks(row, cache.rows[row]))
    return b"".join(found) if entry_of(cache.fingerprint_hash, cache.rows[row], found) == entry else None


def text_checksums(cache: "CacheReader") -> bytes | None:
    """As ``row_checksums``, of all texts: 8 bytes each, for its tokens and its mask."""
    found = _stored(cache.store, cache.layout.text_chunks())
    return b"".join(found) if texts_digest(found) == cache.texts_digest else None


def vouched_rows(cache: "CacheReader") -> dict[int, bool]:
    """By the rows that have a sound entry on the disk, whether it is of their chunks, found in the quick way."""
    found = {}
    for row in range(len(cache.rows)):
        with suppress(chunks.ChunkError):
            if (entry := read_entry(cache.store, row)) is not None:
                found[row] = row_checksums(cache, row, entry) is not None
    return found


def bad_chunks(
    cache: "CacheReader", row: int, entry: bytes, verified: Callable[[str], bytes] | None = None
) -> list[tuple[str, int | None, str]]:
    """(array, index of the step, what is wrong) of every bad chunk of a row; the ledger if they are not the row's.

    ``verified`` is how a chunk is read, by its key: as ``Store.verified`` by default.
    """
    found, bad = _verified(verified or cache.store.verified, cache.layout.row_chunks(row, cache.rows[row]))
    if not bad and entry_of(cache.fingerprint_hash, cache.rows[row], found) != entry:
        return [("ledger", None, NOT_THEIRS)]
    return [(name, step, what) for name, step, _, what in bad]


def bad_texts(cache: "CacheReader") -> list[tuple[str, str | None, str]]:
    """(what it is, key, what is wrong) of every bad chunk of the texts; without a key if they are not the texts'."""
    found, bad = _verified(cache.store.verified, cache.layout.text_chunks())
    if not bad and texts_digest(found) != cache.texts_digest:
        return [("text", None, NOT_THEIRS)]
    return [(f"{name} of text {text}", key, what) for name, text, key, what in bad]


def _stored(store: Store, places: Iterable[_Chunk]) -> list[bytes]:
    """What the last bytes of chunks say that they are; nothing if one of them is missing."""
    try:
        return [*store.map(store.stored_checksum, [key for _, _, key in places])]
    except chunks.ChunkError:
        return []


def _verified(
    verified: Callable[[str], bytes], places: Iterable[_Chunk]
) -> tuple[list[bytes], list[tuple[str, int | None, str, str]]]:
    """The checksums of those chunks of which every byte is as it was written; the others, with what is wrong."""
    found, bad = list[bytes](), list[tuple[str, int | None, str, str]]()
    for name, number, key in places:
        try:
            found.append(verified(key))
        except chunks.ChunkError as error:
            bad.append((name, number, key, str(error)))
    return found, bad
