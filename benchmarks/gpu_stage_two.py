"""Stage two on a GPU: rows to the disk, epochs from a cache, and epochs with the UNet run again in each."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textdiff.benchmarks.common import STEPS, random_cache, random_folder, random_row
from textdiff.benchmarks.gpu_shared import BLOCKS, TEXT_DIM, TOKENS, Shared, Steps
from textdiff.cache import FeatureCache, Loader
from textdiff.models.backbones.checkpoints import save_unet
from textdiff.models.device import autocast
from textdiff.models.networks.head import Head
from textdiff.options.extract import Extract
from textdiff.pipeline.extract import extract
from textdiff.pipeline.fit import FitConfig, begin, initial_network
from textdiff.pipeline.training import recorded
from textdiff.pipeline.training.losses import segmentation_loss
from textdiff.pipeline.training.train import train_many


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


class StageTwo(Writing):
    """Fits through the trainer, and the head alone."""

    def stage_two(self) -> Steps:
        """Seconds an epoch from a cache, and with the UNet run again."""
        steps: Steps = {}
        for dataset in ("monuseg",) if self.small else BLOCKS:
            steps[f"{dataset}, cached, steps recorded"] = partial(self.fit, dataset, "default", True)
            steps[f"{dataset}, cached, not recorded"] = partial(self.fit, dataset, "default", False)
            steps[f"{dataset}, plain, the UNet run again"] = partial(self.fit_plain, dataset)
            for form in ("folded", "plain"):
                steps[f"{dataset}, one step of the head, {form}"] = partial(self.head_step, dataset, form)
        for record in (True, False):
            name = f"a head of width 96, {'recorded' if record else 'not recorded'}"
            steps[name] = partial(self.fit, "nano", "fair", record)
        return steps

    def filled_cache(self, dataset: str) -> FeatureCache:
        """A data set's cache of random activations, made once."""
        if not (self.folder / f"{dataset}.zarr").exists():
            self.write_rows(self.empty_cache(dataset, dataset, self.images), 4)
        return FeatureCache.open(self.folder / f"{dataset}.zarr")

    def fit(self, dataset: str, recipe: str, record: bool) -> dict[str, Any]:
        """Seconds of the epochs of a fit through the trainer, the first with reading and recording, and its memory."""
        cache, epochs = self.filled_cache(dataset), 2 if self.small else 8
        config = FitConfig(cache=cache.path, recipe=recipe, epochs=epochs, device=str(self.device))
        run = begin(config, lambda name: self.folder / "runs" / f"{dataset}-{recipe}-{record}")
        self.begin_peak()
        loader, before, recorded.RECORD = Loader(cache, self.device, images=True), recorded.RECORD, record
        try:
            train_many([(run, initial_network(run))], cache, self.device, loader)
        finally:
            recorded.RECORD = before
            torch.use_deterministic_algorithms(False)  # which fits ask for; nothing else here is to be slower by it
        seconds = [float(line["seconds"]) for line in run.log()]
        return {
            "images": self.images,
            "seconds of the first epoch": seconds[0],
            "seconds an epoch": statistics.median(seconds[len(seconds) // 2 :]),
            "rows that stay": loader.resident_rows,
            "precision": run.config["fit"]["precision"],
            "loss": run.log()[-1]["loss"],
        } | self.peak()

    def head(self, dataset: str) -> Head:
        """The paper's head for a data set's blocks, in training."""
        torch.manual_seed(0)
        channels = [shape[0] for shape in self.levels(dataset).values()]
        width = min(768, len(STEPS) * min(channels))
        return Head(channels, len(STEPS), TEXT_DIM, width, image_size=self.size).to(self.device).train()

    def truth(self) -> tuple[Tensor, Tensor]:
        """A text (1, L, D) and labels (1, S, S)."""
        text = torch.randn(1, TOKENS, TEXT_DIM, device=self.device)
        return text, (torch.rand(1, self.size, self.size, device=self.device) < 0.3).long()

    def fit_plain(self, dataset: str) -> dict[str, float]:
        """Seconds an epoch if the UNet runs for every image each time, with the definition of the head, in bf16."""
        head, (text, labels), image = self.head(dataset), self.truth(), self.pictures(1)
        optimiser = torch.optim.Adam(head.parameters(), 1e-4)
        self.begin_peak()

        def step() -> None:
            levels = self.features(image, "bfloat16", dataset).values()
            features = [level.flatten(0, 1)[None].clone() for level in levels]
            with autocast(self.device, "bfloat16"):
                scores = head.plain(features, text)
            optimiser.zero_grad()
            segmentation_loss(scores, labels).backward()
            optimiser.step()

        return {"images": self.images, "seconds an epoch": self.images * self.seconds(step)} | self.peak()

    def head_step(self, dataset: str, form: str) -> dict[str, float]:
        """Seconds of forward and backward of the head alone on resident activations, in bf16."""
        head, (text, labels) = self.head(dataset), self.truth()
        features = [
            torch.randn(1, len(STEPS) * C, h, w, device=self.device).half() for C, h, w in self.levels(dataset).values()
        ]
        self.begin_peak()

        def step() -> None:
            head.zero_grad()
            with autocast(self.device, "bfloat16"):
                scores = (head if form == "folded" else head.plain)(features, text)
            segmentation_loss(scores.float(), labels).backward()

        return {"seconds": self.seconds(step)} | self.peak()
