"""Rows of a cache to the disk, and the whole of ``extract``, beside plain files."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from textdiff.benchmarks.common import STEPS, random_cache, random_folder, random_row
from textdiff.benchmarks.gpu_shared import BLOCKS, TEXT_DIM, Shared, Steps
from textdiff.cache import FeatureCache
from textdiff.models.backbones.checkpoints import save_unet
from textdiff.options.extract import Extract
from textdiff.pipeline.extract import extract


class Writing(Shared):
    """Caches of random activations, and what writing them takes."""

    def writing(self) -> Steps:
        """Rows to disk beside plain files of as many bytes, and the whole of ``extract``."""
        return {
            "rows, one writer": partial(self.write, 1),
            "rows, four writers": partial(self.write, 4),
            "plain files, one writer": self.write_plain,
            "extract, the command": self.extract,
        }

    def empty_cache(self, name: str, dataset: str, images: int) -> FeatureCache:
        """A cache for so many training images with texts; none is written yet."""
        return random_cache(self.folder / f"{name}.zarr", images, self.size, self.levels(dataset), TEXT_DIM)

    def write_rows(self, cache: FeatureCache, writers: int) -> float:
        """Seconds to write every row with random activations, as many at once as there are writers."""
        row = random_row(cache, np.random.default_rng(0))
        start = time.perf_counter()
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(lambda number: cache.write(number, *row), range(len(cache.rows))))
        return time.perf_counter() - start

    def write(self, writers: int) -> dict[str, float]:
        """GB/s through ``FeatureCache.write``; the system may hold some of it in memory still."""
        cache = self.empty_cache(f"written-{writers}", "monuseg", min(self.images, 12))
        taken = self.write_rows(cache, writers)
        return {"GB/s": cache.row_nbytes * len(cache.rows) / taken / 1e9, "row MB": cache.row_nbytes / 1e6}

    def write_plain(self) -> dict[str, float]:
        """GB/s of the same bytes to plain files, without a cast or a checksum."""
        size = sum(len(STEPS) * 2 * C * h * w for C, h, w in self.levels("monuseg").values())
        data, count = np.random.default_rng(0).bytes(size), min(self.images, 12)
        start = time.perf_counter()
        for number in range(count):
            (self.folder / f"{number}.plain").write_bytes(data)
        return {"GB/s": size * count / (time.perf_counter() - start) / 1e9}

    def extract(self) -> dict[str, float]:
        """Images/s of the command from PNG files to a cache, the network's loading left out, which it says too."""
        count = 2 if self.small else 48
        random_folder(self.folder / "data", count, self.size)
        checkpoint = self.folder / "random.safetensors"
        save_unet(self.network.unet, checkpoint)
        options = Extract(
            dataset="folder",
            data=self.folder / "data",
            backbone=str(checkpoint),
            text_encoder="none",
            blocks=BLOCKS["monuseg"],
            steps=STEPS,
            image_size=self.size,
            views=1,
            cache=self.folder / "dry.zarr",
            device=str(self.device),
        )
        taken = []
        for one in (replace(options, dry_run=True), replace(options, cache=self.folder / "extracted.zarr")):
            start = time.perf_counter()
            cache = extract(one)
            taken.append(time.perf_counter() - start)
        nbytes = cache.row_nbytes * count
        return {"seconds before the first row": taken[0], "images/s": count / (taken[1] - taken[0]), "GB": nbytes / 1e9}
