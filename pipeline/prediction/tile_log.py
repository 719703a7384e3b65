"""What a network said of an image's tiles, on the disk, so that a prediction that was stopped goes on within it."""

__all__ = ["Said", "TileLog", "key_of"]

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from textdiff import console
from textdiff.files import free_space

_HEAD = struct.Struct("<16s8s5I?")  # key, digest of what follows, shape of the probabilities, channels, blank
_ASK_DISK = 64


class Said(NamedTuple):
    """What is kept of a tile."""

    members: NDArray[np.float32]
    """Probabilities (members, classes, h, w)."""
    moments: NDArray[np.float64]
    """What ``Contrast`` keeps of it, (2, channels); (2, 0) where that is nothing."""
    blank: bool
    """Whether it shows nothing."""


class TileLog:
    """A file that grows by a frame for each tile, in the order in which they are predicted.

    A frame is used only where the tile that it is asked for is the one that it was written of: it carries a key of all
    that the network was given, and a digest of what it holds. From the first on that is of another tile, damaged or cut
    off, the file is written anew. It is a help and no result: where the disk has no room for it there is none.

    Args:
        path: the file; what is in it already is of a prediction that was stopped.
        name: of the image, for messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._name = path, name
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._known, self._recalled, self._kept = True, 0, 0

    def recall(self, key: bytes) -> Said | None:
        """What was said of the next tile, whose ``key_of`` this is; None if that is not known."""
        if not self._known:
            return None
        start = self._file.tell()
        if (said := self._read(key)) is not None:
            self._recalled += 1
            return said
        self._known = False
        self._file.seek(start)
        self._file.truncate()
        if self._recalled:
            console.info(f"{self._name}: goes on after {self._recalled} tiles of the prediction that was stopped")
        return None

    def keep(self, key: bytes, said: Said) -> None:
        """Adds what was said of a tile that ``recall`` did not know."""
        if self._file.closed:
            return
        body = said.members.tobytes() + said.moments.tobytes()
        head = _HEAD.pack(key, _digest(body), *said.members.shape, said.moments.shape[1], said.blank)
        try:
            # Whatever else is written meanwhile is to have more room than this.
            if self._kept % _ASK_DISK == 0 and free_space(self._path) < self._file.tell() + _ASK_DISK * len(body):
                raise OSError
            self._file.write(head + body)
            self._file.flush()
        except OSError:
            console.warn(f"{self._name}: the disk is too full to keep its tiles: if it is stopped, it begins anew")
            self.remove()
        self._kept += 1

    def remove(self) -> None:
        """Removes the file, which nobody needs any more."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves the file to a prediction that goes on."""
        self._file.close()

    def _read(self, key: bytes) -> Said | None:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        own, digest, *shape, channels, blank = _HEAD.unpack(head)
        if own != key:
            return None
        size = 4 * int(np.prod(shape))
        body = self._file.read(size + 16 * channels)
        if _digest(body) != digest:
            return None
        members = np.frombuffer(body[:size], np.float32).reshape(shape)
        return Said(members, np.frombuffer(body[size:], np.float64).reshape(2, channels), blank)


def key_of(pixels: NDArray[np.uint8], *facts: object) -> bytes:
    """What tells a tile, with all else that the network is given, from any other."""
    digest = xxhash.xxh3_128(pixels.tobytes())
    digest.update(repr((pixels.shape, facts)).encode())
    return digest.digest()


def _digest(body: bytes) -> bytes:
    return xxhash.xxh3_64(body).digest()
