"""Figure 2 of the paper: image, text, truth and what several runs make of it, for images chosen by rule."""

__all__ = ["Choice", "WordAttention", "choose", "panel"]

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.panel_figure import PanelRow, Prediction, panel_figure
from textdiff.files import check_ours
from textdiff.images.labels import UNSAID
from textdiff.metrics.pixels import confusion, pooled_dice
from textdiff.options.experiments import Panel
from textdiff.pipeline.evaluation.figures import is_figure
from textdiff.pipeline.evaluation.image_predictions import image_predictions, panels
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.mixture import open_fitted
from textdiff.pipeline.prediction.preprocessing import TextEmbedder
from textdiff.pipeline.predictions import FittedNetwork, attention_of, cached_predictions
from textdiff.pipeline.runs import Run, find_run


class Choice(NamedTuple):
    """An image of the figure and why it is there."""

    image: int
    reason: str


class _Seen(NamedTuple):
    masks: dict[str, NDArray[np.bool_]]
    """By image id: foreground as predicted (H, W)."""
    truths: dict[str, NDArray[np.uint8]]
    """1 for foreground, ``UNSAID`` where nothing is said."""
    dice: dict[str, float]


def panel(options: Panel) -> list[Choice]:
    """Draws the images that the rule picks, a row each, with the errors of every run in colour.

    The runs may be of different models and caches, as long as these hold the same images.

    With ``words`` a column for each shows where the first run's attention goes to it.

    Returns:
        The images chosen, by their place among the split's annotated images.

    Raises:
        UserError: a run that is not finished, runs without a common image, or a file in the place that is no figure of
            ours; or as ``WordAttention``.
    """
    check_ours(options.out, "figure of TextDiff", is_figure)
    runs = [find_run(run, "runs") for run in options.run]
    split, rule, count, device = options.split, options.rule, options.images, options.device
    cache, words = runs[0].open_cache(), list(options.words or ())
    rows = {cache.rows[row].id: row for row in reversed(scored_rows(cache, split))}  # an image's first row
    attention = WordAttention(runs[0], cache, list(rows.values()), words, device) if words else None
    seen = [_predict(run, split, device) for run in runs]
    ids = [name for name in seen[0].dice if all(name in other.dice for other in seen)]
    if not ids:
        raise UserError(f"RUN: no {split} image is in the caches of all of them")
    if count > len(ids):
        console.info(f"--images {count}: there are {len(ids)}, and all are shown")
    chosen = choose(np.array([[found.dice[name] for name in ids] for found in seen]), rule, count)

    titles = _titles(runs)
    shown = [rows[ids[choice.image]] for choice in chosen]
    maps = attention.of(shown) if attention else [[] for _ in chosen]
    for word in attention.missing(shown) if attention else ():
        console.warn(f"--words {word}: in none of the texts of the images shown, so its column is empty")
    drawn = []
    for choice, shares in zip(chosen, maps, strict=True):
        name = ids[choice.image]
        predictions = [
            Prediction(title, found.masks[name], found.truths[name], found.dice[name])
            for title, found in zip(titles, seen, strict=True)
        ]
        picture, text = panels(cache, rows[name])[0], cache.text_of(cache.rows[rows[name]])
        attended = list(zip(words, shares, strict=True))
        drawn.append(PanelRow(f"{name}: {choice.reason}", text, picture, predictions, attended))
    panel_figure(Path(options.out), drawn)
    return chosen


def choose(scores: NDArray[np.float64], rule: str, count: int) -> list[Choice]:
    """The ``count`` images that a rule picks from ``scores`` (runs, images), or all if there are fewer.

    Ties go to the image that comes first.
    """
    total = scores.shape[1]
    count = min(count, total)
    if rule == "disagreement":
        apart = scores.max(axis=0) - scores.min(axis=0)
        order = np.argsort(-apart, kind="stable")[:count]
        return [Choice(int(i), f"the runs are {100 * apart[i]:.1f} points of Dice apart") for i in order]
    order = np.argsort(-scores[0], kind="stable")
    ranks = [0] if count == 1 else [round(k * (total - 1) / (count - 1)) for k in range(count)]
    names = {(total - 1) // 2: "median", total // 2: "median", total - 1: "worst", 0: "best"}
    return [
        Choice(int(order[rank]), f"{names.get(rank, f'rank {rank + 1} of {total}')} of the first run") for rank in ranks
    ]


def _predict(run: Run, split: str, device: str) -> _Seen:
    """What a run makes of every image of a split."""
    fitted, cache, seen = open_fitted(run, device), run.open_cache(), _Seen({}, {}, {})
    what = f"predict with {run.path.name}"
    with closing(cached_predictions(fitted, cache, scored_rows(cache, split), what)) as predicted:
        for image in image_predictions(cache, predicted):
            name = cache.rows[image.row].id
            seen.masks[name] = image.preview > 0
            truth = panels(cache, image.row)[1]
            said = truth != UNSAID
            seen.truths[name] = np.where(said, truth > 0, UNSAID).astype(np.uint8)
            seen.dice[name] = pooled_dice([confusion(seen.masks[name], said & (truth > 0), said)])
    return seen


def _titles(runs: Sequence[Run]) -> list[str]:
    """What stands above a run's column: its label, with the directory's name where two have the same."""
    counts = Counter(run.label for run in runs)
    return [run.label if counts[run.label] == 1 else f"{run.label}\n{run.path.name}" for run in runs]


class WordAttention:
    """How much of every position's attention goes to words, once it is clear that it can be told.

    A position of the image asks (it is the query) and the tokens of the sentence answer, so at each position the shares
    of all tokens add up to 1. A word has those of its pieces, wherever in the sentence it stands; with attention
    that is even over L tokens it would have pieces / L everywhere.

    Args:
        run: a finished one whose network attends to the text.
        cache: of the run.
        rows: of images that are not cut into tiles, of which some may be asked for.
        words: whole words, or several in a row.
        device: where to compute.

    Raises:
        UserError: the network attends to no text, or was given texts of other images; the images are in tiles; none of
            the sentences has a word.
    """

    def __init__(self, run: Run, cache: FeatureCache, rows: Sequence[int], words: Sequence[str], device: str) -> None:
        flag = f"--words {','.join(words)}"
        if run.combined or not run.reads.text:
            what = "combines runs" if run.combined else f"is {run.label} and reads no text"
            raise UserError(f"{flag}: {run.path} {what}; name a run first that attends to the text")
        if any(cache.rows[row].tile for row in rows):
            raise UserError(f"{flag}: {cache.path} is in tiles, each with an attention of its own; use a cache without")
        given = run.texts(cache)
        if any(cache.rows[given[row]].text != cache.rows[row].text for row in rows):
            raise UserError(f"{flag}: {run.path} was given texts of other images; name a run first that had their own")
        self._cache, self._words = cache, words
        self._fitted = FittedNetwork(run, device)
        embedder = TextEmbedder(run, self._fitted.device)
        texts = {cache.text_of(cache.rows[row]) for row in rows}
        self._pieces = {text: [embedder.places(text, word) for word in words] for text in texts}
        for number, word in enumerate(words):
            if not any(pieces[number] for pieces in self._pieces.values()):
                images = len({cache.rows[row].id for row in rows})
                raise UserError(f"--words {word}: in none of the texts of the {images} images; name one that is")
        if not self.of(rows[:1]):
            raise UserError(f"{flag}: {run.path} is {run.label}, which attends to no words; name another run first")

    def of(self, rows: Sequence[int]) -> list[list[NDArray[np.float32] | None]]:
        """For each row and each word its share at every position: (h, w), from 0 to 1; None if the sentence lacks it.

        A network that attends to no words gives nothing.
        """
        shown = []
        with closing(self._fitted.network.loader(self._cache, self._fitted.device).epoch(rows, keep=False)) as items:
            for item in items:
                shares = attention_of(self._fitted.network, item)
                if shares is None:
                    return []
                pieces = self._pieces[self._cache.text_of(self._cache.rows[item.row])]
                shown.append([shares[places].sum(0) if places else None for places in pieces])
        return shown

    def missing(self, rows: Sequence[int]) -> list[str]:
        """The words that no sentence of these rows has."""
        pieces = [self._pieces[self._cache.text_of(self._cache.rows[row])] for row in rows]
        return [word for number, word in enumerate(self._words) if not any(found[number] for found in pieces)]
