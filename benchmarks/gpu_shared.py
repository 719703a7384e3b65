"""What the parts of the benchmark of a GPU share: the network with random weights, clocks, memory."""

import statistics
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from textdiff.benchmarks.common import STEPS, peak_memory
from textdiff.models.backbones.adm import ADM
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import autocast, synchronize

BLOCKS = {"monuseg": (6, 8, 12, 16), "qata": (4, 6, 8, 12)}
TOKENS, TEXT_DIM = 12, 768
Steps = dict[str, Callable[[], Any]]
"""Measurements by their names."""


class Shared:
    """The device, the sizes, and the network."""

    def __init__(self, device: torch.device, miniature: bool, folder: Path) -> None:
        self.device, self.small, self.folder = device, miniature, folder
        self.cuda = device.type == "cuda"
        self.size, self.channels = (32, 32) if miniature else (256, 256)
        self.images, self.repeats = (2, 1) if miniature else (24, 5)
        self.found: dict[str, Any] = {}

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

    def levels(self, dataset: str) -> dict[int, tuple[int, int, int]]:
        """The shapes of a data set's blocks; ``nano`` has MoNuSeg's of a network with 32 channels."""
        shapes = self.network.levels(self.size)
        if dataset == "nano":
            return {b: (shapes[b][0] * 32 // self.channels, *shapes[b][1:]) for b in BLOCKS["monuseg"]}
        return {block: shapes[block] for block in BLOCKS[dataset]}
