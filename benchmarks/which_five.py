"""Which five images to annotate: ways to choose them against chance, at equal labels.

    python benchmarks/which_five.py --cache cache/monuseg.zarr [--learn cache/monuseg-filters.zarr] [--judge trees]
        [--begin 3] [--draws 100] [--on test]

A draw makes a pool of three quarters of the training images, of which every way chooses five by the activations of
--cache; a classifier of pixels is fitted on their masks with the activations of --learn. --begin gives so many of the
five at random, and asks for the others. Scored are images that no way could choose: the training images that are not in
the pool with the validation images, or with --on test the test images. What is compared is the same draw's mean over
some sets chosen at random. Prints Markdown.

The classifiers are quick, so that there can be many draws: `linear` is a ridge regression on random features (Rahimi
and Recht, NeurIPS 2008) with the threshold that is best on the labelled images, `trees` are those of `fit --model
trees` in 40 rounds. Both see one pixel in --stride x --stride.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from textdiff.cache import FeatureCache
from textdiff.experiments.nested_bootstrap import nested_bootstrap
from textdiff.metrics.pixels import entropy, jensen_shannon
from textdiff.models.networks.pixels import Pixels
from textdiff.pipeline.prediction.coverage import cover_order, described
from textdiff.tables import markdown_table

FIVE, MEMBERS = 5, 3
Array = NDArray[Any]


class Images(NamedTuple):
    """All images of a cache."""

    points: Array
    """(images, channels) what they are compared by."""
    pixels: Array
    """(images, pixels, channels) what is learned from."""
    truth: Array
    """(images, pixels) bool."""
    splits: Array
    groups: Array
    """Whose each image is; empty where nothing is known."""


def read(compared: Path, learned: Path, step: int, stride: int) -> Images:
    """Reads the unturned rows of two caches of the same images, one pixel in ``stride`` x ``stride``."""
    one, other = (FeatureCache.open(path) for path in (compared, learned))
    rows = {entry.id: row for row, entry in enumerate(one.rows) if entry.view == 0}
    own = {entry.id: row for row, entry in enumerate(other.rows) if entry.view == 0}
    size = other.image_size
    places = torch.arange(size**2).view(size, size)[stride // 2 :: stride, stride // 2 :: stride].flatten()
    pixels, truth = [], []
    for row in own.values():
        levels = [torch.from_numpy(np.array(other.features(row, block, None, [step]))) for block in other.blocks]
        pixels.append(Pixels([level.float() for level in levels], size)[places].numpy())
        truth.append(other.mask(row).flatten()[places.numpy()] > 0)  # type: ignore[union-attr]
    points = np.stack([described(one, rows[name]) for name in own])
    entries = [other.rows[row] for row in own.values()]
    splits, groups = (np.array([getattr(entry, name) for entry in entries]) for name in ("split", "group"))
    return Images(points, np.stack(pixels), np.stack(truth), splits, groups)


class Linear:
    """Ridge regression on random features, from sums of each image that are made once."""

    def __init__(self, images: Images, seed: int, width: int = 300) -> None:
        draws = np.random.default_rng(seed)
        scaled = (images.pixels - images.pixels.mean((0, 1))) / (images.pixels.std((0, 1)) + 1e-6)
        weights = draws.normal(size=(scaled.shape[-1], width)).astype(np.float32) / np.sqrt(scaled.shape[-1])
        hidden = np.maximum(scaled @ weights + draws.normal(size=width).astype(np.float32), 0)
        self.features = np.concatenate([hidden, np.ones_like(hidden[..., :1])], -1)
        self.truth, said = images.truth, images.truth.astype(np.float32)
        self.squares = np.stack([one.T @ one for one in self.features])
        self.products = np.stack([one.T @ y for one, y in zip(self.features, said, strict=True)])

    def __call__(self, chosen: Sequence[int], asked: Sequence[int]) -> Array:
        """The probability of the foreground (asked, pixels), fitted on the chosen images."""
        chosen = list(chosen)
        sums = self.squares[chosen].sum(0) + 3.0 * len(chosen) * np.eye(self.squares.shape[1])
        solved = np.linalg.solve(sums, self.products[chosen].sum(0)).astype(np.float32)
        known, truth = self.features[chosen] @ solved, self.truth[chosen]
        limit = max(np.linspace(0.15, 0.6, 19), key=lambda limit: dice(known > limit, truth, None))
        return 1 / (1 + np.exp(-12 * (self.features[list(asked)] @ solved - limit)))


class Trees:
    """The trees of `fit --model trees`, in fewer rounds; all but the first see half of the pixels, each its own."""

    def __init__(self, images: Images, seed: int) -> None:
        self.images, self.seed = images, seed

    def __call__(self, chosen: Sequence[int], asked: Sequence[int]) -> Array:
        """The probability of the foreground (asked, pixels), fitted on the chosen images."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        channels = self.images.pixels.shape[-1]
        x, y = self.images.pixels[list(chosen)].reshape(-1, channels), self.images.truth[list(chosen)].ravel()
        if self.seed:
            half = np.random.default_rng(self.seed).permutation(len(x))[: len(x) // 2]
            x, y = x[half], y[half]
        model = HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0).fit(x, y)
        found: Array = model.predict_proba(self.images.pixels[list(asked)].reshape(-1, channels))[:, 1]
        return found.reshape(len(asked), -1)


def dice(found: Array, truth: Array, axis: int | None = 1) -> Any:
    """Dice in percent of each image (images, pixels), or of all together."""
    return 200 * (found & truth).sum(axis) / np.maximum(found.sum(axis) + truth.sum(axis), 1)


class Ground(NamedTuple):
    """What a way to choose may look at: places are those in the pool."""

    points: Array
    known: list[int]
    doubts: Callable[[], tuple[Array, Array]]
    """The disagreement and the entropy of each image of the pool."""
    draws: np.random.Generator


def by_chance(ground: Ground, count: int) -> list[int]:
    """Images at random."""
    left = [index for index in range(len(ground.points)) if index not in ground.known]
    return [int(index) for index in ground.draws.permutation(left)[:count]]


def by_coverage(ground: Ground, count: int) -> list[int]:
    """The first that `textdiff next` names."""
    # It takes the known ones behind the others.
    order = [index for index in range(len(ground.points)) if index not in ground.known] + ground.known
    found = cover_order(ground.points[order], range(len(order) - len(ground.known), len(order)))
    return [order[index] for index, _ in found[:count]]


def by_distance(ground: Ground, count: int) -> list[int]:
    """The most typical one, then the farthest from those before (Gonzalez 1985; greedy k-center, arXiv 1708.00489)."""
    apart, chosen = distances(ground.points), list(ground.known)
    if not chosen:
        chosen = [int(np.square(apart).sum(0).argmin())]
    while len(chosen) < count + len(ground.known):
        far = apart[:, chosen].min(1)
        far[chosen] = -1
        chosen.append(int(far.argmax()))
    return chosen[len(ground.known) :]


def by_typicality(ground: Ground, count: int) -> list[int]:
    """The most typical ones, alike or not."""
    order = distances(ground.points).sum(0).argsort()
    return [int(index) for index in order if index not in ground.known][:count]


def by_clusters(ground: Ground, count: int) -> list[int]:
    """The most typical image of each of the largest clusters that have none yet (TypiClust, arXiv 2202.02794)."""
    from sklearn.cluster import KMeans

    scaled = standard(ground.points)
    clusters = KMeans(count + len(ground.known), n_init=3, random_state=0).fit_predict(scaled)
    apart, found = distances(ground.points), []
    free = [
        name for name in set(clusters.tolist()) if not np.isin(np.flatnonzero(clusters == name), ground.known).any()
    ]
    for name in sorted(free, key=lambda name: -np.count_nonzero(clusters == name))[:count]:
        (inside,) = np.nonzero(clusters == name)
        near = np.sort(apart[np.ix_(inside, inside)], 1)[:, 1:21]
        found.append(int(inside[near.mean(1).argmin()] if len(inside) > 1 else inside[0]))
    return found


def by_doubt(number: int, weighs: bool) -> Callable[[Ground, int], list[int]]:
    """The most doubtful ones, or coverage in which each image counts by its doubt."""

    def choose(ground: Ground, count: int) -> list[int]:
        doubt = ground.doubts()[number]
        if not weighs:
            return [int(index) for index in (-doubt).argsort() if index not in ground.known][:count]
        apart, chosen = distances(ground.points), list(ground.known)
        while len(chosen) < count + len(ground.known):
            cost = (np.minimum(apart[:, chosen].min(1)[:, None], apart) * doubt[:, None]).sum(0)
            cost[chosen] = np.inf
            chosen.append(int(cost.argmin()))
        return chosen[len(ground.known) :]

    return choose


def standard(points: Array) -> Array:
    """Points (n, channels) with channels that count alike."""
    spread = points.std(0)
    return (points - points.mean(0)) / np.where(spread > 0, spread, 1)


def distances(points: Array) -> Array:
    """(n, n) between points whose channels count alike."""
    scaled = standard(points)
    return cdist(scaled, scaled)


FIRST = {
    "coverage": by_coverage,
    "the farthest": by_distance,
    "the most typical": by_typicality,
    "typical of clusters": by_clusters,
}
LATER = FIRST | {
    "disagreement": by_doubt(0, False),
    "entropy": by_doubt(1, False),
    "coverage of disagreement": by_doubt(0, True),
    "coverage of entropy": by_doubt(1, True),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="images are compared by its activations")
    parser.add_argument("--learn", type=Path, help="cache that is fitted on; --cache by default")
    parser.add_argument("--judge", choices=("linear", "trees"), default="linear")
    parser.add_argument("--begin", type=int, default=0, help="of the five, at random")
    parser.add_argument("--ways", nargs="+", help="all by default")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--chance", type=int, default=5, help="sets at random of each draw")
    parser.add_argument("--on", choices=("held", "test"), default="held")
    parser.add_argument("--stride", type=int, default=4)
    options = parser.parse_args()
    begun, learn = time.process_time(), options.learn or options.cache
    images = read(options.cache, learn, min(FeatureCache.open(learn).steps), options.stride)
    kind: Any = {"linear": Linear, "trees": Trees}[options.judge]
    judges = [kind(images, seed) for seed in range(MEMBERS if options.begin else 1)]
    train, val, test = (np.flatnonzero(images.splits == name) for name in ("train", "val", "test"))
    ways = LATER if options.begin else FIRST
    ways = {name: ways[name] for name in options.ways or ways}
    found: dict[str, list[Array]] = {name: [] for name in ["chance", *ways]}
    single = []
    for draw in range(options.draws):
        draws = np.random.default_rng(draw)
        pool = np.sort(draws.permutation(train)[: round(0.75 * len(train))])
        scored = test if options.on == "test" else np.concatenate([np.setdiff1d(train, pool), val])
        known = [int(index) for index in draws.permutation(len(pool))[: options.begin]]

        def doubts(pool: Array = pool, known: list[int] = known) -> tuple[Array, Array]:
            said = np.stack([judge(pool[known], pool) for judge in judges])  # (members, images, pixels)
            both = np.stack([1 - said, said], 1).clip(1e-6, 1 - 1e-6)
            return jensen_shannon(both).mean(1), entropy(both.mean(0)).mean(1)

        def score(chosen: list[int], pool: Array = pool, known: list[int] = known, scored: Array = scored) -> Array:
            values: Array = dice(judges[0](pool[known + chosen], scored) > 0.5, images.truth[scored])
            return values

        ground = Ground(images.points[pool], known, doubts, draws)
        chance = [score(by_chance(ground, FIVE - options.begin)) for _ in range(options.chance)]
        single.append([one.mean() for one in chance])
        found["chance"].append(np.mean(chance, axis=0))
        for name, way in ways.items():
            found[name].append(score(way(ground, FIVE - options.begin)))
    lines = []
    for name, values in found.items():
        means = np.array(single).ravel() if name == "chance" else np.array([one.mean() for one in values])
        # Of the sets by chance the worst is that of as many as the others have, on average.
        worst = np.min(single, 0).mean() if name == "chance" else means.min()
        gains = [one - base for one, base in zip(values, found["chance"], strict=True)]
        own = [one.mean() for one in gains]
        if options.on == "test":
            trust = nested_bootstrap([one[None] for one in gains], groups=images.groups[test].tolist())
            said = f"{trust.mean:+.2f} [{trust.low:+.2f}, {trust.high:+.2f}]"
        else:
            said = f"{np.mean(own):+.2f} ± {np.std(own) / np.sqrt(len(own)):.2f}"
        row = (name, f"{means.mean():.2f}", "" if name == "chance" else said)
        lines.append((*row, f"{means.std():.1f}", f"{np.quantile(means, 0.05):.1f}", f"{worst:.1f}"))
    header = ("way", "Dice %", "less chance", "deviation of the draws", "worst in 20", f"worst of {options.draws}")
    print(markdown_table(header, lines, "lrrrrr"))
    print(f"\n{options}, {time.process_time() - begun:.0f} s of a processor")


if __name__ == "__main__":
    main()
