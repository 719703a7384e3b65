"""A cache on a disk: a directory with a file for each object, none of which is ever there in part."""

__all__ = ["LocalStore"]

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np

from textdiff.cache import chunks
from textdiff.cache.staging import STAGED, locked, mark_in_use, staging, sweep
from textdiff.cache.stores.base import Parts, Store
from textdiff.files import directory_nbytes


class LocalStore(Store):
    """The cache in a directory, which need not be there yet."""

    near = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._durable = False

    def get(self, key: str) -> bytes:
        return chunks.read(self.path / key)

    def read_into(self, key: str, out: np.ndarray) -> bytes:
        """See ``Store``; straight from the disk into ``out``."""
        return chunks.read_into(self.path / key, out)

    def verified(self, key: str) -> bytes:
        """See ``Store``; piece by piece."""
        return chunks.verified(self.path / key)

    def stored_checksum(self, key: str) -> bytes:
        return chunks.stored_checksum(self.path / key)

    def put(self, key: str, parts: Parts) -> None:
        with self.workplace() as directory:
            chunks.write(directory / "new", parts)
            chunks.replace(directory / "new", self.path / key)

    def list(self, prefix: str = "") -> dict[str, str]:
        """See ``Store``; only what is in the directory itself, and by name alone."""
        try:
            with os.scandir(self.path / prefix) as entries:
                return {f"{prefix}/{entry.name}" if prefix else entry.name: "" for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def delete(self, key: str) -> None:
        chunks.remove(self.path / key)

    def clear(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def identity(self, key: str) -> object:
        """See ``Store``. The number alone may be given to another file when this one is gone."""
        try:
            found = (self.path / key).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def occupied(self) -> bool:
        return self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir()))

    def nbytes(self) -> int:
        return directory_nbytes(self.path) if self.path.is_dir() else 0

    def install(self, fill: Callable[[Path], None], overwrite: bool) -> None:
        """See ``Store``; made beside its place, to which it is renamed."""
        # A link is followed, so that the cache stays on the disk it points to.
        final = self.path.resolve()
        final.parent.mkdir(parents=True, exist_ok=True)
        sweep(final.parent, final.name)
        with self.workplace() as directory:
            new = directory / "new"
            fill(new)
            if overwrite and self.occupied():
                with suppress(FileNotFoundError):  # another process is replacing it as well
                    final.rename(directory / "old")
            try:
                new.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def workplace(self) -> AbstractContextManager[Path]:
        """See ``Store``; beside the cache, so on its disk."""
        final = self.path.resolve()
        return staging(final.parent, final.name)

    def move_in(self, file: Path, key: str) -> None:
        target = self.path / key
        for directory in reversed(target.relative_to(self.path).parents):
            if (self.path / directory).exists() and not (self.path / directory).is_dir():
                (self.path / directory).unlink()
            (self.path / directory).mkdir(exist_ok=True)
        chunks.replace(file, target)

    @contextmanager
    def replacing(self, last: str) -> Iterator["_Staged"]:
        """See ``Store``; made aside, then renamed."""
        sync = chunks.sync if self._durable else lambda _: None
        with staging(self.path / STAGED, "row") as directory:
            batch = _Staged(directory)
            yield batch
            moves = [(directory / str(number), self.path / key) for number, key in enumerate(batch.keys)]
            for file, _ in moves:
                sync(file)
            chunks.remove(self.path / last)
            *others, (entry, entry_at) = moves
            for file, final in others:
                chunks.replace(file, final)
            for place in dict.fromkeys(final.parent for _, final in others):
                sync(place)
            chunks.replace(entry, entry_at)
            sync(entry_at.parent)

    def locked(self, *, shared: bool = False) -> AbstractContextManager[object]:
        return locked(self.path / STAGED, shared=shared)

    def sweep(self) -> None:
        final = self.path.resolve()
        sweep(self.path / STAGED, "row")
        sweep(final.parent, final.name)

    def make_durable(self) -> None:
        """See ``Store``; what is there by asking for all of the machine's, what comes file by file."""
        if hasattr(os, "sync"):
            os.sync()
        self._durable = True

    def mark_in_use(self, owner: object) -> None:
        mark_in_use(self.path, owner)


class _Staged:
    """A batch in a directory: its files are numbered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys: list[str] = []

    def _next(self, key: str) -> Path:
        self.keys.append(key)
        return self.directory / str(len(self.keys) - 1)

    def put(self, key: str, parts: Parts) -> None:
        chunks.write(self._next(key), parts)

    def copy(self, key: str, source: Store, origin: str) -> None:
        file = self._next(key)
        try:
            # Chunks are replaced and never changed, so both caches can have the same file: it takes no room.
            assert isinstance(source, LocalStore)
            os.link(source.path / origin, file)
        except OSError:
            chunks.write(file, [source.checked(origin)])
