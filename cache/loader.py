"""Rows of a cache as tensors on a device, read ahead while the consumer computes."""

__all__ = ["Item", "Loader"]

import math
import mmap
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, TypeVar

import numpy as np
import torch

from textdiff.cache.feature_cache import FeatureCache
from textdiff.cache.int8 import unpack

CPU_BUDGET = 1_000_000_000
DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class Item:
    """One row for stage two, as a batch of one."""

    row: int
    features: list[torch.Tensor]
    """(1, steps * C_k, h_k, w_k) of each block ascending, in ``FeatureCache.dtype``; channels are step-major."""
    mask: torch.Tensor | None
    """(1, H, W) int64 class labels."""
    tokens: torch.Tensor | None
    """(1, L, D) float32."""
    token_mask: torch.Tensor | None
    """(1, L) bool."""
    image: torch.Tensor | None = None
    """(1, 3, H, W) uint8 RGB, where the loader was asked for images."""
    sentence: str = ""
    """The text in words, as it is true of the image before it was turned; empty where there is none."""
    view: int = 0
    """How the image was turned, as ``images.symmetry`` counts, and beyond it how its colours were varied."""
    ready: "tuple[torch.cuda.Event | None, ...]" = field(default=(), repr=False, compare=False)
    """On a GPU, when it is all there: the consumer's stream waits for that, its thread does not."""


_Image = tuple[list[torch.Tensor], torch.Tensor | None, torch.Tensor | None, torch.cuda.Event | None]
_Text = tuple[torch.Tensor | None, torch.Tensor | None, torch.cuda.Event | None]
_T = TypeVar("_T", _Image, _Text)


class Loader:
    """Gives rows of ``cache`` as ``Item`` on ``device``.

    Worker threads read at most ``prefetch`` rows ahead, on a GPU through pinned memory and a stream of their own, so
    that copying overlaps computing; no thread waits for a copy. Rows stay on the device once read until the budget is
    spent: if everything ever asked for fits, each row is read once, and an epoch of rows that stay needs no threads.
    What the consumer gets depends on none of this; it must not be changed in place.

    Args:
        cache: where from.
        device: where to.
        blocks: which of the cache's blocks, all by default, and none if empty.
        steps: which of the cache's steps, all by default.
        images: whether items carry the image too.
        threads: how many read.
        prefetch: how many rows may be read ahead.
        resident: "auto", or "never" to read rows anew each time.
        budget_bytes: memory for rows that stay; by default half of the GPU's free memory, or 1 GB on the CPU.
    """

    def __init__(
        self,
        cache: FeatureCache,
        device: torch.device | str,
        *,
        blocks: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        images: bool = False,
        threads: int = 2,
        prefetch: int = 2,
        resident: Literal["auto", "never"] = "auto",
        budget_bytes: int | None = None,
    ) -> None:
        self.cache, self.device = cache, torch.device(device)
        self.blocks = sorted(cache.blocks if blocks is None else blocks)
        self.steps = tuple(sorted(cache.steps if steps is None else steps, key=cache.steps.index))
        self.images, self.threads, self.prefetch = images, threads, max(1, prefetch)
        self._cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if self._cuda else None  # type: ignore[no-untyped-call]
        if budget_bytes is None:
            free = torch.cuda.mem_get_info(self.device)[0] if self._cuda else 0
            budget_bytes = int(free * DEVICE_SHARE) if self._cuda else CPU_BUDGET
        self._budget = 0 if resident == "never" else budget_bytes
        self._row_bytes = 0
        self._rows: dict[int, _Image] = {}
        self._texts: dict[int, _Text] = {}
        self._free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)
        self._lock = threading.Lock()

    @property
    def resident_rows(self) -> int:
        """How many rows stay on the device."""
        return len(self._rows)

    def staying(self, rows: int) -> int:
        """How many of so many rows will stay on the device; known once one has been read."""
        with self._lock:
            more = self._budget // self._row_bytes if self._row_bytes else 0
            return min(rows, len(self._rows) + more)

    def epoch(
        self, rows: Sequence[int], texts: Mapping[int, int] | None = None, *, keep: bool = True
    ) -> Generator[Item, None, None]:
        """Gives ``rows`` in this order. Its threads end when it is exhausted or closed, or the consumer breaks off.

        Args:
            rows: indices; a row may come more than once.
            texts: for a row the row whose text it gets; its own by default.
            keep: whether rows may stay; of no use to who reads each row once.

        Raises:
            CacheError: when its turn comes, for a row that does not exist or is damaged.
        """
        pairs = [(row, row if texts is None else texts[row]) for row in rows]
        if all(row in self._rows and self.cache.rows[donor].text in self._texts for row, donor in pairs):
            for pair in pairs:
                item = self._load(*pair, keep)
                self._hand_over(item)
                yield item
            return
        todo = iter(pairs)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="textdiff-loader")
        try:
            waiting = deque(pool.submit(self._load, *pair, keep) for pair in islice(todo, self.prefetch))
            while waiting:
                item = waiting.popleft().result()
                waiting.extend(pool.submit(self._load, *pair, keep) for pair in islice(todo, 1))
                self._hand_over(item)
                yield item
                # Else this row would stay in memory until the next one has come.
                del item
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def narrowed(
        self, item: Item, donor: int, blocks: Sequence[int] | None = None, steps: Sequence[int] | None = None
    ) -> Item:
        """One of this loader's items with the text of row ``donor``, and with some of its blocks and steps only.

        So one reader serves consumers that differ in these. Nothing is copied unless steps are left out.
        """
        text = self.cache.rows[donor].text
        with torch.cuda.stream(self._stream):
            tokens, token_mask, ready = self._texts.get(text) or self._keep(self._texts, text, self._read_text(donor))
        features = item.features
        if blocks is not None:
            features = [features[self.blocks.index(block)] for block in sorted(blocks)]
        if steps is not None and tuple(steps) != self.steps:
            kept = [self.steps.index(step) for step in self.steps if step in steps]
            by_step = [level.chunk(len(self.steps), dim=1) for level in features]
            features = [torch.cat([level[step] for step in kept], 1) for level in by_step]
        said = self.cache.sentence(donor)
        narrow = replace(item, features=features, tokens=tokens, token_mask=token_mask, sentence=said, ready=(ready,))
        self._hand_over(narrow)
        return narrow

    def _load(self, row: int, donor: int, keep: bool) -> Item:
        """The item as a worker thread reads it, or from what is resident."""
        text = self.cache.rows[donor].text
        with torch.cuda.stream(self._stream):  # does nothing without a GPU
            read = self._rows.get(row) or self._read_image(row)
            features, mask, image, ready = self._keep(self._rows, row, read) if keep else read
            if self.cache.layout.dtype == "int8":
                # Rows that stay do so in 8 bits. What they are multiplied out to is there later than they are.
                shapes = (self.cache.blocks[block] for block in self.blocks)
                features = [unpack(packed, h, w) for packed, (_, h, w) in zip(features, shapes, strict=True)]
                ready = self._mark()
            words = self._texts.get(text) or self._keep(self._texts, text, self._read_text(donor))
        said = self.cache.sentence(donor), self.cache.rows[row].view
        return Item(row, features, mask, *words[:2], image, *said, (ready, words[2]))

    def _mark(self) -> torch.cuda.Event | None:
        """The moment when what was asked of the loader's stream so far is there."""
        return None if self._stream is None else self._stream.record_event()

    def _read_image(self, row: int) -> _Image:
        features = []
        for block in self.blocks:
            (C, *rest), dtype = self.cache.layout.stored(block)
            grid = self._empty((1, len(self.steps) * C, *rest), getattr(torch, dtype.name))
            self.cache.stored(row, block, grid.numpy().reshape(-1, C, *rest), self.steps)
            features.append(self._move(grid))
        mask = self.cache.mask(row)
        labels = None if mask is None else self._move(torch.from_numpy(mask)[None]).long()
        if not self.images:
            return features, labels, None, self._mark()
        image = self._move(torch.from_numpy(self.cache.image(row)).permute(2, 0, 1)[None])
        return features, labels, image, self._mark()

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if self._cuda:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        # Buffers come back when the last tensor on them is gone. malloc, asked in one thread and given back in another,
        # was seen to hold ten times the memory in use; and fresh memory from the system is slower than reading.
        free = self._free[math.prod(shape) * dtype.itemsize]
        try:
            memory = free.pop()
        except IndexError:
            memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
        buffer = np.frombuffer(memory, np.uint8)
        weakref.finalize(buffer, free.append, memory).atexit = False
        return torch.frombuffer(buffer, dtype=dtype).reshape(shape)

    def _read_text(self, row: int) -> _Text:
        text = self.cache.text(row)
        if text is None:
            return None, None, None
        tokens, mask = (self._move(torch.from_numpy(array)[None]) for array in text)
        return tokens, mask, self._mark()

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._cuda and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _keep(self, kept: dict[int, _T], key: int, value: _T) -> _T:
        """Lets ``value`` stay on the device if the budget has room for it."""
        nbytes = sum(tensor.nbytes for tensor in _tensors(*value))
        with self._lock:
            if kept is self._rows:
                self._row_bytes = max(self._row_bytes, nbytes)
            if key not in kept and nbytes <= self._budget:
                self._budget -= nbytes
                kept[key] = value
        return value

    def _hand_over(self, item: Item) -> None:
        """Lets the consumer's stream wait for ours, and tells the allocator that it uses what was allocated on ours."""
        if self._cuda:
            stream = torch.cuda.current_stream(self.device)
            for moment in item.ready:
                if moment is not None:
                    stream.wait_event(moment)
            for tensor in _tensors(item.features, item.mask, item.tokens, item.token_mask, item.image):
                tensor.record_stream(stream)


def _tensors(*values: list[torch.Tensor] | torch.Tensor | torch.cuda.Event | None) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list):
            yield from value
