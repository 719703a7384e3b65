"""Several networks that differ in their seeds, used as one."""

__all__ = ["Ensemble"]

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item, Loader
from textdiff.models.networks.segmenter import Segmenter


class Ensemble(Segmenter):
    """Networks of one kind, whose scores together are the logarithm of their mean probability.

    So the softmax of an ensemble's scores is the mean of its members' (deep ensembles, Lakshminarayanan et al. 2017,
    https://arxiv.org/abs/1612.01474, section 2.4), and whatever takes a network takes an ensemble.

    Args:
        members: at least one; they read the same inputs.
    """

    def __init__(self, members: Sequence[Segmenter]) -> None:
        super().__init__()
        self._members = nn.ModuleList(members)
        self.config = {"members": [member.config for member in members], "classes": members[0].config["classes"]}

    @property
    def members(self) -> list[Segmenter]:
        """The networks, in the order of their seeds."""
        return [member for member in self._members if isinstance(member, Segmenter)]

    def forward(self, *inputs: Any) -> Tensor:
        """Scores before the softmax, (B, classes, H, W) float32, from what ``inputs`` gives."""
        logs = torch.stack([member(*inputs).float().log_softmax(1) for member in self._members])
        return logs.logsumexp(0) - math.log(len(self._members))

    def attention(self, *inputs: Any) -> Tensor | None:
        """The mean of its members'."""
        each = [found for member in self.members if (found := member.attention(*inputs)) is not None]
        return torch.stack(each).mean(0) if each else None

    def inputs(self, items: Sequence[Item]) -> tuple[Any, ...]:
        """What every member reads."""
        return self.members[0].inputs(items)

    def loader(self, cache: FeatureCache, device: torch.device) -> Loader:
        """Reads what every member reads."""
        return self.members[0].loader(cache, device)
