"""Ten small networks on single pixels' activations: DDPM-seg, whose features the method builds on."""

__all__ = ["PixelMLP", "PixelMLPs"]

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.images.labels import UNSAID
from textdiff.models.arguments import arguments
from textdiff.models.networks.pixels import Pixels
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Criterion, Reads, Segmenter, selected_levels
from textdiff.options.fit import FitConfig

MEMBERS = 10
MANY_CLASSES = 30
_AT_ONCE = 1 << 13
_FIRST_TO_STOP, _PATIENCE = 4, 50


class PixelMLP(nn.Sequential):
    """One of them (Baranchuk et al., ICLR 2022, https://arxiv.org/abs/2112.03126, section 4).

    Linear to 128, ReLU, batch normalisation, linear to 32, ReLU, batch normalisation, linear to the classes; 256 and
    128 where there are 30 classes or more. With 4608 channels and 2 classes 594,466 parameters. Weights are normal with
    a standard deviation of 0.02, biases 0. Entries have the reference's names without ``layers.``.

    Args:
        channels: of a pixel.
        classes: background included.
    """

    def __init__(self, channels: int, classes: int) -> None:
        first, second = (256, 128) if classes >= MANY_CLASSES else (128, 32)
        super().__init__(
            nn.Linear(channels, first),
            nn.ReLU(),
            nn.BatchNorm1d(first),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.BatchNorm1d(second),
            nn.Linear(second, classes),
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict of DDPM-seg's code; prefixes ``module.`` and ``layers.`` are understood.

        Raises:
            UserError: entries are missing, unknown or of another shape.
        """
        own = {name.removeprefix("module.").removeprefix("layers."): value for name, value in state.items()}
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            raise UserError(f"not DDPM-seg's pixel classifier: {' '.join(str(error).split())[:200]}") from error


class _Seen:
    """What is known here of the counts that are on the device."""

    going: list[int]
    places: Tensor
    """The same numbers on the device."""
    steps = 0
    """For how many steps more none of them can end."""
    of: Tensor | None = None
    """The counts that were read, in the version of then, or as a step has changed them since."""
    version = 0


class PixelMLPs(Segmenter):
    """Ten pixel classifiers, each trained for itself on all pixels of the training images; the majority decides.

    A network's training ends when, from its fifth epoch on, more than 50 batches in a row bring no new lowest loss.

    Args:
        channels: of a pixel: those of all blocks at all steps.
        classes: background included.
        image_size: height and width of the scores.
        blocks, times: which of a cache's blocks and steps; all by default.
        count: networks.
    """

    lowest: Tensor
    waited: Tensor

    title = "DDPM-seg's pixel classifier"
    votes = True
    reads = Reads(activations=True)
    # One rate for all epochs: the step of the schedule comes after them.
    recipes: ClassVar = {
        "default": Recipe(
            1e-3, "step", 100, batch_size=64, epochs=100, select="last", loss="cross-entropy", validate_every=5
        ),
    }
    recipes["fair"] = recipes["default"]._replace(standardise=True)

    def __init__(
        self,
        channels: int,
        classes: int = 2,
        image_size: int = 256,
        standardise: bool = False,
        blocks: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
        count: int = MEMBERS,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        self.blocks, self.times = blocks, times
        self.networks = nn.ModuleList(PixelMLP(channels, classes) for _ in range(count))
        self.register_buffer("lowest", torch.full((count,), torch.inf))
        self.register_buffer("waited", torch.zeros(count, dtype=torch.int64))
        self._seen = _Seen()

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "PixelMLPs":
        """The networks for some or all of a cache's blocks and steps."""
        if options.variant != "full" or options.width is not None:
            raise UserError(f"--variant, --width: {cls.title} has neither; leave them out")
        if options.batch_size == 1:
            raise UserError("--batch-size 1: batch normalisation needs more than one pixel at a time; use 64")
        channels, steps = selected_levels(cache, options)
        return cls(
            steps * sum(channels),
            len(cache.classes) + 1,
            cache.image_size,
            recipe.standardise,
            options.blocks,
            options.steps,
        )

    @property
    def steps_of_row(self) -> int:  # type: ignore[override]
        """Every pixel is a sample."""
        return int(self.config["image_size"] ** 2)

    @property
    def going(self) -> list[int]:
        """The networks whose training has not ended.

        The device is asked only once one of them can have ended: what it counts grows by one a step at most.
        """
        seen, waited = self._seen, self.waited
        if seen.steps <= 0 or seen.of is not waited or seen.version != waited._version:
            counts = waited.tolist()
            seen.going = [number for number, count in enumerate(counts) if count <= _PATIENCE]
            seen.places = torch.tensor(seen.going, dtype=torch.int64, device=waited.device)
            seen.steps = _PATIENCE + 1 - max((counts[number] for number in seen.going), default=0)
            seen.of, seen.version = waited, waited._version
        return seen.going

    @property
    def trained(self) -> bool:  # type: ignore[override]
        """Whether the training of every network has ended."""
        return not self.going

    def pixels(self, *images: Sequence[Tensor]) -> Pixels:
        """The pixels of images, from each one's levels (1, steps x C, h, w)."""
        if self.config["standardise"]:
            images = tuple([F.layer_norm(x.float(), x.shape[2:], eps=1e-6) for x in levels] for levels in images)
        joined = images[0] if len(images) == 1 else [torch.cat(level) for level in zip(*images, strict=True)]
        return Pixels(joined, self.config["image_size"])

    def forward(self, levels: Sequence[Tensor] | Tensor) -> Tensor:
        """The logarithm of each class's share of the votes, (B, classes, S, S), from levels (B, steps x C, h, w).

        In training, from pixels (networks, n, channels), the scores of each network that is going:
        (networks, n, classes).
        """
        if isinstance(levels, Tensor):
            return torch.stack([self.networks[i](x) for i, x in zip(self.going, levels, strict=True)])
        logits = self.logits(levels)  # (count, B, classes, S, S)
        votes = F.one_hot(logits.argmax(2), logits.shape[2]).float().mean(0).movedim(-1, 1)
        # A class without a vote keeps a little, so that its logarithm is a number.
        return (votes + 1e-4).log()

    @property
    def member_count(self) -> int:
        """The ten."""
        return len(self.networks)

    def member_scores(self, *inputs: Any) -> Tensor:
        """Each network's scores before the softmax, (networks, classes, S, S), from levels (1, steps x C, h, w)."""
        (levels,) = inputs
        return self.logits(levels)[:, 0]

    def combined(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each class's share of the votes, (classes, ...), of the networks' probabilities (networks, classes, ...)."""
        classes = np.arange(members.shape[1]).reshape(-1, *[1] * (members.ndim - 2))
        shares: NDArray[np.float32] = (members.argmax(1)[:, None] == classes).mean(0, dtype=np.float32)
        return shares

    def logits(self, levels: Sequence[Tensor]) -> Tensor:
        """Every network's scores before the softmax, (networks, B, classes, S, S)."""
        size, images = self.config["image_size"], []
        for number in range(len(levels[0])):
            pixels = self.pixels([level[number : number + 1] for level in levels])
            places = torch.split(torch.arange(len(pixels), device=levels[0].device), _AT_ONCE)
            scores = [torch.stack([network(x) for network in self.networks]) for x in map(pixels.__getitem__, places)]
            images.append(torch.cat(scores, 1).mT.reshape(len(self.networks), -1, size, size))
        return torch.stack(images, 1)

    def batches(
        self, items: Iterable[Item], size: int, seed: int, epoch: int
    ) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        """Labelled pixels (networks, size, channels) of all images, in an order of each network's own, and labels.

        The last ones, fewer than ``size``, are left out, unless there are no others. The images stay in memory for the
        epoch, at native size.
        """
        self._epoch = epoch
        images: list[Sequence[Tensor]] = []
        labels: list[Tensor] = []
        for item in items:
            assert item.mask is not None
            images.append(item.features)
            labels.append(item.mask.flatten())
        pixels, truth = self.pixels(*images), torch.cat(labels)
        images.clear()
        said = (truth != UNSAID).nonzero()[:, 0]
        if len(said) < 2:
            raise UserError(f"{len(said)} labelled pixel: {self.title} needs two at least; label more")
        draws = np.random.default_rng([seed, 0x91C, epoch])
        orders = said[torch.from_numpy(np.stack([draws.permutation(len(said)) for _ in self.networks])).to(said.device)]
        size = min(size, len(said))
        for start in range(0, len(said) - size + 1, size):
            if not self.going:
                return
            places = orders[self._seen.places, start : start + size]
            yield (pixels[places.flatten()].view(*places.shape, -1),), truth[places]

    def loss(self, scores: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """The mean of the networks' losses, with the gradient of their sum: for each network that of its own loss."""
        losses = torch.stack([criterion(own, truth) for own, truth in zip(scores, labels, strict=True)])
        if self.training and self._epoch >= _FIRST_TO_STOP:
            now, seen = losses.detach(), self._seen
            going = seen.places
            better = now < self.lowest[going]
            self.lowest[going] = torch.where(better, now, self.lowest[going])
            self.waited[going] = torch.where(better, 0, self.waited[going] + 1)
            seen.steps, seen.version = seen.steps - 1, self.waited._version
        total = losses.sum()
        return total + (losses.mean() - total).detach()
