"""Self-training: labels, drawn from the predictions of an earlier fit, for the training images that have none."""

__all__ = ["SoftLabels", "forget_soft_labels", "soft_labels"]

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.errors import UserError, quoted
from textdiff.files import atomic_path, check_free_space
from textdiff.images.images import SYMMETRIES, symmetry
from textdiff.images.labels import UNSAID
from textdiff.metrics.pixels import entropy
from textdiff.pipeline.predictions import FittedNetwork, cached_predictions, mean_of_rows
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.epochs import order_of
from textdiff.pipeline.training.unlabelled import Unlabelled, unlabelled_tiles

_FILE = "soft-labels.npy"
_DRAW = 0x50F7


class SoftLabels(Unlabelled):
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

    use = "whose labels are drawn from what the fit before says of them"

    def __init__(self, run: Run, cache: FeatureCache, mass: NDArray[np.float16]) -> None:
        super().__init__(run, cache)
        self.mass = mass

    def in_epoch(self, labelled: int) -> int:
        """How many tiles an epoch shows beside ``labelled`` ones: as many, or more if the epochs would not show all."""
        epochs: int = self.options["epochs"]
        return min(len(self.tiles), max(labelled, math.ceil(len(self.tiles) / epochs)))

    def order(self, labelled: list[list[int]], views: slice, seed: int, epoch: int) -> list[int]:
        """The rows of an epoch: both kinds of images in one random order."""
        return order_of([*labelled, *(tile[views] for tile in self.picked(len(labelled), epoch))], seed, epoch)

    def labels(self, row: int, epoch: int) -> NDArray[np.int64]:
        """The class numbers (S, S) of a row in an epoch, ``UNSAID`` where nothing is said."""
        number = self.number[row]
        classes, *shape = self.mass.shape[1:]
        generator = np.random.default_rng([self.options["seed"], _DRAW, epoch, number])
        below = np.cumsum(self.mass[number], 0, dtype=np.float32)
        labels = (generator.random(shape, np.float32) >= below).sum(0)
        labels[labels == classes] = UNSAID
        return symmetry(labels, self.cache.rows[row].view % SYMMETRIES)


def soft_labels(run: Run, cache: FeatureCache, device: torch.device) -> SoftLabels | None:
    """The labels that a run draws; None without self-training.

    What the teacher says is kept beside it until the run is finished, for all members of an ensemble, so that a fit
    that goes on elsewhere has the same labels.

    Raises:
        UserError: the teacher is not finished, or the disk is full.
    """
    if (teacher := run.teacher) is None:
        return None
    file, tiles = teacher.path / _FILE, unlabelled_tiles(run, cache)
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


def _predict(
    run: Run, teacher: Run, cache: FeatureCache, device: torch.device, file: Path, shape: tuple[int, ...]
) -> None:
    """Writes w p of every tile, from the mean over its views and the teacher's members, in one step."""
    check_free_space(file, 2 * math.prod(shape), "the soft labels need", "free some")
    fitted, rows = FittedNetwork(teacher, device), [row for tile in unlabelled_tiles(run, cache) for row in tile]
    # In the texts of this run: of a control the images without labels must not keep their own.
    source = fitted.network.loader(cache, device).epoch(rows, run.texts(cache), keep=False)
    with atomic_path(file) as partial:
        mass = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        found = mean_of_rows(cache, cached_predictions(fitted, cache, rows, "soft labels", source=source))
        for number, (_, p) in enumerate(found):
            mass[number] = (1 - entropy(p) / math.log(len(p))).clip(0, 1) * p
        mass.flush()
        del mass
