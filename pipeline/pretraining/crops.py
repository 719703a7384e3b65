"""Random crops of unlabelled images for training, the same for the same seed whatever prepares them."""

__all__ = ["Batch", "CropLoader", "Crops", "ImageCache", "as_input"]

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from textdiff.images.colour import jitter
from textdiff.images.images import read_image
from textdiff.models.backbones.corruption import Corruption


class Batch(NamedTuple):
    """What one step trains on: ``x0`` (B, 3, S, S) float32 in [-1, 1], ``t`` (B,) int64, and what the corruption drew,
    ``drawn`` (B, C, h, w): noise like ``x0``, or an order of the patches."""

    x0: Tensor
    t: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class Crops:
    """Crops of ``size`` pixels from images reduced by a factor drawn log-uniformly from ``scale``.

    A crop at factor s averages a window of size / s pixels over areas, without aliasing. Where an image is too small
    for a factor, the range is cut to what it allows. ``modality`` says what is varied beside place, scale and the
    eight symmetries: ``he`` the strength of both stains, ``cxr`` brightness and contrast, ``none`` nothing.

    Everything about sample ``index`` is drawn from a generator seeded by (seed, index), and images come in a new order
    every epoch, drawn from (seed, epoch): neither the number of workers nor an interruption changes a sample.
    """

    images: tuple[Path, ...]
    size: int
    scale: tuple[float, float]
    modality: str
    t_max: int
    seed: int
    cache: "ImageCache"
    corruption: Corruption

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int, NDArray[np.float32]]:
        """Sample ``index`` of an endless sequence: crop (S, S, 3) uint8, timestep, what the corruption draws for it."""
        epoch, place = divmod(index, len(self.images))
        image = self.cache[self.images[self.order(epoch)[place]]]
        rng = np.random.default_rng([self.seed, 1, index])
        crop = jitter(self._crop(image, rng), self.modality, rng)
        view = int(rng.integers(8))
        crop = np.rot90(crop, view % 4)
        crop = crop[:, ::-1] if view >= 4 else crop
        t = int(rng.integers(self.t_max))
        return np.ascontiguousarray(crop), t, self.corruption.draw(self.size, rng)

    def fixed(self, image: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The one crop of a held-out image, unvaried, at the middle of the scales: (S, S, 3) uint8, and its draw."""
        rng = np.random.default_rng([self.seed, 2, *image.name.encode()])
        return self._crop(self.cache[image], rng, middle=True), self.corruption.draw(self.size, rng)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The places of the images in an epoch: the same for the same seed."""
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.images))

    def _crop(self, image: NDArray[np.uint8], rng: np.random.Generator, middle: bool = False) -> NDArray[np.uint8]:
        height, width, _ = image.shape
        low, high = self.scale
        low = min(max(low, self.size / min(height, width)), high)
        draw = 0.5 if middle else float(rng.random())
        window = self.size / math.exp(math.log(low) + draw * (math.log(high) - math.log(low)))
        window = min(window, height, width)
        left, top = rng.random() * (width - window), rng.random() * (height - window)
        box = (left, top, left + window, top + window)
        # Cutting first keeps Pillow from copying the whole of a large image.
        x, y = int(left), int(top)
        part = Image.fromarray(image[y : math.ceil(box[3]), x : math.ceil(box[2])])
        box = (left - x, top - y, min(box[2] - x, part.width), min(box[3] - y, part.height))
        return np.asarray(part.resize((self.size, self.size), Image.Resampling.BOX, box=box), np.uint8)


class ImageCache:
    """Decoded images by path, the least recently used ones dropped beyond ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.kept: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, path: Path) -> NDArray[np.uint8]:
        with self._lock:
            if path in self.kept:
                self.kept.move_to_end(path)
                return self.kept[path]
        image = read_image(path)  # outside the lock: workers decode at the same time
        with self._lock:
            if path not in self.kept:
                self.kept[path] = image
                self.bytes += image.nbytes
            while self.bytes > self.limit:
                self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return image


class CropLoader:
    """Batches of a step sequence prepared ahead by threads (decoding, resizing and drawing release Python's lock).

    Step k trains on samples k * batch ... (k + 1) * batch - 1; of them process ``rank`` of ``world`` takes every
    ``world``-th. ``waited`` sums the seconds in which the trainer had to wait.
    """

    def __init__(self, crops: Crops, batch: int, first_step: int, workers: int, rank: int = 0, world: int = 1) -> None:
        self.crops, self.batch, self.rank, self.world = crops, batch, rank, world
        self.step, self.waited = first_step, 0.0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="crops")
        self._ahead = max(3, math.ceil(2 * workers * world / batch))
        self._queue: deque[list[Future[tuple[NDArray[np.uint8], int, NDArray[np.float32]]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            while len(self._queue) < self._ahead:
                start = self.step * self.batch
                indices = range(start + self.rank, start + self.batch, self.world)
                self._queue.append([self._pool.submit(self.crops.__getitem__, index) for index in indices])
                self.step += 1
            start_time = time.perf_counter()
            samples = [future.result() for future in self._queue.popleft()]
            self.waited += time.perf_counter() - start_time
            crops, t, drawn = zip(*samples, strict=True)
            yield Batch(as_input(crops), torch.tensor(t), torch.from_numpy(np.stack(drawn)))


def as_input(crops: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Crops (S, S, 3) uint8 as one (B, 3, S, S) float32 tensor in [-1, 1]."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
