"""A data set scored without a cache of it: what a cache would hold of an image is made when it is asked for."""

__all__ = ["StreamedImages"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Self

import numpy as np
import torch

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.images.directions import directions_of
from textdiff.options.extract import Extract
from textdiff.options.option import AnyPath
from textdiff.pipeline.extraction.config import ExtractConfig, resolve, tiling
from textdiff.pipeline.extraction.prepare import Prepared, preparation
from textdiff.pipeline.extraction.sample_table import mask_kind, read_samples, sample_table
from textdiff.pipeline.prediction.preprocessing import Preprocessor
from textdiff.pipeline.runs import Run
from textdiff.readers.datasets import read_dataset

_PLACES = ("data", "annotations", "backbone", "text_encoder", "direction_words")


class StreamedImages(FeatureCache):
    """The cache that ``extract`` would make of a data set for a run, of which nothing is on the disk.

    Images and masks are read, cut, turned and resized by the functions that ``extract`` uses, in one thread. There are
    no features to be asked for: ``items`` runs the backbone on one image after the other, all its steps as one batch,
    and rounds its activations as the run's cache does.
    """

    @classmethod
    def of(cls, run: Run, data: AnyPath) -> Self:
        """Reads and checks the data set at ``data``, laid out as the one that the run's cache was made of.

        Raises:
            UserError: it cannot be read, its masks hold other classes, or an image that the run was fitted on is of
                another split there; the run does not say how its data set was read.
        """
        made, about = run.config["fingerprint"], run.config["about"]
        if not isinstance(given := about.get("options"), Mapping) or "dataset" not in given:
            raise UserError(f"--data {data}: {run.path} does not say how its data set was read; score it by its cache")
        options = {name: value for name, value in given.items() if name not in _PLACES}
        options |= {"data": data, "cache": data, "backbone": about["backbone"], "text_encoder": about["text_encoder"]}
        config = _without_needless_draws(resolve(Extract(**options)))
        inspected = read_samples(config)
        kind = mask_kind(inspected)
        here, there = (tuple(fingerprint.get("classes", ())) for fingerprint in (kind, made))
        if here != there:
            names = ", not ".join(", ".join(classes) or "foreground alone" for classes in (here, there))
            raise UserError(
                f"--data {data}: its masks hold other classes than those that {run.path} was fitted on: {names}"
            )
        words = directions_of(about)
        rows, texts = sample_table(
            inspected, config.views, config.test_views, tiling(config), config.tissue, config.annotated_only, words
        )
        images = cls.plan(
            data,
            fingerprint={name: value for name, value in made.items() if name != "instances"} | kind,
            rows=rows,
            blocks=dict.fromkeys(made["blocks"], (1, 1, 1)),  # nothing is stored, so no size counts
            steps=made["steps"],
            image_size=made["image_size"],
            texts=texts,
            about=about,
        )
        samples = {fact.sample.id: fact for fact in inspected}
        images._prepared = lru_cache(1)(preparation(images, samples, made["resize"], made.get("jitter"), config.seed))
        run.check_images(images)
        return images

    _prepared: Callable[[int], Prepared]
    """Makes a row ready: images and masks at the size of the cache, and the truth at their own."""

    def items(self, run: Run, rows: Sequence[int], device: torch.device, backbone: AnyPath | None) -> Iterator[Item]:
        """What the run's network reads of rows, as a ``Loader`` would give it of its cache, one at a time.

        Args:
            run: the one that the images are of.
            rows: in the order in which they are wanted.
            device: where to compute.
            backbone: another place of the run's backbone.

        Raises:
            UserError: at once, the backbone or the text encoder is missing or is another one.
        """
        preprocess = Preprocessor(run, device, None if backbone is None else str(backbone))
        texts = run.texts(self)

        def made() -> Iterator[Item]:
            for row in rows:
                ready = self._prepared(row)
                item = preprocess(ready.image, ready.text, self.texts[self.rows[texts[row]].text])
                yield replace(item, row=row, sentence=self.sentence(texts[row]), view=self.rows[row].view)

        return made()

    def done(self) -> np.ndarray:
        """Every row can be made."""
        return np.ones(len(self.rows), np.bool_)

    def image(self, row: int) -> np.ndarray:
        """As of a cache."""
        return self._prepared(row).image

    def mask(self, row: int) -> np.ndarray | None:
        """As of a cache."""
        return self._prepared(row).mask

    def truth(self, row: int) -> np.ndarray | None:
        """As of a cache."""
        return self._prepared(row).truth

    def instances(self, row: int) -> np.ndarray | None:
        """As of a cache."""
        return self._prepared(row).instances


def _without_needless_draws(config: ExtractConfig) -> ExtractConfig:
    """The options with which to read a data set: where it has splits of its own, none are drawn as the run's were."""
    if not config.draws:
        return config
    plain = replace(config, val=None, test=None)
    samples, _ = read_dataset(config.dataset, config.data, plain)
    return plain if any(sample.split != "train" for sample in samples) else config
