"""Rows into a cache as a pipeline: some are read, some are in the backbone, some are written, all at the same time."""

__all__ = ["Flow", "fill_rows", "full_disk"]

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
import torch

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.outbox import Outbox
from textdiff.pipeline.extraction.filling import Filling, take_over
from textdiff.pipeline.extraction.prepare import Prepared
from textdiff.pipeline.extraction.reading import ReadAhead, started_pool
from textdiff.pipeline.extraction.timings import Clock, Timings
from textdiff.places import Location

_BATCH_NBYTES = 1 << 29
_MOST_IMAGES = 32
_MOST_THREADS = 8


@dataclass(frozen=True)
class Flow:
    """How much is under way at once. Bounds the memory: what is full is waited for."""

    batch: int
    """Images that go through the backbone at once."""
    ahead: int
    """Batches that the device is given before the one it is at is done."""
    readers: int
    """Threads that read, at most."""
    writers: int
    """Threads that write, each a row."""

    @classmethod
    def of(cls, cache: FeatureCache, device: torch.device, batch: int | None = None) -> Self:
        """What suits a device and the size of a row.

        A CPU computes one image at a time: it is busy with that, and the sums of several at once are rounded otherwise.
        Other devices get as many as half a gigabyte of rows is, up to 32.
        """
        threads = min(os.cpu_count() or 1, _MOST_THREADS)
        if device.type == "cpu":
            return cls(batch or 1, 0, threads, threads)
        row_nbytes = cache.row_nbytes + prod(cache.layout.truth) * (5 if cache.has_instances else 1)
        usual = min(max(round(_BATCH_NBYTES / row_nbytes), 1), _MOST_IMAGES)
        return cls(batch or usual, 1, threads, threads)

    @property
    def outboxes(self) -> int:
        """How many batches there may be between the start of their computation and the end of their writing."""
        return 1 + self.ahead + -(-self.writers // self.batch)


def fill_rows(
    filling: Filling,
    prepare: Callable[[], Callable[[int], Prepared]],
    backbone: Extractor,
    done: Callable[[], object],
    batch: int | None = None,
) -> Timings:
    """Takes over or makes the rows of a filling, in this process, and returns once all are written.

    Each row appears when it is complete. At an error, or a KeyboardInterrupt, whatever is not begun is dropped, the
    threads end what they are at, and it goes on to the caller: the first error alone.

    Args:
        filling: the cache, and the rows to do; those of an image should follow one another.
        prepare: makes the function that makes a row ready, for one thread.
        backbone: makes the activations.
        done: is called after each row.
        batch: how many images go through the backbone at once; see ``Flow.of``.

    Raises:
        BadImageError: an image cannot be read any more.
        CacheError: activations are not finite in the cache's type.
        OSError: the disk is full or not writable.
    """
    return _Run(filling, backbone, Flow.of(filling.cache, backbone.device, batch), done).fill(prepare)


@contextmanager
def full_disk(place: Location, cache: FeatureCache) -> Iterator[None]:
    """Says of a disk that is full meanwhile what is safe there, and how much is to be freed.

    Raises:
        UserError: it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        left = len(cache.pending())
        raise UserError(
            f"{place}: the disk is full; the {len(cache.rows) - left} finished rows are safe. Free "
            f"{console.size(left * cache.row_nbytes)} and run the same command again to go on"
        ) from error


class _Run:
    """One call of ``fill_rows``: the caller's thread feeds the backbone, others read and write."""

    def __init__(self, filling: Filling, backbone: Extractor, flow: Flow, done: Callable[[], object]) -> None:
        self._filling, self._backbone, self._flow, self._done = filling, backbone, flow, done
        self._waited, self._busy = Clock(), Clock()
        self._pool = started_pool(flow.writers, "write")
        self._made = 0
        self._free: list[Outbox] = []
        self._sent = deque[tuple[Outbox, list[Prepared]]]()
        self._written = deque[tuple[Outbox, list[Future[None]]]]()

    def fill(self, prepare: Callable[[], Callable[[int], Prepared]]) -> Timings:
        rows = self._filling.to_do
        start, flow, table = time.perf_counter(), self._flow, self._filling.cache.rows
        reading = ReadAhead(prepare, lambda row: table[row].id, flow.batch, flow.readers, self._waited, self._busy)
        batch: list[Prepared] = []
        with self._pool, reading:
            try:
                for ready in reading(rows):
                    with self._waited.on("write"):
                        taken = take_over(self._filling, ready)
                    if taken:
                        self._done()
                        continue
                    batch.append(ready)
                    if len(batch) == flow.batch:
                        self._send(batch)
                        batch = []
                if batch:
                    self._send(batch)
                while self._sent:
                    self._hand_over()
                while self._written:
                    self._collect()
            except BaseException:
                self._pool.shutdown(wait=False, cancel_futures=True)
                raise
        nbytes = len(rows) * self._filling.cache.row_nbytes
        seconds = time.perf_counter() - start
        self._busy.seconds["device"] = self._waited.seconds["device"]
        return Timings(len(rows), nbytes, seconds, self._waited.seconds, self._busy.seconds)

    def _send(self, batch: list[Prepared]) -> None:
        """Gives the device a batch; hands over an older one, which it should be done with by now."""
        outbox = self._outbox()
        # Where there are not enough, one fills the rest: batches of another shape would be rounded otherwise.
        whole = batch + batch[:1] * (self._flow.batch - len(batch))
        images, texts = np.stack([ready.image for ready in whole]), [ready.text for ready in whole]
        with self._waited.on("device"):
            outbox.send(self._backbone.grids(images, texts))
        self._sent.append((outbox, batch))
        if len(self._sent) > self._flow.ahead:
            self._hand_over()

    def _outbox(self) -> Outbox:
        """One that is free; a further one is made only where all are still written from."""
        while self._written and all(future.done() for future in self._written[0][1]):
            self._collect()
        if not self._free and self._made < self._flow.outboxes:
            self._made += 1
            cache, device = self._filling.cache, self._backbone.device
            dtype = getattr(torch, cache.layout.dtype)
            shapes = {block: cache.layout.stored(block)[0] for block in cache.blocks}
            return Outbox(shapes, len(cache.steps), self._flow.batch, dtype, device)
        while not self._free:
            self._collect()
        return self._free.pop()

    def _hand_over(self) -> None:
        """Has the oldest batch on the device written."""
        outbox, batch = self._sent.popleft()
        with self._waited.on("device"):
            outbox.wait()
        futures = [self._pool.submit(self._write, ready, outbox.image(at)) for at, ready in enumerate(batch)]
        self._written.append((outbox, futures))

    def _collect(self) -> None:
        """Waits until the oldest batch that is being written is, and has its outbox used again."""
        outbox, futures = self._written.popleft()
        for future in futures:
            with self._waited.on("write"):
                future.result()
            self._done()
        self._free.append(outbox)

    def _write(self, ready: Prepared, features: Mapping[int, Any]) -> None:
        with self._busy.on("write"):
            self._filling.cache.write(ready.row, features, ready.image, ready.mask, ready.truth, ready.instances)
