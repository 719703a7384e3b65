"""The images without labels that a fit sees beside the labelled ones, whatever it learns from them."""

__all__ = ["Unlabelled", "unlabelled_record", "unlabelled_tiles"]

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.images.labels import UNSAID
from textdiff.options.fit import MEAN_TEACHER, Learned
from textdiff.pipeline.runs import TEACHER, Run
from textdiff.pipeline.training import mean_teacher
from textdiff.pipeline.training.epochs import order_of, rows_by_tile
from textdiff.pipeline.training.image_digests import image_digests, without_masks

WEIGHT = "1 - entropy / log(classes)"
"""How much a soft label counts, by how sure it is: from 0 for one that favours no class to 1 for a certain one."""
_PICK = 0x9CC


def unlabelled_record(
    cache: FeatureCache, train_ids: Collection[str], how: Learned, texts: Mapping[int, int]
) -> dict[str, Any]:
    """What ``config.json`` says of images without labels: what is made of them, and which they are.

    These are all training images but ``train_ids``, with a mask or without; no mask of them is looked at.

    Args:
        cache: where the images are.
        train_ids: those whose labels are drawn.
        how: rounds of self-training, fits that follow the first; or ``MEAN_TEACHER``.
        texts: for every row the row whose text it is given.

    Raises:
        UserError: there is none, or one has rows to do.
    """
    ids = sorted({entry.id for entry in cache.rows if entry.split == "train"}.difference(train_ids))
    if not ids:
        raise UserError(
            f"--unlabelled {how}: every training image of {cache.path} has its labels drawn; draw fewer with "
            "--labels, or extract images without masks too"
        )
    cache.check_done([row for row, entry in enumerate(cache.rows) if entry.id in ids], "training images")
    images = without_masks(image_digests(cache, ids, texts))
    own: dict[str, Any] = {"rounds": how, "weight": WEIGHT, "teacher": TEACHER}
    if how == MEAN_TEACHER:
        own = {"mean_teacher": {name.lower(): getattr(mean_teacher, name) for name in ("WEIGHT", "RAMP")}}
    return own | {"count": len(ids), "images": images}


class Unlabelled:
    """The images without labels, of which nothing is said, as many in each step as labelled ones.

    Args:
        run: one that learns from them.
        cache: of the images.
    """

    use: ClassVar[str] = "on which the network learns to agree with its running average"
    """What becomes of the images, in words."""

    def __init__(self, run: Run, cache: FeatureCache) -> None:
        self.options: dict[str, Any] = run.config["fit"]
        self.cache, self.tiles = cache, unlabelled_tiles(run, cache)
        self.number = {row: number for number, tile in enumerate(self.tiles) for row in tile}

    def in_epoch(self, labelled: int) -> int:
        """How many tiles an epoch shows beside ``labelled`` ones."""
        return labelled

    def picked(self, labelled: int, epoch: int) -> list[list[int]]:
        """The tiles of an epoch, each with the rows of its views; drawn from (seed, epoch) alone."""
        generator = np.random.default_rng([self.options["seed"], _PICK, epoch])
        count = self.in_epoch(labelled)
        return [self.tiles[i] for i in generator.choice(len(self.tiles), count, replace=count > len(self.tiles))]

    def order(self, labelled: list[list[int]], views: slice, seed: int, epoch: int) -> list[int]:
        """The rows of an epoch: for each step as many labelled ones as its batches have, then as many of the others."""
        size = self.options["batch_size"]
        picked = [tile[views] for tile in self.picked(len(labelled), epoch)]
        own, more = order_of(labelled, seed, epoch), order_of(picked, seed, epoch)
        steps = range(0, len(own), size)
        return [row for start in steps for rows in (own, more) for row in rows[start : start + size]]

    def shown(self, items: Iterable[Item], epoch: int) -> Iterator[Item]:
        """The items with labels for those without, and the others as they are; a mask there is not looked at."""
        for item in items:
            if item.row not in self.number:
                yield item
                continue
            labels = torch.from_numpy(self.labels(item.row, epoch))[None]
            device = next(read.device for read in (*item.features, item.image) if read is not None)
            yield replace(item, mask=labels.to(device))

    def labels(self, row: int, epoch: int) -> NDArray[np.int64]:
        """The class numbers (S, S) of a row in an epoch, ``UNSAID`` where nothing is said: everywhere."""
        return np.full((self.cache.image_size, self.cache.image_size), UNSAID, np.int64)


def unlabelled_tiles(run: Run, cache: FeatureCache) -> list[list[int]]:
    """For each tile of the images without labels the rows of its views."""
    rows = rows_by_tile(cache)
    return [tile for name in run.config["unlabelled"]["images"] for tile in rows[name]]
