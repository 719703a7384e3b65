"""The running average of a network's weights."""

__all__ = ["DECAY", "RunningAverage"]

import copy

import torch

from textdiff.models.networks.segmenter import Segmenter

DECAY = 0.99
"""How much of the average stays at each step."""


class RunningAverage:
    """The exponential moving average of a network's weights over its steps (Polyak and Juditsky, 1992; as in Mean
    Teacher, https://arxiv.org/abs/1703.01780): the mean of them all at first, of about the last hundred then.

    The statistics of batch normalisation are averaged alike; those of a mean teacher are of its own passes, too.

    Args:
        network: as it is before the first step, on its device; it is copied.
    """

    def __init__(self, network: Segmenter) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: Segmenter, step: int) -> None:
        """Moves the average towards the network, which has made step number ``step``, from 0."""
        share = max(1 / (step + 1), 1 - DECAY)
        own, new = ([*one.parameters(), *one.buffers()] for one in (self.network, network))
        floats = [number for number, value in enumerate(own) if value.is_floating_point()]
        torch._foreach_lerp_([own[number] for number in floats], [new[number] for number in floats], share)
