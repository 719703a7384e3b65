"""What a cache asks of the place where its bytes are.

An object has a key (``features/b08/c.0.0.0.0.0``), is written as a whole, and is there as a whole or not at all. On
that and on the order in which objects are written rests all that docs/cache.md promises.
"""

__all__ = ["Batch", "Store"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from textdiff.cache import chunks

_A = TypeVar("_A")
_B = TypeVar("_B")
Parts = Iterable[np.ndarray | bytes]
"""C-contiguous arrays and bytes, stored one after another. Each may change once the next is asked for."""


class Batch(Protocol):
    """Objects on their way to a store, the last of which vouches for the others."""

    def put(self, key: str, parts: Parts) -> None:
        """Adds an object."""

    def copy(self, key: str, source: "Store", origin: str) -> None:
        """Adds what another store has under ``origin``, without moving its bytes where that can be."""


class Store(ABC):
    """The objects of one cache. Several threads may use it.

    Wherever it says that a ``ChunkError`` is raised, something is missing or damaged. What keeps a store from being
    asked at all, such as a network that is down, is an ``OSError`` or a ``UserError``, and never taken for damage.
    """

    near: bool
    """Whether a look costs next to nothing, so that what was found right is looked at again before each use."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The bytes of an object. Raises ChunkError."""

    @abstractmethod
    def stored_checksum(self, key: str) -> bytes:
        """The last 4 bytes of a chunk; whether the rest is as they say is not looked at. Raises ChunkError."""

    @abstractmethod
    def put(self, key: str, parts: Parts) -> None:
        """Writes an object, in the place of one that is there."""

    @abstractmethod
    def list(self, prefix: str = "") -> dict[str, str]:
        """The keys that begin with a directory's name, each with what tells the object from one that replaces it."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes an object if there is one."""

    @abstractmethod
    def clear(self) -> None:
        """Removes everything."""

    @abstractmethod
    def identity(self, key: str) -> object:
        """What tells an object from one that takes its place; None where there is none."""

    @abstractmethod
    def occupied(self) -> bool:
        """Whether there is anything; an empty directory is nothing."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of all objects together."""

    @abstractmethod
    def install(self, fill: Callable[[Path], None], overwrite: bool) -> None:
        """Puts a new cache, which ``fill`` makes in a directory, in this place, its root last.

        If another process puts one there meanwhile, that one stays, unless it is to be overwritten.
        """

    @abstractmethod
    def workplace(self) -> AbstractContextManager[Path]:
        """A directory to make objects in, removed at the end."""

    @abstractmethod
    def move_in(self, file: Path, key: str) -> None:
        """Makes a file of the workplace an object, whatever is in its place."""

    @abstractmethod
    def replacing(self, last: str) -> AbstractContextManager[Batch]:
        """A batch that is stored when its context ends without an error.

        Args:
            last: the key of the object that vouches for the others: it goes first, and comes last.
        """

    @abstractmethod
    def locked(self, *, shared: bool = False) -> AbstractContextManager[object]:
        """Keeps others from replacing the cache meanwhile or, unless ``shared``, from writing to it."""

    @abstractmethod
    def sweep(self) -> None:
        """Removes what killed writers left."""

    @abstractmethod
    def make_durable(self) -> None:
        """Has what is there, and what batches store from now on, outlast a loss of power, as far as that can be."""

    @abstractmethod
    def mark_in_use(self, owner: object) -> None:
        """Keeps others from taking for left over what a writer may be at, as long as ``owner`` lives."""

    def map(self, function: Callable[[_A], _B], items: Iterable[_A]) -> Sequence[_B]:
        """``function`` of every item; at the same time where that saves waiting."""
        return [function(item) for item in items]

    @abstractmethod
    def read_into(self, key: str, out: np.ndarray) -> bytes:
        """Fills ``out`` (C-contiguous, of the chunk's size) and returns the stored checksum.

        Raises:
            ChunkError: no such chunk, another size, or a checksum that does not match.
        """

    def checked(self, key: str) -> bytes:
        """The bytes of a chunk of any length, checksum included, once it has been found right. Raises ChunkError."""
        return chunks.require_sound(self.get(key))

    def verified(self, key: str) -> bytes:
        """The checksum of a chunk of any length, once every byte of it has been found right. Raises ChunkError."""
        return self.checked(key)[-chunks.CRC_BYTES :]
