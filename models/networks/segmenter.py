"""What training, scoring and prediction ask of a network of stage two."""

__all__ = ["Criterion", "Reads", "Segmenter", "Window", "padded_texts", "place_words", "selected_levels"]

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item, Loader
from textdiff.errors import UserError
from textdiff.images.directions import Directions, directions_of, read_directions
from textdiff.images.images import SYMMETRIES
from textdiff.models.networks.recipes import Recipe
from textdiff.options.fit import FitConfig

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Scores before the softmax (B, classes, ...) and labels (B, ...) to a loss, a scalar."""


class Reads(NamedTuple):
    """What a network is given of each image."""

    activations: bool = False
    image: bool = False
    text: bool = False


class Window(NamedTuple):
    """A square of an image's scores, in pixels."""

    top: int
    left: int
    size: int


class Segmenter(nn.Module):
    """A network that gives class scores (B, classes, S, S) to cached rows: ``network(*network.inputs(items))``.

    By default it reads activations and texts and is trained on the cached views; a network that reads something else
    overrides ``loader``, and one that turns images by itself ``augment``. One that ``fit`` can train says what it is:
    ``title``, ``recipes``, ``variants``, ``reads`` and ``build``.
    """

    title: ClassVar[str]
    """What it is called in messages and tables, as in ``a plain U-Net``."""
    recipes: ClassVar[Mapping[str, Recipe]]
    """How it can be trained; the first is ``default``, what its authors did."""
    pretrained: ClassVar[str] = ""
    """What its authors began with, where :meth:`load_pretrained` reads it."""
    reads: ClassVar[Reads]
    """What it reads; the variant ``no-text`` reads no text, whatever this says."""
    variants: ClassVar[tuple[str, ...]] = ("full",)
    """The variants of ``variants.VARIANTS`` that it has."""

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
    steps_of_row: int = 1
    """The samples that a step can be made on in one row: one image, or many pixels."""
    votes: ClassVar[bool] = False
    """Whether it consists of networks of which the majority decides; what they disagree on is then its uncertainty."""
    steady: ClassVar[bool] = False
    """Whether a step launches the same kernels whatever the values of its inputs, and draws no numbers but by PyTorch's
    default generators: then it can be recorded. ``forward`` is ``scores_of(*prepare(...))``, of which ``scores_of`` is
    what is recorded."""
    locates: ClassVar[bool] = False
    """Whether it can be told where its pixels are (``fit --positions``)."""
    maps_places: ClassVar[bool] = False
    """Whether it can be given a map of the places that the text names (``fit --places``)."""
    mean_teacher: ClassVar[bool] = False
    """Whether it can learn from images without labels by a mean teacher (``fit --unlabelled mean-teacher``)."""
    pixelwise: ClassVar[bool] = False
    """Whether what it says of a pixel depends on nothing but the activations there."""
    usual: ClassVar[bool] = True
    """Whether a table has its row unless rows are named."""
    trained: bool = False
    """Whether it is to be trained no further, though epochs are left."""

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "Segmenter":
        """The network for a cache, as ``fit``'s options and the recipe want it, with weights drawn at random.

        Raises:
            UserError: an option that the network, or the cache, does not have.
        """
        raise NotImplementedError(f"{cls.__name__} is not among the networks that fit trains")

    @classmethod
    def usual_recipe(cls, cache: FeatureCache) -> str:
        """The recipe that suits a cache."""
        return next(iter(cls.recipes))

    @classmethod
    def own_weights(cls, cache: FeatureCache) -> Path | None:
        """The file of weights that it begins with unless ``--pretrained`` names one; None for weights drawn at random.

        Raises:
            UserError: it is not there.
        """
        return None

    def load_pretrained(self, path: Path) -> None:
        """Begins with the weights in a file, checked by their names and shapes.

        Raises:
            UserError: the file does not hold them, or the network has nothing to begin with.
        """
        raise UserError(f"--pretrained {path}: there are no weights that {self.title} could begin with; leave it out")

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def members(self) -> "list[Segmenter]":
        """The networks whose mean this is: itself alone, unless it is an ensemble."""
        return [self]

    @property
    def member_count(self) -> int:
        """How many networks it consists of."""
        return len(self.members)

    def member_scores(self, *inputs: Any) -> Tensor:
        """Each member's scores before the softmax, (members, classes, S, S), of the ``inputs`` of one item."""
        return torch.cat([member(*inputs) for member in self.members])

    def combined(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probabilities (classes, ...) that its members' (members, classes, ...) stand for: their mean."""
        mean: NDArray[np.float32] = members.mean(0)
        return mean

    def attention(self, *inputs: Any) -> Tensor | None:
        """How much of its attention each position gives each token of the text, on the finest grid that attends.

        The arguments are those of ``forward``: (B, L, h, w), over L they add up to 1. None without such an attention.
        """
        return None

    def prepare(self, *inputs: Any) -> tuple[Any, ...]:
        """What comes first of ``forward``: that which has another place in the data at each step."""
        return inputs

    def scores_of(self, *prepared: Any) -> Tensor:
        """The rest of ``forward``."""
        scores: Tensor = self(*prepared)
        return scores

    def inputs(self, items: Sequence[Item]) -> tuple[Any, ...]:
        """The arguments of ``forward`` for rows as a batch.

        By default levels (B, steps * C, h, w) and, for a network that reads it, text (B, L, D) and its mask (B, L).
        """
        features = [torch.cat(level) for level in zip(*(item.features for item in items), strict=True)]
        return (features, *padded_texts(items)) if self.reads.text else (features,)

    def place_maps(self, items: Sequence[Item], size: int) -> Tensor:
        """Maps of the places that the items' sentences name, turned as the images are: (B, 1, size, size) float32."""
        drawn = [self._words.place_map(item.sentence, size, item.view % SYMMETRIES) for item in items]
        return torch.from_numpy(np.stack(drawn)[:, None]).to(self.device)

    @cached_property
    def _words(self) -> Directions:
        return Directions.of(self.config["places"])

    def loader(self, cache: FeatureCache, device: torch.device) -> Loader:
        """Reads of each row what ``inputs`` needs, and what tells whether it is blank."""
        return Loader(cache, device, blocks=self.blocks, steps=self.times, images=self.blank_below is not None)

    def grid(self, cache: FeatureCache) -> int | None:
        """Windows that it can be trained on lie on a grid of so many pixels; None if it sees whole images only."""
        return None

    def augment(self, items: Iterable[Item], seed: int, epoch: int) -> Iterator[Item]:
        """The training items of an epoch, changed at random; drawn from (seed, epoch) alone, so that a fit resumes."""
        yield from items

    def batches(
        self, items: Iterable[Item], size: int, seed: int, epoch: int
    ) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
        """What the steps of an epoch are made on: the arguments of ``forward``, and labels (B, S, S) int64.

        By default ``size`` images each; what is left over is a smaller batch.
        """
        batch: list[Item] = []
        for item in self.augment(items, seed, epoch):
            batch.append(item)
            if len(batch) == size:
                yield self.inputs(batch), _labels(batch)
                batch = []
        if batch:
            yield self.inputs(batch), _labels(batch)

    def loss(self, scores: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """The loss of a batch, a scalar."""
        return criterion(scores, labels)

    def learn(self, items: Iterable[Item], seed: int, rate: float, criterion: Criterion) -> Tensor | None:
        """Fits itself to all items in one go and returns its loss; None, the default, if it is trained step by step."""
        return None


def _labels(batch: Sequence[Item]) -> Tensor:
    return torch.cat([item.mask for item in batch if item.mask is not None])


def padded_texts(items: Sequence[Item]) -> tuple[Tensor | None, Tensor | None]:
    """The texts of items as a batch (B, L, D) and its mask (B, L): shorter ones are padded, and that is masked."""
    tokens = [item.tokens[0] for item in items if item.tokens is not None]
    masks = [item.token_mask[0] for item in items if item.token_mask is not None]
    if not tokens:
        return None, None
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(tokens, batch_first=True), pad(masks, batch_first=True)


def place_words(cache: FeatureCache, options: FitConfig) -> dict[str, Any] | None:
    """The table of direction words that ``--places`` draws its maps by, JSON-able; None without the option.

    It is that of the cache, by which its texts turn, with our own lists where that has none of its own.
    """
    if not options.places:
        return None
    known = read_directions()
    words = directions_of(cache.about) or known
    return replace(words, middle=words.middle or known.middle, denied=words.denied or known.denied).record()


def selected_levels(cache: FeatureCache, options: FitConfig) -> tuple[list[int], int]:
    """The channels of each block that ``--blocks`` selects, at one step, and how many steps ``--steps`` does.

    Raises:
        UserError: one is selected that the cache does not have, or twice.
    """
    for name, selected, there in (
        ("blocks", options.blocks, list(cache.blocks)),
        ("steps", options.steps, list(cache.steps)),
    ):
        if selected is None:
            continue
        if not selected or len(set(selected)) < len(selected) or not set(selected) <= set(there):
            raise UserError(
                f"--{name} {','.join(map(str, selected))}: name some of those in {cache.path}, none twice: "
                f"{','.join(map(str, there))}"
            )
    channels = [c for block, (c, _, _) in cache.blocks.items() if options.blocks is None or block in options.blocks]
    return channels, len(cache.steps if options.steps is None else options.steps)
