"""Stage one on a GPU: the ceilings, the full-size network by batch and precision, and how exact bf16 is."""

import re
import time
from functools import partial

import torch

from textdiff.benchmarks.common import STEPS
from textdiff.benchmarks.gpu_shared import BLOCKS, Shared, Steps
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.device import synchronize

KINDS = {"convolution": "conv", "attention": "attention", "normalisation": "norm", "products": "mm|matmul|linear|bmm"}


class StageOne(Shared):
    """Rates, speeds and errors."""

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
