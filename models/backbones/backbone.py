"""One image to its decoder activations: noise, UNet, native grids."""

__all__ = ["Backbone"]

import time
from collections.abc import Sequence

import numpy as np
import torch

from textdiff.images import images
from textdiff.models.backbones import diffusion
from textdiff.models.backbones.load import AnyBackbone
from textdiff.models.device import autocast, synchronize


class Backbone:
    """The frozen network with everything that turns an image into features fixed.

    Args:
        network: the UNet, or what stands in for it, in evaluation mode, on the device where it is to run.
        steps: diffusion time steps at which the image is noised.
        blocks: decoder blocks whose outputs are the features.
        seed: of the noise, one draw for all images, made on the CPU so that every device sees the same.
        image_size: height and width of the images in pixels.
        colour: channel order that the UNet sees, ``rgb`` or ``bgr``.
        precision: ``float32`` or ``bfloat16`` (autocast).
    """

    def __init__(
        self,
        network: AnyBackbone,
        steps: Sequence[int],
        blocks: Sequence[int],
        seed: int,
        image_size: int,
        colour: str,
        precision: str,
    ) -> None:
        self.network, self.blocks, self.colour, self.precision = network, tuple(blocks), colour, precision
        self.image_size = image_size
        self.device = next(iter(network.state_dict().values())).device
        self._noise = diffusion.shared_noise(seed, image_size).to(self.device)  # (1, 3, S, S)
        self._steps = torch.tensor(tuple(steps), device=self.device)

    def __call__(self, image: np.ndarray) -> dict[int, np.ndarray]:
        """The activations of one image.

        Args:
            image: (S, S, 3) uint8, RGB.

        Returns:
            For every block the native grid (steps, C, h, w) in float32.
        """
        x = images.to_tensor(image, self.colour).unsqueeze(0).to(self.device)
        return {block: grid.float().cpu().numpy() for block, grid in self._features(x, self._noise).items()}

    @torch.inference_mode()
    def _features(self, x: torch.Tensor, noise: torch.Tensor) -> dict[int, torch.Tensor]:
        # The noised copies of the image go through the UNet as one batch.
        noised = diffusion.q_sample(x.expand(len(self._steps), -1, -1, -1), self._steps, noise)
        with autocast(self.device, self.precision):
            return self.network.features(noised, self._steps, self.blocks)

    def estimate_seconds(self) -> float:
        """Expected seconds per image, from a timed run on a quarter-size image where the network allows it.

        The cost of the convolutions is proportional to the number of pixels, and the probe costs a sixteenth of an
        image. Its first run is not counted: it allocates memory and picks kernels.
        """
        size = max(self.image_size // 4, 64) if self.device.type == "cpu" else self.image_size
        x = self._noise[..., :size, :size].clamp(-1, 1)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            self._features(x, self._noise[..., :size, :size])
            synchronize(self.device)
            seconds.append(time.perf_counter() - start)
        return seconds[-1] * (self.image_size / size) ** 2
