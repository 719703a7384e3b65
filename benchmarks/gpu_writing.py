"""Rows of a cache to the disk, and the whole of ``extract``, beside plain files."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from textdiff.benchmarks.gpu_shared import BLOCKS, STEPS, TEXT_DIM, TOKENS, Shared, Steps
from textdiff.cache import FeatureCache, Row
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
        draw = np.random.default_rng(0)
        rows = [
            Row(str(n), "train", 0, n, f"{n}.png", f"{n:064x}", f"{n:064x}", self.size, self.size)
            for n in range(images)
        ]
        return FeatureCache.create(
            self.folder / f"{name}.zarr",
            fingerprint={"dtype": "float16"},
            rows=rows,
            blocks=self.levels(dataset),
            steps=STEPS,
            image_size=self.size,
            texts=[str(n) for n in range(images)],
            tokens=draw.standard_normal((images, TOKENS, TEXT_DIM), dtype=np.float32),
            token_mask=np.arange(TOKENS)[None] < draw.integers(TOKENS - 2, TOKENS + 1, (images, 1)),
            about={"dataset": "random"},
        )

    def write_rows(self, cache: FeatureCache, writers: int) -> float:
        """Seconds to write every row with random activations, as many at once as there are writers."""
        draw = np.random.default_rng(0)
        grids = {b: draw.standard_normal((len(STEPS), *shape), dtype=np.float32) for b, shape in cache.blocks.items()}
        image = draw.integers(256, size=(self.size, self.size, 3), dtype=np.uint8)
        mask = (draw.random((self.size, self.size)) < 0.3).astype(np.uint8)
        start = time.perf_counter()
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(lambda row: cache.write(row, grids, image, mask, mask), range(len(cache.rows))))
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
        from PIL import Image

        count = 2 if self.small else 48
        for kind in ("images", "masks"):
            (self.folder / "data" / kind).mkdir(parents=True)
        for number, picture in enumerate(self.pictures(count).permute(0, 2, 3, 1).cpu().numpy()):
            Image.fromarray(picture).save(self.folder / f"data/images/{number}.png")
            Image.fromarray((picture[..., 0] > 128).astype(np.uint8) * 255).save(
                self.folder / f"data/masks/{number}.png"
            )
        lines = [f"{number},,train" for number in range(count)]
        (self.folder / "data/texts.csv").write_text("\n".join(["image,text,split", *lines]) + "\n")
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
