"""Whether the chunks of a row, and those of the texts, are the ones that were written for them.

There are two ways to tell. The quick one reads the last four bytes of every chunk, which say whether it is the right
one. The thorough one reads all bytes, which says whether they are as they were written.
"""

__all__ = ["NOT_THEIRS", "bad_chunks", "bad_texts", "row_checksums", "text_checksums"]

from pathlib import Path
from typing import TYPE_CHECKING

from textdiff.cache import chunks
from textdiff.cache.ledger import entry_of, texts_digest

if TYPE_CHECKING:
    from textdiff.cache.reader import CacheReader

NOT_THEIRS = "the chunks are sound but not those that were written"


def row_checksums(cache: "CacheReader", row: int, entry: bytes) -> bytes | None:
    """The checksums of a row's chunks in the ledger's order, 4 bytes each; None unless ``entry`` is of them."""
    files = cache.layout.row_chunks(cache.path, row, cache.rows[row])
    try:
        found = [chunks.stored_checksum(file) for _, _, file in files]
    except chunks.ChunkError:
        return None
    return b"".join(found) if entry_of(cache.fingerprint_hash, cache.rows[row], found) == entry else None


def bad_chunks(cache: "CacheReader", row: int, entry: bytes) -> list[tuple[str, int | None, str]]:
    """(array, index of the step, what is wrong) of every bad chunk of a row; the ledger if they are not the row's."""
    found, bad = [], []
    for name, step, file in cache.layout.row_chunks(cache.path, row, cache.rows[row]):
        try:
            found.append(chunks.checked(file)[-chunks.CRC_BYTES :])
        except chunks.ChunkError as error:
            bad.append((name, step, str(error)))
    if not bad and entry_of(cache.fingerprint_hash, cache.rows[row], found) != entry:
        return [("ledger", None, NOT_THEIRS)]
    return bad


def text_checksums(cache: "CacheReader") -> bytes | None:
    """As ``row_checksums``, of all texts: 8 bytes each, for its tokens and its mask."""
    try:
        found = [chunks.stored_checksum(file) for _, _, file in cache.layout.text_chunks(cache.path)]
    except chunks.ChunkError:
        return None
    return b"".join(found) if texts_digest(found) == cache.texts_digest else None


def bad_texts(cache: "CacheReader") -> list[tuple[str, Path | None, str]]:
    """(what it is, file, what is wrong) of every bad chunk of the texts; without a file if they are not the texts'."""
    found, bad = [], list[tuple[str, Path | None, str]]()
    for name, text, file in cache.layout.text_chunks(cache.path):
        try:
            found.append(chunks.checked(file)[-chunks.CRC_BYTES :])
        except chunks.ChunkError as error:
            bad.append((f"{name} of text {text}", file, str(error)))
    if found and not bad and texts_digest(found) != cache.texts_digest:
        return [("text", None, NOT_THEIRS)]
    return bad
