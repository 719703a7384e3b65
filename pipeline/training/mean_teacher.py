"""Mean teacher: a network of images agrees with its own running average on images that have no labels."""

__all__ = ["RAMP", "WEIGHT", "MeanTeacher", "recoloured"]

import math
from typing import Any

import torch
from torch import Tensor

from textdiff.models.device import autocast
from textdiff.models.networks.segmenter import Criterion, Segmenter

WEIGHT = 1.0
"""Weight of the disagreement beside the loss of the labelled images, once all of it counts."""
RAMP = 0.3
"""The share of all steps over which that weight rises."""
_CONTRAST, _TINT, _BRIGHTNESS, _NOISE = 1.5, 1.1, 40, 15


class MeanTeacher:
    """How far a network is from the running average of its weights on images without labels.

    Mean Teacher (Tarvainen and Valpola, NeurIPS 2017, https://arxiv.org/abs/1703.01780): the loss of a step is that of
    the labelled images, plus ``w`` x the mean squared difference between the probabilities that the network gives to
    changed images and those that the average gives to the same images unchanged (section 2, J). As there, ``w`` rises
    as ``exp(-5 (1 - x)^2)`` (section 3.1), and the average computes in training mode, with dropout and batch statistics
    of its own.

    Args:
        average: the network of images that has the average's weights.
        steps: of the whole fit.
        precision: in which scores are computed, as ``fit --precision`` names it.
    """

    def __init__(self, average: Segmenter, steps: int, precision: str) -> None:
        self._average, self._steps, self._precision = average, steps, precision

    def loss(
        self, network: Segmenter, inputs: tuple[Any, ...], labels: Tensor, criterion: Criterion, step: int
    ) -> Tensor:
        """The loss of a step, a scalar float32.

        Args:
            network: what is trained.
            inputs: of ``forward``, tensors of B samples, of which the second half have no labels; images (B, 3, S, S)
                uint8 come first.
            labels: (B, S, S); those of the second half are not looked at.
            criterion: of the labelled half.
            step: number of the step, from 0.
        """
        half, device = len(labels) // 2, network.device
        images, *more = inputs
        with torch.no_grad(), autocast(device, self._precision):
            said = self._average.train()(*(part[half:] for part in inputs)).float().softmax(1)
        with autocast(device, self._precision):
            # Apart, for what batch normalisation makes of the labelled ones: changed images are not like any other.
            scores = network(*(part[:half] for part in inputs)).float()
            changed = network(recoloured(images[half:]), *(part[half:] for part in more)).float()
        apart: Tensor = (changed.softmax(1) - said).square().mean()
        return network.loss(scores, labels[:half], criterion) + self.weight(step) * apart

    def weight(self, step: int) -> float:
        """The weight of the disagreement at a step."""
        done = min(step / (RAMP * self._steps), 1)
        return WEIGHT * math.exp(-5 * (1 - done) ** 2)


def recoloured(images: Tensor) -> Tensor:
    """Images (B, 3, S, S) uint8 with other contrast, tint, brightness and noise, drawn for each by torch's generator.

    Contrast changes by up to a factor of 1.5 and that of each colour by up to 1.1 more, brightness by up to 40 of 255;
    the noise is grey and normal, with a standard deviation of up to 15.
    """
    x, count = images.float(), len(images)
    gain = _CONTRAST ** _draw(x, count, 1, 1, 1) * _TINT ** _draw(x, count, 3, 1, 1)
    middle = x.mean((1, 2, 3), keepdim=True)
    noise = _draw(x, count, 1, 1, 1) * torch.randn(count, 1, *x.shape[2:], device=x.device)
    x = (x - middle) * gain + middle + _BRIGHTNESS * _draw(x, count, 1, 1, 1) + _NOISE * noise
    return x.round().clamp(0, 255).to(images.dtype)


def _draw(like: Tensor, *shape: int) -> Tensor:
    """Numbers between -1 and 1, all equally likely."""
    return 2 * torch.rand(shape, device=like.device) - 1
