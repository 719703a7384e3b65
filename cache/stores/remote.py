"""A cache in an object store (S3, Google Cloud Storage, Azure), through obstore: https://developmentseed.org/obstore

Each object goes to its final key with one PUT, which an object store does wholly or not at all. There is no renaming;
so the order alone keeps the promises. Of a row the ledger's entry is put last, of a new cache its root: who is killed
before leaves objects that nobody vouches for, and that the next one writes again.
"""

__all__ = ["ROOT", "UNFINISHED", "RemoteStore", "client"]

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from textdiff.cache import chunks
from textdiff.cache.stores.base import Parts, Store
from textdiff.cache.stores.refusals import in_transit, refusal
from textdiff.errors import UserError
from textdiff.places import Url

THREADS = 16
"""How many requests are under way at once."""
ATTEMPTS = 5
"""How often an object is asked for whose body breaks off; obstore itself repeats requests that are refused."""
LOOK_SECONDS = 2.0
"""For how long it is taken for granted that the cache was not replaced. What is read is checked in any case."""
RETRIES = {"max_retries": 8, "retry_timeout": timedelta(minutes=1)}
PATIENCE = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(minutes=2)}
ROOT = "zarr.json"
UNFINISHED = "table/.unfinished"
"""Is there while a cache is made: without a root beside it, what else is there is as good as nothing."""
_A = TypeVar("_A")
_B = TypeVar("_B")


_processes: set[int] = set()
"""The process in which obstore was first used: its threads do not come along where that is forked."""


def _library() -> Any:
    """The package obstore.

    Raises:
        UserError: it is not installed.
    """
    try:
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise UserError("a cache in an object store needs the package obstore; pip install 'textdiff[cloud]'") from None
    return obstore


@cache
def client(bucket: str) -> Any:
    """The store of a bucket or container, with what the provider's usual environment variables say."""
    _processes.add(os.getpid())
    obstore = _library()
    plain = any(os.environ.get(f"{who}_ALLOW_HTTP", "").lower() in ("1", "true", "yes") for who in ("AWS", "AZURE"))
    options: Any = {"client_options": PATIENCE | {"allow_http": plain}, "retry_config": RETRIES}
    try:
        return obstore.store.from_url(bucket, **options)
    except obstore.exceptions.BaseError as error:
        raise refusal(bucket, error) from error


class RemoteStore(Store):
    """The cache under a prefix; nothing is asked before the first use."""

    near = False

    def __init__(self, url: Url) -> None:
        self.url = url
        self._known: dict[str, tuple[float, object]] = {}

    @property
    def _bucket(self) -> Any:
        if _processes and os.getpid() not in _processes:
            raise UserError(
                f"{self.url}: cannot be read in a process that was forked; start it anew, as in "
                'DataLoader(..., multiprocessing_context="spawn")'
            )
        return client(self.url.bucket)

    def name(self, key: str) -> str:
        """A key as the bucket has it."""
        return f"{self.url.key}/{key}".strip("/")

    def ask(self, request: Callable[[], _A]) -> _A:
        """The answer to a request, repeated where it breaks off.

        Raises:
            MissingError: there is no such object.
            UserError: it is refused.
        """
        kinds = _library().exceptions
        for attempt in range(ATTEMPTS):
            try:
                return request()
            except (kinds.AlreadyExistsError, kinds.PreconditionError):
                raise
            except (FileNotFoundError, kinds.BaseError, _ShortError) as error:
                if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                    raise chunks.MissingError from None
                if attempt == ATTEMPTS - 1 or not (isinstance(error, _ShortError) or in_transit(error)):
                    raise refusal(str(self.url), error) from error
                time.sleep(0.1 * 2**attempt)
        raise AssertionError

    def _fetch(self, key: str, options: Any = None) -> Any:
        """A buffer with the bytes of an object, or of the range that obstore's options name."""

        def request() -> Any:
            found = _library().get(self._bucket, self.name(key), options=options)
            data = found.bytes()
            start, end = found.range
            if len(data) != end - start:
                raise _ShortError(f"{len(data)} of {end - start} bytes came")
            return data

        return self.ask(request)

    def get(self, key: str) -> bytes:
        return bytes(self._fetch(key))

    def stored_checksum(self, key: str) -> bytes:
        if self.url.bucket.startswith(("az:", "abfs")):  # Azure has no ranges that count from the end
            return self.get(key)[-chunks.CRC_BYTES :]
        return bytes(self._fetch(key, {"range": {"suffix": chunks.CRC_BYTES}}))

    def read_into(self, key: str, out: np.ndarray) -> bytes:
        data, flat = self.checked(key), out.reshape(-1).view(np.uint8)
        if len(data) != flat.size + chunks.CRC_BYTES:
            raise chunks.ChunkError(f"the chunk has not {flat.size + chunks.CRC_BYTES} bytes")
        flat[:] = np.frombuffer(data, np.uint8)[: -chunks.CRC_BYTES]
        return data[-chunks.CRC_BYTES :]

    def checked(self, key: str) -> bytes:
        """See ``Store``; a second look tells damage in the store from damage on the way."""
        try:
            return super().checked(key)
        except chunks.MissingError:
            raise
        except chunks.ChunkError:
            return super().checked(key)

    def put(self, key: str, parts: Parts) -> None:
        data = _joined(parts)
        self.ask(lambda: _library().put(self._bucket, self.name(key), data, use_multipart=False))
        self._known.pop(key, None)

    def put_if(self, key: str, data: bytes, mode: Any) -> Any:
        """Writes an object under a condition: "create", or the tag it has now. Its new tag; None if that is not so."""
        obstore = _library()
        unmet = obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError
        name = self.name(key)
        try:
            return _tag(self.ask(lambda: obstore.put(self._bucket, name, data, mode=mode, use_multipart=False)))
        except (*unmet, chunks.MissingError):
            # A repeated request can meet what the first one wrote, of which no answer came.
            tag = self.tag(key)
            with suppress(chunks.MissingError):
                return tag if self.get(key) == data else None
            return None

    def tag(self, key: str) -> Any:
        """What an object is told by in ``put_if``; None where there is none."""
        return _tag(found) if (found := self._head(key)) is not None else None

    def _head(self, key: str) -> Any:
        with suppress(chunks.MissingError):
            return self.ask(lambda: _library().head(self._bucket, self.name(key)))
        return None

    def list(self, prefix: str = "") -> dict[str, str]:
        objects = self._listed(prefix)["objects"]
        return {self._key(one["path"]): f"{one['e_tag']} {one['last_modified']}" for one in objects}

    def children(self) -> Sequence[str]:
        """The names that keys begin with, as of directories."""
        return [self._key(prefix) for prefix in self._listed("")["common_prefixes"]]

    def _listed(self, prefix: str) -> Any:
        return self.ask(lambda: _library().list_with_delimiter(self._bucket, self.name(prefix) or None))

    def _key(self, name: str) -> str:
        return name.removeprefix(self.name("")).strip("/")

    def everything(self) -> dict[str, int]:
        """The keys of all objects, however deep, with their sizes."""
        found = self.ask(lambda: _library().list(self._bucket, self.name("") or None).collect())
        return {self._key(one["path"]): one["size"] for one in found}

    def delete(self, key: str) -> None:
        with suppress(chunks.MissingError):
            self.ask(lambda: _library().delete(self._bucket, self.name(key)))

    def clear(self) -> None:
        """See ``Store``; the root first: from then on there is no cache."""
        self.delete(ROOT)
        self.remove(self.everything())

    def remove(self, keys: Iterable[str]) -> None:
        """Removes objects, many with one request."""
        if names := [self.name(key) for key in keys]:
            self.ask(lambda: _library().delete(self._bucket, names))

    def identity(self, key: str) -> object:
        """See ``Store``; of some seconds ago."""
        now = time.monotonic()
        asked, known = self._known.get(key, (-LOOK_SECONDS, None))
        if now - asked >= LOOK_SECONDS:
            found = self._head(key)
            known = found and (found["e_tag"], found["last_modified"], found["size"])
            self._known[key] = (now, known)
        return known

    def occupied(self) -> bool:
        """See ``Store``; what a process left that was killed before it put the root is nothing, too."""
        first: Sequence[Any] = self.ask(lambda: next(iter(_library().list(self._bucket, self.name("") or None)), []))
        return bool(first) and (self._head(ROOT) is not None or self._head(UNFINISHED) is None)

    def nbytes(self) -> int:
        return sum(self.everything().values())

    def install(self, fill: Callable[[Path], None], overwrite: bool) -> None:
        """See ``Store``; made in a temporary directory, from where it is uploaded."""
        with self.workplace() as directory:
            new = directory / "new"
            fill(new)
            if not overwrite and self._head(ROOT) is not None:
                return
            self.put(UNFINISHED, [])
            if overwrite:
                self.delete(ROOT)
                self.remove(self.everything().keys() - {UNFINISHED})
            keys = [file.relative_to(new).as_posix() for file in sorted(new.rglob("*")) if file.is_file()]
            self.map(lambda key: self.move_in(new / key, key), [key for key in keys if key != ROOT])
            self._known.clear()
            self.put_if(ROOT, (new / ROOT).read_bytes(), "create")
            self.delete(UNFINISHED)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="textdiff-") as directory:
            yield Path(directory)

    def move_in(self, file: Path, key: str) -> None:
        self.put(key, [file.read_bytes()])

    @contextmanager
    def replacing(self, last: str) -> Iterator["_Sending"]:
        """See ``Store``; kept in memory until all are there."""
        batch = _Sending(self)
        yield batch
        *others, (_, entry) = batch.steps
        self.delete(last)
        self.map(lambda step: step[1](), others)
        entry()

    def locked(self, *, shared: bool = False) -> AbstractContextManager[object]:
        """See ``Store``: there are no locks. What is written is put in order, and what is read is checked."""
        return nullcontext(True)

    def sweep(self) -> None:
        """See ``Store``. Chunks without an entry are left: they are written again."""
        self.delete(UNFINISHED)

    def make_durable(self) -> None:
        """See ``Store``: a PUT that was answered is durable."""

    def mark_in_use(self, owner: object) -> None:
        """See ``Store``: nothing is taken for left over here."""

    def map(self, function: Callable[[_A], _B], items: Iterable[_A]) -> Sequence[_B]:
        every = [*items]
        if len(every) < 2:
            return [function(item) for item in every]
        with ThreadPoolExecutor(min(THREADS, len(every)), thread_name_prefix="textdiff-store") as pool:
            return [*pool.map(function, every)]


def _tag(found: Any) -> dict[str, str]:
    return {name: found[name] for name in ("e_tag", "version") if found[name] is not None}


class _Sending:
    """A batch on its way to a store: by keys, what puts the object there."""

    def __init__(self, store: RemoteStore) -> None:
        self.store = store
        self.steps: list[tuple[str, Callable[[], None]]] = []

    def put(self, key: str, parts: Parts) -> None:
        data = _joined(parts)
        self.steps.append((key, lambda: self.store.put(key, [data])))

    def copy(self, key: str, source: Store, origin: str) -> None:
        """See ``Batch``; the object store copies within a bucket by itself."""
        store = self.store
        if isinstance(source, RemoteStore) and source.url.bucket == store.url.bucket:
            names = source.name(origin), store.name(key)
            self.steps.append((key, lambda: store.ask(lambda: _library().copy(store._bucket, *names))))
        else:
            self.put(key, [source.checked(origin)])


def _joined(parts: Parts) -> bytes:
    """The bytes of an object, taken part by part: what a part is in may be used again for the next."""
    whole = BytesIO()
    for part in parts:
        whole.write(part if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data)
    return whole.getvalue()


class _ShortError(Exception):
    """Fewer bytes came than were announced."""
