"""The ledger: which rows exist, what each shows, and which chunks were written for it.

The entry of a row is an xxh3-128 digest (https://xxhash.com) over two things. The first is what determines the row: the
cache's fingerprint, and the image, mask, view and tile that the row shows. The second is the crc32c of every chunk, in
this order: for every block ascending its chunks in the order of the steps; image; mask, truth and instances, as far as
the row has them. The entry is written last. A row exists if and only if its entry is there and not zero.

A chunk thus vouches for its bytes, and the entry for the chunk being in its place. Whoever reads one chunk of a row
needs no byte of the others but their last four. Both guard against faults, not against forgers.
"""

__all__ = ["ENTRY_BYTES", "entry_of", "read_entry", "texts_digest"]

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from textdiff.cache import chunks
from textdiff.cache.fingerprint import canonical
from textdiff.cache.rows import Row

ENTRY_BYTES = 16


def entry_of(fingerprint_hash: str, row: Row, checksums: Iterable[bytes]) -> bytes:
    """The ledger entry of a row whose chunks have these checksums (4 bytes each, in the ledger's order)."""
    shown = [row.image_sha256, row.mask_sha256, row.height, row.width, row.tile, row.y, row.x, row.view, row.split]
    digest = xxhash.xxh3_128(canonical([fingerprint_hash, *shown]).encode())
    digest.update(b"".join(checksums))
    return digest.digest()


def texts_digest(checksums: Iterable[bytes]) -> str:
    """What the root says of the text embeddings: a digest over the checksums of their chunks, text by text."""
    return xxhash.xxh3_128_hexdigest(b"".join(checksums))


def read_entry(path: Path) -> bytes | None:
    """A row's entry, None if the row does not exist.

    Raises:
        ChunkError: the entry is damaged.
    """
    if not path.exists():
        return None
    entry = np.empty(ENTRY_BYTES, np.uint8)
    chunks.read_into(path, entry)
    return entry.tobytes() if entry.any() else None
