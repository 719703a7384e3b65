"""The ledger: which rows exist, and what their chunks were when they were written.

The entry of a row is the xxh3-128 digest (https://xxhash.com) over the row's stored chunks, each with its crc32c, in
this order: for every block ascending its chunks in the order of the steps; image; mask, truth and instances, as far
as the row has them. It is written last. A row exists if and only if its entry is there and not zero. It guards against
faults, not against forgers.
"""

__all__ = ["ENTRY_BYTES", "entry_of", "read_entry"]

from pathlib import Path

import numpy as np
import xxhash

from textdiff.cache import chunks

ENTRY_BYTES = 16


def entry_of(digest: xxhash.xxh3_128) -> bytes:
    """The ledger entry for a digest; the digest 0 is written as 1, since 0 stands for no row."""
    return digest.digest() if digest.intdigest() else (1).to_bytes(ENTRY_BYTES, "big")


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
