"""Boosted trees on single pixels' activations: with the backbone ``filters``, what a lab has without any network."""

__all__ = ["ARRAYS", "Trees"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.images.labels import UNSAID
from textdiff.models.arguments import arguments
from textdiff.models.networks.pixels import Pixels, all_pixels
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Criterion, Reads, Segmenter, selected_levels
from textdiff.options.fit import FitConfig

MOST_VALUES = 1 << 29
"""Activations that are trained on at most, 2 GB of them: of more pixels a part is drawn."""
ARRAYS = {
    "feature": torch.int64,
    "threshold": torch.float64,
    "left": torch.int64,
    "right": torch.int64,
    "value": torch.float64,
    "leaf": torch.bool,
    "roots": torch.int64,
    "baseline": torch.float64,
    "labels": torch.int64,
}


class Trees(Segmenter):
    """Gradient boosting with histograms (LightGBM, Ke et al., NeurIPS 2017), as scikit-learn has it.

    Fitted by ``sklearn.ensemble.HistGradientBoostingClassifier`` with its defaults, on all pixels of the training
    images; kept as plain arrays, so that using it needs no scikit-learn and loading it runs no code.

    Args:
        classes: background included.
        image_size: height and width of the scores.
        iterations: rounds of boosting, each of one tree a class (one in all for two classes).
        blocks, times: which of a cache's blocks and steps; all by default.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    leaf: Tensor
    roots: Tensor
    baseline: Tensor
    labels: Tensor

    title = "boosted trees"
    reads = Reads(activations=True)
    pixelwise = True
    recipes: ClassVar = {
        "default": Recipe(0.1, "step", 1, batch_size=1, epochs=1, select="last", loss="cross-entropy"),
    }

    def __init__(
        self,
        classes: int = 2,
        image_size: int = 256,
        iterations: int = 100,
        blocks: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        self.blocks, self.times = blocks, times
        for name, dtype in ARRAYS.items():
            self.register_buffer(name, torch.zeros((0,) if name not in ("roots", "baseline") else (0, 0), dtype=dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves as any network does, but stays on the CPU where the device has no float64, which thresholds need."""
        if fn(torch.empty(0)).device.type == "mps":
            return self
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    @classmethod
    def build(cls, cache: FeatureCache, options: FitConfig, recipe: Recipe) -> "Trees":
        """The trees for some or all of a cache's blocks and steps."""
        if options.variant != "full" or options.width is not None:
            raise UserError(f"--variant, --width: {cls.title} have neither; leave them out")
        try:
            import sklearn  # noqa: F401
        except ImportError as error:
            raise UserError("--model trees: needs scikit-learn; pip install 'textdiff[trees]'") from error
        selected_levels(cache, options)
        return cls(len(cache.classes) + 1, cache.image_size, blocks=options.blocks, times=options.steps)

    @property
    def trained(self) -> bool:  # type: ignore[override]
        """Trees are fitted in one go."""
        return len(self.leaf) > 0

    def learn(self, items: Iterable[Item], seed: int, rate: float, criterion: Criterion) -> Tensor:
        """Fits the trees to the labelled pixels of all items, and returns their loss there."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        images, labels = [], []
        for item in items:
            assert item.mask is not None
            images.append(Pixels([level.cpu() for level in item.features], self.config["image_size"]))
            labels.append(item.mask.flatten().cpu())
        truth = torch.cat(labels)
        each = len(images[0])
        said = (truth != UNSAID).nonzero()[:, 0]
        chosen = said[self.drawn(len(said), images[0][torch.zeros(1, dtype=torch.int64)].shape[1], seed)]
        pixels = torch.cat([image[chosen[chosen // each == i] % each] for i, image in enumerate(images)]).numpy()
        truth = truth[chosen]
        model = HistGradientBoostingClassifier(
            learning_rate=rate, max_iter=self.config["iterations"], early_stopping=False, random_state=seed
        )
        if len(there := torch.unique(truth)) < 2:
            raise UserError(f"--model trees: all training pixels are of class {there.item()}; label others too")
        device = self.device
        model.fit(pixels, truth.numpy())
        self._take(model)
        scores = self._scores(torch.from_numpy(pixels), self.feature)
        # These arrays are scikit-learn's own affair; should it change them, nothing wrong must come of it.
        probe = model.predict_proba(pixels[:: max(1, len(pixels) // 100)])
        ours = scores[:: max(1, len(pixels) // 100), self.labels].softmax(1)
        if not np.allclose(ours.numpy(), probe, rtol=0, atol=1e-9):
            raise UserError("--model trees: this release of scikit-learn keeps trees otherwise; install 1.9")
        self.to(device)
        return criterion(scores.float(), truth)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Makes room for as many nodes as the trees have."""
        for name in ARRAYS:
            if isinstance(stored := state_dict.get(prefix + name), Tensor):
                setattr(self, name, torch.empty_like(stored))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def drawn(self, count: int, channels: int, seed: int) -> Tensor:
        """The pixels that are trained on, in ascending order: all, or as many as memory is meant to hold."""
        if count * channels <= MOST_VALUES:
            return torch.arange(count)
        drawn = np.random.default_rng([seed, 0x7E3]).choice(count, MOST_VALUES // channels, replace=False)
        return torch.from_numpy(np.sort(drawn))

    def _take(self, model: Any) -> None:
        """Copies the trees of a fitted classifier."""
        predictors = model._predictors
        nodes = [tree.nodes for trees in predictors for tree in trees]
        starts = np.cumsum([0, *map(len, nodes)])[:-1]
        joined = np.concatenate(nodes)
        shift = np.repeat(starts, list(map(len, nodes)))
        arrays = {
            "feature": joined["feature_idx"],
            "threshold": joined["num_threshold"],
            "left": joined["left"] + shift,
            "right": joined["right"] + shift,
            "value": joined["value"],
            "leaf": joined["is_leaf"] != 0,
            "roots": starts.reshape(len(predictors), -1),
            "baseline": np.asarray(model._baseline_prediction).reshape(1, -1),
            "labels": model.classes_,
        }
        for name, dtype in ARRAYS.items():
            setattr(self, name, torch.from_numpy(np.ascontiguousarray(arrays[name])).to(dtype))

    def _scores(self, pixels: Tensor, feature: Tensor) -> Tensor:
        """Scores before the softmax, (n, classes) float64, of pixels (n, channels), given each node's channel."""
        raw = self.baseline.expand(len(pixels), -1).clone()
        at_pixel = torch.arange(len(pixels), device=pixels.device)
        for round_ in self.roots:
            for column, root in enumerate(round_):
                node = root.expand(len(pixels)).clone()
                while not (leaf := self.leaf[node]).all():
                    goes_left = pixels[at_pixel, feature[node]] <= self.threshold[node]
                    node = torch.where(leaf, node, torch.where(goes_left, self.left[node], self.right[node]))
                raw[:, column] += self.value[node]
        if raw.shape[1] == 1:
            raw = torch.cat([torch.zeros_like(raw), raw], 1)
        scores = raw.new_full((len(raw), self.config["classes"]), -100.0)
        scores[:, self.labels] = raw
        return scores

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Scores before the softmax, (B, classes, S, S) float32, from levels (B, steps x C, h, w) on any device."""
        size = self.config["image_size"]
        # Of thousands of channels trees ask for a few hundred: only these are brought to the scores' size.
        used, feature = torch.unique(self.feature, return_inverse=True)
        places = used.split([int(((used >= first) & (used < end)).sum()) for first, end in _channels(levels)])
        asked = [
            level.to(used.device)[:, place - first]
            for level, place, (first, _) in zip(levels, places, _channels(levels), strict=True)
            if len(place)
        ]
        images = (all_pixels([level[i : i + 1] for level in asked], size) for i in range(len(asked[0])))
        found = [self._scores(pixels, feature) for pixels in images]
        return torch.stack(found).float().mT.reshape(len(found), -1, size, size)


def _channels(levels: Sequence[Tensor]) -> list[tuple[int, int]]:
    """The first channel of each level, and the one after its last, of those of all levels in a row."""
    return list(pairwise(accumulate((level.shape[1] for level in levels), initial=0)))
