"""Trees that are fitted in a second and kept in memory, for someone who paints, looks, and paints again."""

__all__ = ["ITERATIONS", "MOST_PIXELS", "one_thread", "quick_fit", "quick_network"]

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Item, Loader
from textdiff.errors import UserError
from textdiff.images.labels import UNSAID, said_counts
from textdiff.models.networks.models import get_model, get_recipe
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.fit import FitConfig
from textdiff.pipeline.training.losses import LOSSES

ITERATIONS = 40
"""Rounds of boosting, of the 100 that ``fit --model trees`` makes."""
MOST_PIXELS = 8000
"""Pixels that are learned from at most, of all images together: of full masks, a part is drawn."""
_MODEL, _DRAW = "trees", 0x91F


def quick_network(cache: FeatureCache) -> Segmenter:
    """The trees for a cache, not fitted yet; its ``loader`` reads what they look at.

    That is the finest block: a few strokes are told apart in the coarse ones by where they are.

    Raises:
        UserError: scikit-learn is not installed.
    """
    finest = max(cache.blocks, key=lambda block: (cache.blocks[block][1], block))
    options = FitConfig(cache.path, model=_MODEL, blocks=(finest,))
    built = get_model(_MODEL).build(cache, options, get_recipe(_MODEL, "default"))
    return type(built)(**built.config | {"iterations": ITERATIONS})


@contextmanager
def one_thread() -> Iterator[None]:
    """Has torch and scikit-learn compute in the calling thread alone.

    Fitting and asking trees is thousands of small steps, and several threads wait for each other at every one. Where
    other programs keep the cores busy, that has made a minute of a second.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        torch.set_num_threads(before)


def quick_fit(
    cache: FeatureCache, said: Mapping[int, NDArray[np.uint8]], loader: Loader
) -> Generator[tuple[int, int], None, Segmenter]:
    """Fits trees to the labelled pixels of a few rows; breaking off between two rows leaves nothing behind.

    Args:
        cache: where the activations are.
        said: for each row its class numbers (S, S), ``UNSAID`` where nothing is said.
        loader: of ``quick_network``; the rows that it keeps are not read again by the next fit.

    Yields:
        How many rows have been read, and of how many.

    Returns:
        The fitted network.

    Raises:
        UserError: fewer than two classes are among the labels, or scikit-learn is not installed.
    """
    counts = np.sum([said_counts(labels, len(cache.classes) + 1) for labels in said.values()], axis=0)
    if np.count_nonzero(counts) < 2:
        names = ("background", *cache.classes)
        there = (
            f"all {counts.sum()} labelled pixels are {names[int(counts.argmax())]}" if np.any(counts) else "no label"
        )
        raise UserError(f"{there}: nothing can be told apart; paint a little of two classes at least, with a pen that "
                        f"is not thinner than a pixel at {cache.image_size}x{cache.image_size}")  # fmt: skip
    network, recipe = quick_network(cache), get_recipe(_MODEL, "default")
    items: list[Item] = []
    with closing(loader.epoch(list(said))) as rows:
        for item in rows:
            labels = _drawn(said[item.row], MOST_PIXELS // len(said), [0, _DRAW, item.row])
            items.append(replace(item, mask=torch.from_numpy(labels).long()[None]))
            yield len(items), len(said)
    with one_thread():
        network.learn(items, 0, recipe.learning_rate, LOSSES[recipe.loss])
    return network.eval()


def _drawn(labels: NDArray[np.uint8], most: int, seed: list[int]) -> NDArray[np.uint8]:
    """The labels (S, S) with at most so many of them kept."""
    there = np.flatnonzero(labels != UNSAID)
    if len(there) <= most:
        return labels
    kept = np.full_like(labels, UNSAID)
    chosen = np.random.default_rng(seed).choice(there, most, replace=False)
    kept.flat[chosen] = labels.flat[chosen]
    return kept
