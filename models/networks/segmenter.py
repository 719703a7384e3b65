"""What training, scoring and prediction ask of a network of stage two."""

__all__ = ["Segmenter", "Window"]

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from textdiff.cache import FeatureCache, Item, Loader


class Window(NamedTuple):
    """A square of an image's scores, in pixels."""

    top: int
    left: int
    size: int


class Segmenter(nn.Module, ABC):
    """A network that gives class scores (B, classes, S, S) to cached rows: ``network(*network.inputs(items))``.

    By default it reads activations and texts and is trained on the cached views; a network that reads something else
    overrides ``loader``, and one that turns images by itself ``augment``.
    """

    config: dict[str, Any]
    """The arguments that make the network again, JSON-able."""
    blocks: Sequence[int] | None = None
    """Which of the cache's blocks it reads; all by default."""
    times: Sequence[int] | None = None
    """Which of the cache's diffusion steps it reads; all by default."""
    blank_below: float | None = None
    """Pictures of less contrast are background, and it is not asked (``prediction.blank``); None asks it always."""
    cached_views: ClassVar[bool] = True
    """Whether training draws among an image's cached views; otherwise it gets the image as it is."""

    @property
    def members(self) -> "list[Segmenter]":
        """The networks whose mean this is: itself alone, unless it is an ensemble."""
        return [self]

    @abstractmethod
    def inputs(self, items: Sequence[Item]) -> tuple[Any, ...]:
        """The arguments of ``forward`` for rows as a batch."""

    def loader(self, cache: FeatureCache, device: torch.device) -> Loader:
        """Reads of each row what ``inputs`` needs, and what tells whether it is blank."""
        return Loader(cache, device, blocks=self.blocks, steps=self.times, images=self.blank_below is not None)

    def grid(self, cache: FeatureCache) -> int | None:
        """Windows that it can be trained on lie on a grid of so many pixels; None if it sees whole images only."""
        return None

    def augment(self, items: Iterable[Item], seed: int, epoch: int) -> Iterator[Item]:
        """The training items of an epoch, changed at random; drawn from (seed, epoch) alone, so that a fit resumes."""
        yield from items
