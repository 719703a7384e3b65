"""Scores image by image of several runs, side by side in one pass over the cache."""

__all__ = ["SCHEMA", "evaluate"]

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import tee

import torch

from textdiff import console
from textdiff.cache import FeatureCache, Item, Loader
from textdiff.files import write_json
from textdiff.pipeline.evaluation.class_scores import Scores
from textdiff.pipeline.evaluation.image_predictions import ImagePrediction, image_predictions, truth_scores
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.mixture import open_fitted
from textdiff.pipeline.predictions import FittedNetwork, Predicted, cached_predictions, predictions, view_count
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.image_digests import image_digests

SCHEMA = 3


def evaluate(
    runs: Sequence[Run], cache: FeatureCache, device: torch.device, split: str, loader: Loader | None = None
) -> None:
    """Writes ``images-<split>.json`` into each run directory: Dice and IoU of every image, as ``score`` computes them.

    It says over how many ``views`` each prediction is the mean, whose the images are (``groups``), and what they were
    (``facts``: see ``image_digests``).

    Args:
        runs: finished ones, on this cache.
        cache: where the images come from; each is read once for all runs.
        device: to compute on.
        split: ``train``, ``val`` or ``test``.
        loader: a reader of all that the runs' networks read; by default the first network's own.

    Raises:
        UserError: a run is not finished, or the split has no annotated rows.
    """
    rows = scored_rows(cache, split)
    if runs[0].combined:  # one after the other: each of its runs reads what is its own
        for run in runs:
            with closing(cached_predictions(open_fitted(run, device), cache, rows, "score")) as said:
                images = image_predictions(cache, said)
                _write(run, cache, split, rows, [truth_scores(image, cache) for image in images])
        return
    networks, texts = [FittedNetwork(run, device) for run in runs], [run.texts(cache) for run in runs]
    loader = loader or networks[0].network.loader(cache, device)
    scores: list[list[Scores]] = [[] for _ in runs]
    ids = list(dict.fromkeys(cache.rows[row].id for row in rows))

    asked = any(fitted.network.blank_below is not None for fitted in networks)

    def with_image(item: Item) -> Item:
        """Blank rows are told by their images, which a reader that training shares does not read."""
        if not asked or item.image is not None:
            return item
        image = torch.from_numpy(cache.image(item.row)).to(device)  # where the loader has all else of an item
        return replace(item, image=image.permute(2, 0, 1)[None])

    def by_each(item: Item) -> list[Predicted]:
        """What every run says of a row; of ensembles the mean alone, since some of it waits."""
        found: list[Predicted] = []
        for fitted, given in zip(networks, texts, strict=True):
            own = loader.narrowed(item, given[item.row], fitted.network.blocks, fitted.network.times)
            found += predictions(fitted, [own])
        return found

    def of_run(number: int, rows: Iterator[list[Predicted]]) -> Iterator[ImagePrediction]:
        return image_predictions(cache, (predicted[number] for predicted in rows))

    views = view_count(cache, rows)
    # Rows in many views would take the place of those that are trained on.
    reading = closing(loader.epoch(rows, keep=views == 1))
    with console.Progress(len(ids), "score", "images") as progress, reading as items:
        # All runs look at a row while it is there: what waits for the other rows of its image is small.
        by_row = map(by_each, map(with_image, items))
        by_run = [of_run(number, own) for number, own in enumerate(tee(by_row, len(runs)))]
        for predicted in zip(*by_run, strict=True):
            for image, found in zip(predicted, scores, strict=True):
                found.append(truth_scores(image, cache))
            progress.advance()
    for run, found in zip(runs, scores, strict=True):
        _write(run, cache, split, rows, found)


def _write(run: Run, cache: FeatureCache, split: str, rows: Sequence[int], scores: Sequence[Scores]) -> None:
    groups = {cache.rows[row].id: cache.rows[row].group for row in rows}
    ids = list(groups)
    record = {
        "schema": SCHEMA,
        "split": split,
        "classes": cache.classes,
        "views": view_count(cache, rows),
        "ids": ids,
        "groups": list(groups.values()),
        "facts": image_digests(cache, ids, run.texts(cache)),
        "scores": {name: [of_image[name] for of_image in scores] for name in scores[0]},
    }
    write_json(run.path / f"images-{split}.json", record)
