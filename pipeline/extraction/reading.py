"""Rows read ahead of the backbone, by as many threads as it takes that nobody waits for them."""

__all__ = ["ReadAhead", "started_pool"]

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Thread
from typing import Self

from textdiff.pipeline.extraction.prepare import Prepared
from textdiff.pipeline.extraction.timings import Clock

_LOOK = 8
"""Rows after which it is first asked whether one reader more is needed."""


class ReadAhead:
    """Gives rows in their order, made ready by other threads.

    A reader keeps the image that it decoded last, so that all rows of an image go to the same one. There is one reader
    to begin with; another joins, up to ``most``, while more than half of the time is spent on waiting for rows.

    Args:
        prepare: makes the function that a reader makes rows ready with.
        group: of a row, what it shares with those that should have the same reader.
        window: how many rows are read ahead, for each reader.
        most: how many readers there may be.
        waited: on whose ``read`` the waiting is counted.
        busy: on whose ``read`` the work of the readers is counted.
    """

    def __init__(
        self,
        prepare: Callable[[], Callable[[int], Prepared]],
        group: Callable[[int], object],
        window: int,
        most: int,
        waited: Clock,
        busy: Clock,
    ) -> None:
        self._prepare, self._group, self._window, self._most = prepare, group, window, most
        self._waited, self._busy = waited, busy
        self._readers: list[tuple[ThreadPoolExecutor, Callable[[int], Prepared]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pool, _ in self._readers:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool, _ in self._readers:
            pool.shutdown()

    def __call__(self, rows: Iterable[int]) -> Iterator[Prepared]:
        """The rows, ready. Raises what reading one raised, in its turn."""
        ahead = deque[Future[Prepared]]()
        group: object = self  # none yet
        groups = given = 0
        for row in rows:
            if self._group(row) != group:
                group, groups = self._group(row), groups + 1
                if not self._readers or (given >= _LOOK and self._needs_another()):
                    self._readers.append((started_pool(1, "read"), self._prepare()))
            pool, prepare = self._readers[groups % len(self._readers)]
            ahead.append(pool.submit(self._read, prepare, row))
            if len(ahead) > self._window * len(self._readers):
                yield self._next(ahead)
                given += 1
        while ahead:
            yield self._next(ahead)

    def _needs_another(self) -> bool:
        waited = self._waited.seconds
        return len(self._readers) < self._most and waited["read"] > sum(waited.values()) / 2

    def _next(self, ahead: deque[Future[Prepared]]) -> Prepared:
        with self._waited.on("read"):
            return ahead.popleft().result()

    def _read(self, prepare: Callable[[int], Prepared], row: int) -> Prepared:
        with self._busy.on("read"):
            return prepare(row)


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads are all there, so that ``submit`` starts none and ``shutdown`` waits for each.

    A pool forgets a thread if Ctrl-C comes while it starts it, and that thread may write a row when all else has
    ended. Only the main thread is interrupted, so another one starts them.
    """
    pool, together = ThreadPoolExecutor(threads, name), Barrier(threads)

    def start() -> None:
        try:
            for _ in range(threads):
                pool.submit(together.wait)
        except RuntimeError:  # it was shut down: no further thread will come for the others to go on
            together.abort()

    starter = Thread(target=start)
    try:
        starter.start()
        starter.join()
    except BaseException:
        pool.shutdown(wait=False)
        raise
    return pool
