"""One image to its decoder activations: noise, UNet, native grids."""

__all__ = ["AnyBackbone", "Backbone", "load_backbone"]

import time
from collections.abc import Sequence

import numpy as np
import torch

from textdiff.errors import UserError
from textdiff.files import stamp
from textdiff.images import images
from textdiff.models.backbones import diffusion
from textdiff.models.backbones.blurs import Blurs
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint
from textdiff.models.backbones.fresh import fresh_unet
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import autocast, synchronize
from textdiff.models.weights import RGB, UNTRAINED, ResolvedWeights

AnyBackbone = UNet | Blurs
"""What has ``block_shapes``, ``features`` and the ``config`` that a cache records."""


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


def load_backbone(found: ResolvedWeights, image_size: int, device: torch.device) -> AnyBackbone:
    """The network, frozen and in evaluation mode, on its device.

    An untrained one has the architecture of the checkpoint and weights drawn by its initialisation, with seed 0.

    Raises:
        UserError: the checkpoint is damaged, of no architecture that is known, or not the one that was found any more.
    """
    if found.name == RGB:
        return Blurs().to(device)
    if found.name.startswith(UNTRAINED):
        _, architecture = read_checkpoint(found.path, image_size)
        network = fresh_unet(architecture, seed=0).to(device).eval().requires_grad_(False)
    else:
        network = load_unet(found.path, image_size=image_size, device=device)
    if found.stamp not in (None, stamp(found.path)):
        raise UserError(f"{found.path}: was changed while it was loaded; run the same command again")
    return network
