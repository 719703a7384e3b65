"""What only a GPU can tell of both stages, in one call of at most eight minutes.

    python benchmarks/gpu.py                               # on a CUDA device; prints and writes results/gpu.json
    python benchmarks/gpu.py --device cpu --miniature      # every line of it, small: what the tests run

Each part has a budget; what would begin after it, or after --seconds, is left out and named. The file is written after
every measurement, so a call that is cut off loses none. One that fails is named with its error and stops no other.
Weights and activations are random, with no zeros among them: a GPU multiplies zeros faster.

On a lent machine: ``python3`` there is 3.12 with PyTorch for CUDA, typer, xxhash, pytest and more, but without zarr,
and nothing can be fetched. Here, once, in the checkout that travels:

    echo /.whl/ >> .git/info/exclude
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .whl \\
        zarr==3.1.6 numcodecs donfig google-crc32c defusedxml openpyxl et-xmlfile

Then one ``run`` with ``carry: [".whl"]``, ``timeout_s: 590`` and ``command: "bash benchmarks/gpu.sh"``.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from textdiff.cache import FeatureCache, Loader, Row
from textdiff.files import write_json
from textdiff.models.backbones.adm import ADM
from textdiff.models.backbones.checkpoints import save_unet
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import autocast, describe_device, peak_memory, synchronize
from textdiff.models.networks.head import Head
from textdiff.options.extract import Extract
from textdiff.pipeline.extract import extract
from textdiff.pipeline.fit import FitConfig, begin, initial_network
from textdiff.pipeline.training import recorded
from textdiff.pipeline.training.losses import segmentation_loss
from textdiff.pipeline.training.train import train_many

HERE = Path(__file__).resolve().parent
STEPS = (50, 150, 250)
BLOCKS = {"monuseg": (6, 8, 12, 16), "qata": (4, 6, 8, 12)}
TOKENS, TEXT_DIM = 12, 768
PARAMETERS = 552_814_086
KINDS = {"convolution": "conv", "attention": "attention", "normalisation": "norm", "products": "mm|matmul|linear|bmm"}
Steps = dict[str, Callable[[], Any]]


class Bench:
    """The measurements, each a function without arguments, and what several of them share."""

    def __init__(self, device: torch.device, miniature: bool, folder: Path) -> None:
        self.device, self.small, self.folder = device, miniature, folder
        self.cuda = device.type == "cuda"
        self.size, self.channels = (32, 32) if miniature else (256, 256)
        self.images, self.repeats = (2, 1) if miniature else (24, 5)
        self.found: dict[str, Any] = {}

    # What is measured

    def parts(self) -> dict[str, tuple[float, Callable[[], Steps]]]:
        """By the name of a part the seconds it may take, and its measurements."""
        return {
            "device": (10, lambda: {"facts": self.facts}),
            "rates": (25, self.rates),
            "stage one": (100, self.stage_one),
            "precision": (30, lambda: {"relative error": self.errors}),
            "writing": (90, self.writing),
            "stage two": (120, self.stage_two),
            "tests": (90, lambda: {"pytest -m gpu": self.tests}),
            "compile": (60, lambda: {"images/s, bf16, compiled": self.compiled}),
        }

    def facts(self) -> dict[str, Any]:
        """What this machine is."""
        facts = {
            "device": describe_device(self.device),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cores": os.cpu_count(),
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }
        if not self.small and facts["parameters"] != PARAMETERS:
            raise ValueError(f"{facts['parameters']} parameters, not {PARAMETERS}")
        return facts

    def rates(self) -> Steps:
        """The ceilings: TFLOP/s of large products, GB/s of copies."""
        n, mega = (128, 1) if self.small else (8192, 1024)

        def product(dtype: torch.dtype, tf32: bool) -> float:
            a, b = (torch.randn(n, n, device=self.device, dtype=dtype) for _ in range(2))
            before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
            try:
                return 2 * n**3 / self.seconds(lambda: a @ b, 3) / 1e12
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before

        def copy(source: str, target: str) -> float:
            a, b = (torch.ones(mega << 20, dtype=torch.uint8, device=place) for place in (source, target))
            if self.cuda:
                a, b = (x if x.is_cuda else x.pin_memory() for x in (a, b))
            return (2 if source == target else 1) * a.nbytes / self.seconds(lambda: b.copy_(a, non_blocking=True)) / 1e9

        own = str(self.device)
        return {
            "bf16 TFLOP/s": partial(product, torch.bfloat16, False),
            "tf32 TFLOP/s": partial(product, torch.float32, True),
            "float32 TFLOP/s": partial(product, torch.float32, False),
            "device to device GB/s, read and written": partial(copy, own, own),
            "host to device GB/s, pinned": partial(copy, "cpu", own),
            "device to host GB/s, pinned": partial(copy, own, "cpu"),
        }

    def stage_one(self) -> Steps:
        """The full-size network: images/s by batch, precision and memory order; where its time goes."""
        steps: Steps = {"TFLOP an image": lambda: {name: flops / 1e12 for name, flops in self.flops.items()}}
        batches = (1,) if self.small else (1, 2, 4, 8)
        for precision in ("bfloat16", "float32"):
            for batch in batches[: None if precision == "bfloat16" else 2]:
                steps[f"{precision}, batch {batch}"] = partial(self.speed, batch, precision)
        steps["bfloat16, QaTa's blocks, batch 8"] = partial(self.speed, batches[-1], "bfloat16", dataset="qata")
        steps["bfloat16, as the extractor does one image"] = self.extractor
        steps["where the time goes"] = self.profile
        steps["bfloat16, channels_last, batch 8"] = partial(self.speed, batches[-1], "bfloat16", last=True)
        steps["bfloat16 weights, channels_last, batch 8"] = partial(
            self.speed, batches[-1], "bfloat16", last=True, halved=True
        )
        return steps

    def writing(self) -> Steps:
        """Rows to disk beside plain files of as many bytes, and the whole of ``extract``."""
        return {
            "rows, one writer": partial(self.write, 1),
            "rows, four writers": partial(self.write, 4),
            "plain files, one writer": self.write_plain,
            "extract, the command": self.extract,
        }

    def stage_two(self) -> Steps:
        """Seconds an epoch from a cache, and with the UNet run again."""
        steps: Steps = {}
        for dataset in BLOCKS:
            steps[f"{dataset}, cached, steps recorded"] = partial(self.fit, dataset, "default", True)
            steps[f"{dataset}, cached, not recorded"] = partial(self.fit, dataset, "default", False)
            steps[f"{dataset}, plain, the UNet run again"] = partial(self.fit_plain, dataset)
            for form in ("folded", "plain"):
                steps[f"{dataset}, one step of the head, {form}"] = partial(self.head_step, dataset, form)
        for record in (True, False):
            name = f"a head of width 96, {'recorded' if record else 'not recorded'}"
            steps[name] = partial(self.fit, "nano", "fair", record)
        return steps

    # How

    @cached_property
    def network(self) -> ADM:
        """The backbone with random weights, none of them zero."""
        torch.manual_seed(0)
        with torch.device(self.device):
            unet = UNet(
                self.size,
                3,
                self.channels,
                6,
                2,
                (8, 16, 32),
                (1, 1, 2, 2, 4, 4),
                4,
                min(64, self.channels),
                True,
                True,
            )
            for layer in unet.modules():
                if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
                    nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
        network = ADM(unet).eval().requires_grad_(False)
        network.prepare(self.size, 0, "rgb")
        return network.to(self.device)

    @cached_property
    def flops(self) -> dict[str, int]:
        """Floating-point operations of an image, all its steps, up to the deepest block; counted without computing."""
        with torch.device("meta"):
            unet = UNet(**self.network.config)
            x, t = torch.empty(len(STEPS), 3, self.size, self.size), torch.zeros(len(STEPS), dtype=torch.long)
            found = {}
            for dataset, blocks in BLOCKS.items():
                with FlopCounterMode(display=False) as counter, torch.no_grad():
                    unet.features(x, t, blocks)
                found[dataset] = counter.get_total_flops()
        return found

    def seconds(self, run: Callable[[], object], repeats: int | None = None) -> float:
        """The median of several runs after two that are not counted."""
        taken = []
        warm = 0 if self.small else 2
        for _ in range(warm + (1 if self.small else repeats or self.repeats)):
            synchronize(self.device)
            start = time.perf_counter()
            run()
            synchronize(self.device)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[warm:])

    def begin_peak(self) -> None:
        """Counts memory from here on."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> dict[str, float]:
        """The most memory since; on a CPU of the process since its start."""
        if not self.cuda:
            return {"peak GB of the process": peak_memory() / 1e9}
        return {
            "peak GB allocated": torch.cuda.max_memory_allocated(self.device) / 1e9,
            "peak GB reserved": torch.cuda.max_memory_reserved(self.device) / 1e9,
        }

    def pictures(self, count: int) -> Tensor:
        """Random images (count, 3, S, S) uint8 on the device."""
        return torch.randint(256, (count, 3, self.size, self.size), dtype=torch.uint8, device=self.device)

    @torch.inference_mode()
    def features(
        self, images: Tensor, precision: str, dataset: str = "monuseg", network: ADM | None = None
    ) -> dict[int, Tensor]:
        """The levels of images (B, 3, S, S) at all steps, (B steps, C, h, w)."""
        copies, t = images.repeat_interleave(len(STEPS), 0), torch.tensor(STEPS * len(images), device=self.device)
        with autocast(self.device, precision):
            return (network or self.network).features(copies, t, [""] * len(copies), BLOCKS[dataset])

    def speed(
        self, batch: int, precision: str, dataset: str = "monuseg", last: bool = False, halved: bool = False
    ) -> dict[str, float]:
        """Images/s, and the share of the bf16 matrix rate measured before; convolutions in float32 without TF32."""
        images, network = self.pictures(batch), self.network
        if last or halved:
            # Last of this part: the weights stay so, and are made anew for the next.
            network.to(memory_format=torch.channels_last)
            network.unet.to(torch.bfloat16 if halved else torch.float32)
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        self.begin_peak()
        try:
            rate = batch / self.seconds(lambda: self.features(images, precision, dataset))
        finally:
            torch.backends.cudnn.allow_tf32 = before
            if last or halved:
                vars(self).pop("network")
        tflops = rate * self.flops[dataset] / 1e12
        ceiling = self.found.get("rates", {}).get("bf16 TFLOP/s")
        share = {} if not isinstance(ceiling, float) else {"share of bf16 rate": tflops / ceiling}
        return {"images/s": rate, "TFLOP/s": tflops} | share | self.peak()

    def extractor(self) -> dict[str, float]:
        """Images/s of ``Extractor`` called with one image at a time, the copy to the host included."""
        extractor = Extractor(self.network, STEPS, BLOCKS["monuseg"], self.size, self.device, "bfloat16")
        image = self.pictures(1)[0].permute(1, 2, 0).cpu().numpy()
        return {"images/s": 1 / self.seconds(lambda: extractor(image))}

    def profile(self) -> dict[str, float]:
        """Shares of the device's time by kind of kernel, of two images."""
        from torch.profiler import ProfilerActivity, profile

        images = self.pictures(1 if self.small else 2)
        self.features(images, "bfloat16")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
        with profile(activities=activities) as profiled:
            self.features(images, "bfloat16")
            synchronize(self.device)
        found: dict[str, float] = {}
        for event in profiled.key_averages():
            if not event.key.startswith("aten::"):
                continue  # the kernels themselves, which their operators count already
            spent = event.self_device_time_total if self.cuda else event.self_cpu_time_total
            kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key)), event.key)
            found[kind] = found.get(kind, 0) + spent
        total = sum(found.values()) or 1
        return {kind: spent / total for kind, spent in sorted(found.items(), key=lambda one: -one[1])[:10]}

    def errors(self) -> dict[str, dict[str, float]]:
        """By block how far bf16, and float32 with TF32, are from float32: the norm of the difference over the norm."""
        images, tf32 = self.pictures(2), torch.backends.cudnn.allow_tf32
        found: dict[str, dict[str, float]] = {"bfloat16": {}, "tf32": {}}
        try:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            exact = self.features(images, "float32") | self.features(images, "float32", "qata")
            for name, errors in found.items():
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
                precision = "bfloat16" if name == "bfloat16" else "float32"
                other = self.features(images, precision) | self.features(images, precision, "qata")
                for block, grid in sorted(exact.items()):
                    errors[str(block)] = float((other[block].float() - grid).norm() / grid.norm())
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32, False
        return found

    # Caches

    def levels(self, dataset: str) -> dict[int, tuple[int, int, int]]:
        """The shapes of a data set's blocks; ``nano`` has MoNuSeg's of a network with 32 channels."""
        shapes = self.network.levels(self.size)
        if dataset == "nano":
            return {b: (shapes[b][0] * 32 // self.channels, *shapes[b][1:]) for b in BLOCKS["monuseg"]}
        return {block: shapes[block] for block in BLOCKS[dataset]}

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

    def filled_cache(self, dataset: str) -> FeatureCache:
        """A data set's cache of random activations, made once."""
        if not (self.folder / f"{dataset}.zarr").exists():
            self.write_rows(self.empty_cache(dataset, dataset, self.images), 4)
        return FeatureCache.open(self.folder / f"{dataset}.zarr")

    # Fits

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

    def tests(self) -> dict[str, Any]:
        """What pytest says of the tests that need a GPU."""
        self.begin_peak()  # gives back what is cached, for the other process
        files = [str(file) for file in (HERE.parent / "tests").rglob("test_*.py") if "gpu" in file.read_text()]
        command = [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "--color=no",
            *files,
        ]
        if self.small:
            command = [sys.executable, "-c", "print('2 passed, 1 skipped in 0.1s')"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, timeout=150, check=False)
        except subprocess.TimeoutExpired as error:
            return {"timed out after": error.timeout, "output": (error.stdout or b"")[-2000:].decode(errors="replace")}
        counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout[-600:])}
        return counts | ({} if counts.get("failed", 0) + done.returncode == 0 else {"output": done.stdout[-4000:]})

    def compiled(self) -> dict[str, float]:
        """Images/s with ``torch.compile``, which needs a C compiler, and how long compiling took."""
        images, network = self.pictures(2 if self.small else 4), self.network.to(memory_format=torch.channels_last)
        network.unet.features = torch.compile(network.unet.features, disable=self.small)
        start = time.perf_counter()
        self.features(images, "bfloat16", network=network)
        synchronize(self.device)
        compiling = time.perf_counter() - start
        rate = len(images) / self.seconds(lambda: self.features(images, "bfloat16", network=network))
        return {"images/s": rate, "seconds of compiling": compiling} | self.peak()


def measure(bench: Bench, seconds: float, only: list[str], save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Runs the parts, each within its budget, all within ``seconds``; ``save`` is given all results after each."""
    end = time.monotonic() + seconds
    results: dict[str, Any] = {"results": bench.found, "left out": [], "failed": {}, "seconds": {}}
    for part, (budget, steps_of) in bench.parts().items():
        if only and part not in only:
            continue
        start = time.monotonic()
        found = bench.found.setdefault(part, {})
        for name, run in steps_of().items():
            if time.monotonic() > min(end, start + budget):
                results["left out"].append(f"{part}: {name}")
                continue
            try:
                found[name] = run()
                print(f"{part}: {name}: {json.dumps(found[name], default=str)}", flush=True)
            except Exception as error:  # whatever it is, the others are to be measured
                results["failed"][f"{part}: {name}"] = f"{type(error).__name__}: {error}"[:2000]
                print(f"{part}: {name}: FAILED {type(error).__name__}: {error}", flush=True)
            results["seconds"][part] = round(time.monotonic() - start, 1)
            save(results)
    save(results)
    return results


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints, and writes the JSON file; exits with status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--miniature", action="store_true", help="everything small, to try the program")
    parser.add_argument("--seconds", type=float, default=380, help="after which nothing more is begun")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="parts to measure; all by default")
    parser.add_argument("--out", type=Path, default=HERE / "results/gpu.json")
    parser.add_argument("--folder", type=Path, help="for caches of 20 GB; a temporary one by default")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no CUDA device here; try --device cpu --miniature")
    place = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with place as folder:
        bench = Bench(device, options.miniature, Path(folder))
        results = measure(bench, options.seconds, options.only, partial(write_json, options.out))
    print(f"left out: {', '.join(results['left out']) or 'nothing'}")
    print(f"failed: {', '.join(results['failed']) or 'nothing'}")
    return results


if __name__ == "__main__":
    sys.exit(1 if main()["failed"] else 0)
