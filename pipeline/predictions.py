"""The one place where networks run without gradients: over rows of a cache, and over images that are in none."""

__all__ = [
    "FittedNetwork",
    "Predicted",
    "attention_of",
    "cached_predictions",
    "enlarge",
    "logits_of",
    "mean_of_rows",
    "mean_of_views",
    "most_likely",
    "predict_members",
    "predictions",
    "shows_nothing",
    "view_count",
]

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from textdiff import console
from textdiff.cache import FeatureCache, Item
from textdiff.images.images import unsymmetry
from textdiff.images.tiles import background
from textdiff.models.device import autocast, choose_device
from textdiff.models.networks.segmenter import Segmenter
from textdiff.pipeline.prediction.blank import is_blank
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.image_digests import changed_images

Predicted = tuple[int, NDArray[np.float32]]
"""A row of a cache, or the first of several, and class probabilities (members, classes, S, S)."""
_LAYERS = (-2, -1)
"""The axes of probabilities (..., S, S) that a symmetry is of."""


class FittedNetwork:
    """The network of a finished run on a device, to be used and no longer trained.

    Args:
        run: a finished run.
        device: where to compute, ``auto``, ``cpu``, ``cuda`` ...

    Raises:
        UserError: the run is not finished, its weights are damaged, or there is no such device.
    """

    shown: Callable[[FeatureCache, Iterable[Item]], Iterator[Item]] | None = None
    """Changes the items of rows of a cache before the network sees them; None shows them as they are."""

    def __init__(self, run: Run, device: str | torch.device = "auto") -> None:
        self.run = run
        self.network = run.load_network()
        self.device = choose_device(device) if isinstance(device, str) else device
        self.network.to(self.device)
        self.classes: int = self.network.config["classes"]
        """Classes, background included."""
        self.member_count = self.network.member_count
        """How many networks it consists of."""
        self.precision: str = run.config["fit"]["precision"] if self.device.type == "cuda" else "float32"

    def combined(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probabilities (classes, ...) that its members' (members, classes, ...) stand for."""
        return self.network.combined(members)

    def items(self, cache: FeatureCache, rows: Sequence[int]) -> Iterator[Item]:
        """What the network reads of rows of a cache, each once: none is worth its memory afterwards."""
        items = self.network.loader(cache, self.device).epoch(rows, self.run.texts(cache), keep=False)
        return items if self.shown is None else self.shown(cache, items)

    def of_rows(
        self, cache: FeatureCache, rows: Sequence[int], *, each: bool = False, source: Iterable[Item] | None = None
    ) -> Generator[Predicted, None, None]:
        """``predictions`` of rows of a cache; see ``cached_predictions``."""
        return predictions(self, self.items(cache, rows) if source is None else source, each=each)

    def changed(self, cache: FeatureCache) -> list[str]:
        """What is no longer as it was when the run was begun, of its training and validation images."""
        return changed_images(self.run.config, cache, self.run.texts(cache))


def predictions(
    fitted: FittedNetwork, source: Iterable[Item], *, each: bool = False
) -> Generator[Predicted, None, None]:
    """What the network says of one item after the other, as the only member, or if ``each`` every one of its members.

    Args:
        fitted: the network.
        source: items from anywhere: the ``Loader`` of a cache, or what a ``Preprocessor`` makes of an image.
    """
    for item in source:
        row, members = item.row, predict_members(fitted.network, item, fitted.precision)
        del item  # else its activations would stay in memory until the next item has come
        yield row, members if each else fitted.network.combined(members)[None]


def cached_predictions(
    fitted: FittedNetwork,
    cache: FeatureCache,
    rows: Sequence[int],
    what: str,
    *,
    each: bool = False,
    source: Iterable[Item] | None = None,
) -> Generator[Predicted, None, None]:
    """``predictions`` of rows of a cache in this order, with a line of progress.

    Args:
        fitted: the network.
        cache: one that its run can be used with.
        rows: at least one; each once.
        what: begins the line of progress.
        each: whether every member is asked for.
        source: the rows' items in this order, where they are not read from the cache.
    """
    unit = "views" if view_count(cache, rows) > 1 else "tiles" if cache.rows[rows[0]].tile else "images"
    with console.Progress(len(rows), what, unit) as progress:
        for predicted in fitted.of_rows(cache, rows, each=each, source=source):
            yield predicted
            progress.advance()


def predict_members(network: Segmenter, item: Item, precision: str) -> NDArray[np.float32]:
    """Class probabilities (members, classes, S, S) of one item; a blank one is background and goes through no network.

    Raises:
        ValueError: the run has a limit for blank pictures, and the item comes without its image.
    """
    if shows_nothing(network, item):
        assert item.image is not None
        size = item.image.shape[-1]
        return background((network.member_count, network.config["classes"], size, size))
    logits = logits_of(network, item, precision, each=True)
    probabilities: NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
    return probabilities


@torch.inference_mode()
def logits_of(network: Segmenter, item: Item, precision: str, *, each: bool = False) -> torch.Tensor:
    """Scores before the softmax of one item, blank or not; leaves evaluation mode on.

    (1, classes, S, S), or if ``each`` those of every member, (members, classes, S, S).
    """
    network.eval()
    inputs = network.inputs([item])
    with autocast(network.device, precision):
        scores: torch.Tensor = network.member_scores(*inputs) if each else network(*inputs)
        return scores


@torch.inference_mode()
def attention_of(network: Segmenter, item: Item) -> NDArray[np.float32] | None:
    """How much of its attention each position gives each token, (L, h, w); see ``Segmenter.attention``."""
    shares = network.eval().attention(*network.inputs([item]))
    return None if shares is None else shares[0].float().cpu().numpy()


def shows_nothing(network: Segmenter, item: Item) -> bool:
    """Whether ``network``'s run takes an item to be blank.

    Raises:
        ValueError: the run has a limit, and the item comes without its image.
    """
    if network.blank_below is None:
        return False
    if item.image is None:
        raise ValueError(f"row {item.row}: has no image, so it cannot be told whether it is blank")
    return is_blank(item.image[0].permute(1, 2, 0).cpu().numpy(), network.blank_below)


def mean_of_views(views: Iterable[tuple[int, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """The mean of probabilities (..., S, S), each of a view of one image and turned back.

    Args:
        views: the number of each view, as ``images.symmetry`` takes it, and what was predicted of it.
    """
    layers = [unsymmetry(probability, view, _LAYERS) for view, probability in views]
    # One view is handed on as it is, to the bit.
    return layers[0] if len(layers) == 1 else np.mean(layers, axis=0)


def mean_of_rows(cache: FeatureCache, predicted: Iterable[Predicted]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Joins the rows that are views of one image or tile: its first row, and the mean (classes, S, S).

    Args:
        cache: the rows' cache.
        predicted: what was predicted of each row, by one member; views of one image or tile follow one another.
    """
    for _, group in groupby(predicted, lambda found: cache.rows[found[0]].key[:-1]):
        views = [(row, member) for row, (member,) in group]
        yield views[0][0], mean_of_views((cache.rows[row].view, probability) for row, probability in views)


def view_count(cache: FeatureCache, rows: Sequence[int]) -> int:
    """How many views of each image, or tile, are among ``rows``."""
    return len({cache.rows[row].view for row in rows})


def enlarge(probabilities: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Probabilities (..., classes, S, S) at another size, bilinearly: (..., classes, height, width) in float32."""
    grid = torch.from_numpy(probabilities)
    sized = F.interpolate(grid.reshape(-1, *grid.shape[-3:]), (height, width), mode="bilinear")
    enlarged: NDArray[np.float32] = sized.reshape(*grid.shape[:-2], height, width).numpy()
    return enlarged


def most_likely(probability: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """``argmax`` and ``max`` over the classes (classes, h, W), without the former's eight bytes for each pixel."""
    labels, most = np.zeros(probability.shape[1:], np.uint8), probability[0].copy()
    for label, of_class in enumerate(probability[1:], start=1):
        labels[of_class > most] = label
        np.maximum(most, of_class, out=most)
    return labels, most
