"""What a network said of an image's tiles, on the disk, so that a prediction that was stopped goes on within it."""

__all__ = ["Said", "TileLog", "key_of"]

import contextlib
import math
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from textdiff import console
from textdiff.files import free_space

_HEAD = struct.Struct("<16s5I?")  # key, shape of the probabilities, channels of the moments, blank
_DIGEST = 8
_ASK_DISK = 64


class Said(NamedTuple):
    """What is kept of a tile."""

    members: NDArray[np.float32]
    """Probabilities (members, classes, h, w)."""
    moments: NDArray[np.float64]
    """What ``Contrast.add`` took of it, (2, channels); (2, 0) where that is nothing."""
    blank: bool
    """Whether it shows nothing."""


class TileLog:
    """A file that grows by a frame for each tile, in the order in which they are predicted.

    A frame is used only where the tile that it is asked for is the one that it was written of: it carries a key of all
    that the network was given, and a digest of itself. From the first on that is of another tile, damaged or cut off,
    the file is written anew. It is a help and no result, so no error of the disk ends a prediction: it goes on without.

    Args:
        path: the file; what is in it already is of a prediction that was stopped.
        name: of the image, for messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._known, self._recalled, self._kept = True, 0, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nothing waits in memory, to be written when the file is closed and the disk is full.
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._fd = -1
            self._give_up(error)

    def recall(self, key: bytes) -> Said | None:
        """What was said of the next tile, whose ``key_of`` this is; None if that is not known."""
        if not self._known or self._fd < 0:
            return None
        try:
            start = os.lseek(self._fd, 0, os.SEEK_CUR)
            if (said := self._read(key)) is not None:
                self._recalled += 1
                return said
            os.lseek(self._fd, start, os.SEEK_SET)
            os.ftruncate(self._fd, start)
        except OSError as error:
            self._give_up(error)
        self._tell()
        return None

    def keep(self, key: bytes, said: Said) -> None:
        """Adds what was said of a tile that ``recall`` did not know."""
        if self._fd < 0:
            return
        head = _HEAD.pack(key, *said.members.shape, said.moments.shape[1], said.blank)
        frame = head + said.members.tobytes() + said.moments.tobytes()
        try:
            # Whatever else is written meanwhile is to have more room than this.
            ahead = os.fstat(self._fd).st_size + _ASK_DISK * len(frame)
            if self._kept % _ASK_DISK == 0 and free_space(self._path) < ahead:
                raise OSError("the disk is too full")
            if os.write(self._fd, _digest(frame) + frame) < _DIGEST + len(frame):
                raise OSError("the disk is full")
        except OSError as error:
            self._give_up(error)
        self._kept += 1

    def close(self) -> None:
        """Leaves the file to a prediction that goes on."""
        self._tell()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def remove(self) -> None:
        """Removes the file, which nobody needs any more."""
        self.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _tell(self) -> None:
        """Says, once, how much was known."""
        if self._known and self._recalled:
            tiles = console.counted(self._recalled, "tile")
            console.info(f"{self._name}: goes on after {tiles} of the prediction that was stopped")
        self._known = False

    def _give_up(self, error: OSError) -> None:
        console.warn(
            f"{self._name}: its tiles are not kept ({error.strerror or error}): if it is stopped, it begins anew"
        )
        self.remove()

    def _read(self, key: bytes) -> Said | None:
        digest, head = os.read(self._fd, _DIGEST), os.read(self._fd, _HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(key):
            return None
        _, *shape, channels, blank = _HEAD.unpack(head)
        size = 4 * math.prod(shape)
        left = os.fstat(self._fd).st_size - os.lseek(self._fd, 0, os.SEEK_CUR)
        if size + 16 * channels > left:
            return None
        body = os.read(self._fd, size + 16 * channels)
        if _digest(head + body) != digest:
            return None
        members = np.frombuffer(body[:size], np.float32).reshape(shape)
        return Said(members.copy(), np.frombuffer(body[size:], np.float64).reshape(2, channels), blank)


def key_of(pixels: NDArray[np.uint8], *facts: object) -> bytes:
    """What tells a tile, with all else that the network is given, from any other."""
    return xxhash.xxh3_128(pixels.tobytes() + repr((pixels.shape, facts)).encode()).digest()


def _digest(frame: bytes) -> bytes:
    return xxhash.xxh3_64(frame).digest()
