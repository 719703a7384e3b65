"""Scores image by image of several runs, side by side in one pass over the cache."""

__all__ = ["SCHEMA", "evaluate"]

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff import console
from textdiff.cache import FeatureCache, Item, Loader
from textdiff.files import write_json
from textdiff.models.networks.variants import assign_texts
from textdiff.pipeline.evaluation.truths import truth_scores
from textdiff.pipeline.predict import predict_row
from textdiff.pipeline.prediction.views import view_count
from textdiff.pipeline.prediction.whole import Whole, whole_images
from textdiff.pipeline.runs import Run
from textdiff.pipeline.score import scored_rows
from textdiff.pipeline.training.fitted import image_facts

SCHEMA = 2


def evaluate(
    runs: Sequence[Run], cache: FeatureCache, device: torch.device, split: str, loader: Loader | None = None
) -> None:
    """Writes ``images-<split>.json`` into each run directory: Dice and IoU of every image, as ``score`` computes them.

    It says over how many ``views`` each prediction is the mean, and what the images were (``facts``: see
    ``image_facts``).

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
    networks = [run.load_network().to(device) for run in runs]
    options = [run.config["fit"] for run in runs]
    texts = [
        assign_texts(cache, option["variant"], option["draw_seed"], run.config["train_ids"])
        for run, option in zip(runs, options, strict=True)
    ]
    loader = loader or networks[0].loader(cache, device)
    scores: list[dict[str, list[float | None]]] = [{} for _ in runs]
    ids = list(dict.fromkeys(cache.rows[row].id for row in rows))

    asked = any(network.blank_below is not None for network in networks)

    def with_image(item: Item) -> Item:
        """Blank rows are told by their images, which a reader that training shares does not read."""
        if not asked or item.image is not None:
            return item
        return replace(item, image=torch.from_numpy(cache.image(item.row)).permute(2, 0, 1)[None])

    def predicted_by(number: int, item: Item) -> NDArray[np.float32]:
        network = networks[number]
        precision = options[number]["precision"] if device.type == "cuda" else "float32"
        own = loader.narrowed(item, texts[number][item.row], network.blocks, network.times)
        return predict_row(network, own, precision)

    def of_run(number: int, rows: Iterator[tuple[int, list[NDArray[np.float32]]]]) -> Iterator[Whole]:
        return whole_images(cache, ((row, probabilities[number]) for row, probabilities in rows))

    views = view_count(cache, rows)
    # Rows in many views would take the place of those that are trained on.
    reading = closing(loader.epoch(rows, keep=views == 1))
    with console.Progress(len(ids), "score", "images") as progress, reading as items:
        # All runs look at a row while it is there: what waits for the other rows of its image is small.
        predicted = (
            (item.row, [predicted_by(number, item) for number in range(len(runs))]) for item in map(with_image, items)
        )
        by_run = [of_run(number, own) for number, own in enumerate(tee(predicted, len(runs)))]
        for image in zip(*by_run, strict=True):
            for whole, found in zip(image, scores, strict=True):
                for name, value in truth_scores(whole, cache.classes).items():
                    found.setdefault(name, []).append(value)
            progress.advance()
    for run, found, given in zip(runs, scores, texts, strict=True):
        record = {
            "schema": SCHEMA,
            "split": split,
            "classes": cache.classes,
            "views": views,
            "ids": ids,
            "facts": image_facts(cache, ids, given),
            "scores": found,
        }
        write_json(run.path / f"images-{split}.json", record)
