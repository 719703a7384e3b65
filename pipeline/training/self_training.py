"""Self-training: labels, drawn from the predictions of an earlier fit, for the training images that have none."""

__all__ = ["WEIGHT", "SoftLabels", "forget_soft_labels", "soft_labels", "unlabelled_record"]

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError, quoted
from textdiff.files import atomic_path, check_free_space
from textdiff.images.images import SYMMETRIES, symmetry
from textdiff.images.labels import UNSAID
from textdiff.metrics.pixels import entropy
from textdiff.pipeline.predictions import FittedNetwork, cached_predictions, mean_of_rows
from textdiff.pipeline.runs import TEACHER, Run
from textdiff.pipeline.training.epochs import rows_by_tile
from textdiff.pipeline.training.image_digests import image_digests, without_masks

WEIGHT = "1 - entropy / log(classes)"
"""How much a soft label counts, by how sure it is: from 0 for one that favours no class to 1 for a certain one."""
_FILE = "soft-labels.npy"
_DRAW, _PICK = 0x50F7, 0x9CC


def unlabelled_record(
    cache: FeatureCache, train_ids: Collection[str], rounds: int, texts: Mapping[int, int]
) -> dict[str, Any]:
    """What ``config.json`` says of self-training: the rounds, the weight, and which images were without labels.

    These are all training images but ``train_ids``, with a mask or without; no mask of them is looked at.

    Args:
        cache: where the images are.
        train_ids: those whose labels are drawn.
        rounds: fits that follow the first.
        texts: for every row the row whose text it is given.

    Raises:
        UserError: there is none, or one has rows to do.
    """
    ids = sorted({entry.id for entry in cache.rows if entry.split == "train"}.difference(train_ids))
    if not ids:
        raise UserError(
            f"--unlabelled {rounds}: every training image of {cache.path} has its labels drawn; draw fewer with "
            "--labels, or extract images without masks too"
        )
    cache.check_done([row for row, entry in enumerate(cache.rows) if entry.id in ids], "training images")
    images = without_masks(image_digests(cache, ids, texts))
    return {"rounds": rounds, "count": len(ids), "weight": WEIGHT, "teacher": TEACHER, "images": images}


class SoftLabels:
    """The labels that a run draws for its images without any, anew in each epoch.

    A pixel of which the teacher's probabilities are p, and their weight w = 1 - H(p) / log(classes) (Iscen et al., CVPR
    2019, https://arxiv.org/abs/1904.04717, equation 11), is of class c with probability w p_c, and with 1 - w nothing
    is said of it. So the cross-entropy is, in expectation, that with soft targets p and weight w, whatever is trained:
    trees, single pixels, windows or whole images, by any loss. Labels drawn from the posterior are those of stochastic
    EM (Celeux and Diebolt, 1985); that the fit begins anew, on labels and soft labels together, is Noisy Student's
    (Xie et al., CVPR 2020, https://arxiv.org/abs/1911.04252, algorithm 1).

    Args:
        run: one with a ``teacher`` that is finished.
        cache: of the images.
        mass: w p of each tile, (tiles, classes, S, S); a file may be mapped.
    """

    def __init__(self, run: Run, cache: FeatureCache, mass: NDArray[np.float16]) -> None:
        self._options, self.mass, self._cache = run.config["fit"], mass, cache
        self.tiles = _tiles(run, cache)
        self._number = {row: number for number, tile in enumerate(self.tiles) for row in tile}

    def in_epoch(self, labelled: int) -> int:
        """How many tiles an epoch shows beside ``labelled`` ones: as many, or more if the epochs would not show all."""
        epochs: int = self._options["epochs"]
        return min(len(self.tiles), max(labelled, math.ceil(len(self.tiles) / epochs)))

    def picked(self, labelled: int, epoch: int) -> list[list[int]]:
        """The tiles of an epoch, each with the rows of its views; drawn from (seed, epoch) alone."""
        generator = np.random.default_rng([self._options["seed"], _PICK, epoch])
        count = self.in_epoch(labelled)
        return [self.tiles[i] for i in generator.choice(len(self.tiles), count, replace=False)]

    def shown(self, items: Iterable[Item], epoch: int) -> Iterator[Item]:
        """The items with labels drawn for those without, and the others as they are; a mask there is not looked at."""
        for item in items:
            if item.row not in self._number:
                yield item
                continue
            labels = torch.from_numpy(self.drawn(item.row, epoch))[None]
            device = next(read.device for read in (*item.features, item.image) if read is not None)
            yield replace(item, mask=labels.to(device))

    def drawn(self, row: int, epoch: int) -> NDArray[np.int64]:
        """The class numbers (S, S) of a row in an epoch, ``UNSAID`` where nothing is said."""
        number = self._number[row]
        classes, *shape = self.mass.shape[1:]
        generator = np.random.default_rng([self._options["seed"], _DRAW, epoch, number])
        below = np.cumsum(self.mass[number], 0, dtype=np.float32)
        labels = (generator.random(shape, np.float32) >= below).sum(0)
        labels[labels == classes] = UNSAID
        return symmetry(labels, self._cache.rows[row].view % SYMMETRIES)


def soft_labels(run: Run, cache: FeatureCache, device: torch.device) -> SoftLabels | None:
    """The labels that a run draws; None without self-training.

    What the teacher says is kept beside it until the run is finished, for all members of an ensemble, so that a fit
    that goes on elsewhere has the same labels.

    Raises:
        UserError: the teacher is not finished, or the disk is full.
    """
    if (teacher := run.teacher) is None:
        return None
    file, tiles = teacher.path / _FILE, _tiles(run, cache)
    shape = (len(tiles), len(cache.classes) + 1, cache.image_size, cache.image_size)
    if not file.exists():
        _predict(run, teacher, cache, device, file, shape)
    mass = np.load(file, mmap_mode="r")
    if mass.shape != shape:
        again = f"`textdiff fit --resume --run {quoted(run.path)}`"
        raise UserError(f"{file}: not of this run; remove it, and {again} makes it")
    return SoftLabels(run, cache, mass)


def forget_soft_labels(run: Run) -> None:
    """Removes what :func:`soft_labels` kept, once a run is finished."""
    if run.teacher is not None:
        with suppress(PermissionError):  # of Windows, as long as it is mapped
            (run.teacher.path / _FILE).unlink(missing_ok=True)


def _tiles(run: Run, cache: FeatureCache) -> list[list[int]]:
    rows = rows_by_tile(cache)
    return [tile for name in run.config["unlabelled"]["images"] for tile in rows[name]]


def _predict(
    run: Run, teacher: Run, cache: FeatureCache, device: torch.device, file: Path, shape: tuple[int, ...]
) -> None:
    """Writes w p of every tile, from the mean over its views and the teacher's members, in one step."""
    check_free_space(file, 2 * math.prod(shape), "the soft labels need", "free some")
    fitted, rows = FittedNetwork(teacher, device), [row for tile in _tiles(run, cache) for row in tile]
    # In the texts of this run: of a control the images without labels must not keep their own.
    source = fitted.network.loader(cache, device).epoch(rows, run.texts(cache), keep=False)
    with atomic_path(file) as partial:
        mass = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        found = mean_of_rows(cache, cached_predictions(fitted, cache, rows, "soft labels", source=source))
        for number, (_, p) in enumerate(found):
            mass[number] = (1 - entropy(p) / math.log(len(p))).clip(0, 1) * p
        mass.flush()
        del mass
