"""What the window does, without the window: opens a run or a cache, fits, predicts, says what is next, saves masks.

Labels are numbered as they are painted: 0 where nothing is said, 1 for the background, 2, 3, ... for the classes. In
the cache and in the files the background is 0 and what is not said has a number of its own.
"""

__all__ = ["Prediction", "Session", "ShownImage"]

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Loader
from textdiff.console import counted
from textdiff.errors import UserError, quoted
from textdiff.images.images import resize_mask
from textdiff.images.labels import UNSAID
from textdiff.metrics.pixels import entropy
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.option import AnyPath
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.mask_files import MaskFiles
from textdiff.pipeline.prediction.coverage import cover_order, described, evenly
from textdiff.pipeline.predictions import FittedNetwork, enlarge, predict_members
from textdiff.pipeline.runs import find_run
from textdiff.pipeline.training.quick import one_thread, quick_fit, quick_network
from textdiff.places import located


class ShownImage(NamedTuple):
    """What is shown of an image."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    text: str
    labels: NDArray[np.uint8]
    """(H, W), as they are painted."""
    pen: int
    """The diameter, in pixels of the image, of a pen whose strokes remain at the cache's size."""


class Prediction(NamedTuple):
    """What a network says of an image."""

    labels: NDArray[np.uint8]
    """(H, W), as they are painted: 1, 2, ..."""
    uncertainty: NDArray[np.float32]
    """(H, W), the entropy of the class probabilities, in [0, 1] of the most that is possible."""


@dataclass
class _Network:
    """A network in use: what it is, what reads its rows, and whose text a row is given."""

    network: Segmenter
    loader: Loader
    texts: dict[int, int] | None = None


class Session:
    """The images of a cache, what has been painted on them so far, and the network that was fitted to it last.

    Several threads may call it, one at a time.

    Args:
        path: a run's directory, whose network predicts until there is another, or a cache.

    Raises:
        UserError: neither is there, the run is not finished, or the cache is one of tiles.
    """

    def __init__(self, path: AnyPath) -> None:
        place = located(path)
        self._network: _Network | None = None
        if isinstance(place, Path) and not (place / "zarr.json").is_file() and place.suffix != ".zarr":
            run = find_run(place, place.parent)
            self.cache, fitted = run.open_cache(), FittedNetwork(run, "cpu")
            loader = fitted.network.loader(self.cache, fitted.device)
            self._network = _Network(fitted.network, loader, run.texts(self.cache))
        else:
            self.cache = FeatureCache.open(place)
        if any(entry.tile for entry in self.cache.rows):
            raise UserError(
                f"{self.cache.path}: has its images in tiles; only a cache of whole images can be painted on"
            )
        done = self.cache.done()
        self._rows = {entry.id: row for row, entry in enumerate(self.cache.rows) if entry.view == 0 and done[row]}
        if not self._rows:
            raise UserError(f"{self.cache.path}: holds no image yet; run the same `textdiff extract` again")
        # This says now what is not installed, and the first fit need not wait for it.
        self._loader = quick_network(self.cache).loader(self.cache, torch.device("cpu"))
        self._files = MaskFiles(self.cache)
        self._unshown: dict[str, NDArray[np.uint8]] = {}
        self._painted: dict[str, NDArray[np.uint8]] = {}
        self._unsaved: set[str] = set()
        self._described: dict[str, NDArray[np.float64]] = {}
        self._seen: dict[str, str | None] = {}
        """The SHA-256 of the mask's file as it was when it was shown; None where there was none."""

    @property
    def names(self) -> list[str]:
        """The images, in the cache's order."""
        return list(self._rows)

    @property
    def legend(self) -> list[str]:
        """What the numbers 0, 1, 2, ... in a layer mean."""
        return ["not said", "background", *self.cache.classes]

    @property
    def unsaved(self) -> list[str]:
        """The images that were painted on since they were saved."""
        return sorted(self._unsaved)

    @property
    def commands(self) -> str:
        """What goes on in a shell from masks that were saved, to the same trees in all their rounds."""
        cache, (finest,) = self.cache.path, quick_network(self.cache).config["blocks"]
        return (
            f"textdiff extract --cache {quoted(cache)} --update\n"
            f"textdiff fit --cache {quoted(cache)} --model trees --blocks {finest}"
        )

    @property
    def can_predict(self) -> bool:
        """Whether there is a network yet."""
        return self._network is not None

    def split(self, name: str) -> str:
        """Whether an image is for ``train``, ``val`` or ``test``."""
        return self.cache.rows[self._rows[name]].split

    def show(self, name: str) -> ShownImage:
        """An image with its text, and what is painted on it: by you, or what the data set's mask says.

        Raises:
            UserError: a file cannot be read, or is another image than when it was extracted.
        """
        entry, image = self.cache.rows[self._rows[name]], self._files.image(name)
        if name not in self._painted:
            found, self._seen[name] = self._files.read(name)
            self._painted[name] = found + np.uint8(1)  # bytes go round: 255, which is not said, becomes 0
        pen = max(1, -(-max(entry.height, entry.width) // self.cache.image_size)) * 2
        return ShownImage(image, self.cache.text_of(entry), self._painted[name].copy(), pen)

    def paint(self, name: str, labels: NDArray[np.integer]) -> None:
        """Takes what is painted on an image that was shown, (H, W) as it is painted.

        Raises:
            UserError: a number that stands for no class.
        """
        if (most := int(labels.max())) >= len(self.legend):
            known = ", ".join(f"{number} {what}" for number, what in enumerate(self.legend))
            raise UserError(f"{name}: label {most} stands for no class; paint with {known}")
        if not np.array_equal(labels, self._painted[name]):
            self._painted[name] = labels.astype(np.uint8)
            self._unsaved.add(name)

    def fit(self) -> Generator[tuple[int, int], None, str]:
        """Fits trees to what is said of the training images; closed between two images, it leaves the network as it is.

        Yields:
            How many images have been read, and of how many.

        Returns:
            What was learned from, in words.

        Raises:
            UserError: fewer than two classes are painted.
        """
        train = [name for name in self.names if self.split(name) == "train" and self._has_labels(name)]
        said = {self._rows[name]: labels for name in train if np.any((labels := self._said(name)) != UNSAID)}
        pixels = sum(int(np.count_nonzero(labels != UNSAID)) for labels in said.values())
        network = yield from quick_fit(self.cache, said, self._loader)
        self._network = _Network(network, self._loader)
        return f"{counted(int(pixels), 'pixel')} of {counted(len(said), 'image')}"

    @one_thread()
    def predict(self, name: str) -> Prediction:
        """What the network says of an image, at its own size.

        Raises:
            UserError: there is no network yet.
        """
        entry = self.cache.rows[self._rows[name]]
        probabilities = enlarge(self._probabilities(name), entry.height, entry.width)
        uncertainty = entropy(probabilities) / np.log(len(probabilities))
        return Prediction(probabilities.argmax(0).astype(np.uint8) + 1, uncertainty.astype(np.float32))

    def next(self, name: str) -> Generator[tuple[int, int], None, str]:
        """The image to paint on after ``name``: of those without labels, the first in the order of ``textdiff next``.

        What is painted counts, saved or not. While ``name`` itself has no labels, the one that follows it is next.

        Yields:
            How many images have been looked at, and of how many.

        Raises:
            UserError: every other image has labels.
        """
        labelled = {other for other in self.names if self._has_labels(other) and np.any(self._said(other) != UNSAID)}
        if not {*self.names} - labelled - {name}:
            raise UserError("no image is left without labels; choose one in the list to correct it")
        without = evenly({*self.names} - labelled)
        known = evenly(other for other in labelled if self.split(other) == "train")
        for seen, other in enumerate(both := without + known, 1):
            if other not in self._described:
                self._described[other] = described(self.cache, self._rows[other])
            yield seen, len(both)
        points = np.stack([self._described[other] for other in both])
        order = [both[at] for at, _ in cover_order(points, range(len(without), len(both)))]
        return order[(order.index(name) + 1) % len(order)] if name in order else order[0]

    def save(self) -> list[Path]:
        """Writes what was painted as masks into the data set, each file in one step, and returns these.

        Raises:
            UserError: a mask is not as it was when it was shown, cannot say what is painted, or has no place.
        """
        written = []
        for name in self.unsaved:
            path, self._seen[name] = self._files.write(name, self._painted[name] - np.uint8(1), self._seen[name])
            self._unsaved.discard(name)
            written.append(path)
        return written

    def _probabilities(self, name: str) -> NDArray[np.float32]:
        """Class probabilities (classes, S, S)."""
        if self._network is None:
            raise UserError("no network yet: paint a little of two classes and fit, or open a run")
        use = self._network
        (item,) = use.loader.epoch([self._rows[name]], use.texts)
        return use.network.combined(predict_members(use.network, item, "float32"))

    def _has_labels(self, name: str) -> bool:
        return bool(self._painted[name].any()) if name in self._painted else self._files.has_mask(name)

    def _said(self, name: str) -> NDArray[np.uint8]:
        """What is painted on an image, or else what its mask says: class numbers (S, S) as ``extract`` makes them."""
        if name not in self._painted and name in self._unshown:
            return self._unshown[name]
        labels = self._painted[name] - np.uint8(1) if name in self._painted else self._files.read(name)[0]
        rule, size = PROTOCOLS[self.cache.about["protocol"]].resize, self.cache.image_size
        said = resize_mask(labels, size, rule, classes=len(self.cache.classes) + 1)
        if name not in self._painted:
            self._unshown[name] = said
        return said
