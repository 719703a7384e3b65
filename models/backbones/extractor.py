"""One image to the native grids of its levels, at all steps."""

__all__ = ["Extractor"]

import time
from collections.abc import Sequence

import numpy as np
import torch

from textdiff.models.backbones.base import Backbone
from textdiff.models.device import autocast, synchronize


class Extractor:
    """A backbone with everything that turns an image into features fixed.

    Args:
        network: the backbone, as ``load_backbone`` gives it.
        steps: diffusion steps at which it sees the image; a single 0 where it knows none.
        blocks: the levels that are the features.
        image_size: height and width of the images in pixels.
        device: where the backbone is.
        precision: ``float32`` or ``bfloat16`` (autocast).
    """

    def __init__(
        self,
        network: Backbone,
        steps: Sequence[int],
        blocks: Sequence[int],
        image_size: int,
        device: torch.device,
        precision: str,
    ) -> None:
        self.network, self.blocks, self.image_size = network, tuple(blocks), image_size
        self.device, self.precision = device, precision
        self._steps = torch.tensor(tuple(steps), device=device)

    def __call__(self, image: np.ndarray, text: str = "") -> dict[int, np.ndarray]:
        """The levels of one image.

        Args:
            image: (S, S, 3) uint8, RGB.
            text: of the image, for backbones that read it.

        Returns:
            For every block the native grid (steps, C, h, w) in float32.
        """
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(self.device)
        grids = self._features(x, text if self.network.reads_text else "")
        return {block: grid.float().cpu().numpy() for block, grid in grids.items()}

    @torch.inference_mode()
    def _features(self, x: torch.Tensor, text: str) -> dict[int, torch.Tensor]:
        # The copies of the image, one for each step, go through the network as one batch.
        count = len(self._steps)
        with autocast(self.device, self.precision):
            return self.network.features(x.expand(count, -1, -1, -1), self._steps, [text] * count, self.blocks)

    def estimate_seconds(self) -> float:
        """Expected seconds per image, from a timed run on a quarter-size image where the device is slow.

        The cost of convolutions is proportional to the number of pixels, and the probe costs a sixteenth of an image.
        Its first run is not counted: it allocates memory and picks kernels.
        """
        size = self.image_size
        if self.device.type == "cpu":
            quarter = max(size // 4, 64)
            size = min(size, quarter + -quarter % self.network.multiple)
        x = (torch.arange(3 * size * size, device=self.device) % 251).to(torch.uint8).reshape(1, 3, size, size)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            self._features(x, "")
            synchronize(self.device)
            seconds.append(time.perf_counter() - start)
        return seconds[-1] * (self.image_size / size) ** 2
