"""Images to the native grids of their levels, at all steps."""

__all__ = ["Extractor"]

import time
from collections.abc import Sequence

import numpy as np
import torch

from textdiff.models.backbones.base import Backbone
from textdiff.models.device import autocast, synchronize


class Extractor:
    """A backbone with everything that turns images into features fixed.

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
        self.steps = torch.tensor(tuple(steps), device=device)
        if device.type == "cuda":
            network.tune(precision)

    def __call__(self, image: np.ndarray, text: str = "") -> dict[int, np.ndarray]:
        """The levels of one image.

        Args:
            image: (S, S, 3) uint8, RGB.
            text: of the image, for backbones that read it.

        Returns:
            For every block the native grid (steps, C, h, w) in float32.
        """
        grids = self.grids(image[None], [text])
        return {block: grid[0].float().cpu().numpy() for block, grid in grids.items()}

    def grids(self, images: np.ndarray, texts: Sequence[str]) -> dict[int, torch.Tensor]:
        """The levels of several images, on the device, where they may still be in the making.

        Args:
            images: (B, S, S, 3) uint8, RGB.
            texts: of the images, for backbones that read them.

        Returns:
            For every block the native grids (B, steps, C, h, w), float.
        """
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        if self.device.type == "cuda":
            x = x.pin_memory()  # from other memory nothing is copied while the program goes on
        return self._features(x.to(self.device, non_blocking=True), texts if self.network.reads_text else None)

    @torch.inference_mode()
    def _features(self, x: torch.Tensor, texts: Sequence[str] | None = None) -> dict[int, torch.Tensor]:
        # The copies of the images, one for each step, go through the network as one batch.
        images, steps = len(x), len(self.steps)
        copies = x[:, None].expand(-1, steps, -1, -1, -1).flatten(0, 1)
        read = [text for text in texts or [""] * images for _ in range(steps)]
        with autocast(self.device, self.precision):
            grids = self.network.features(copies, self.steps.repeat(images), read, self.blocks)
        return {block: grid.view(images, steps, *grid.shape[1:]) for block, grid in grids.items()}

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
            self._features(x)
            synchronize(self.device)
            seconds.append(time.perf_counter() - start)
        return seconds[-1] * (self.image_size / size) ** 2
