"""A finished run put to use on images that are in no cache."""

__all__ = ["Predictor"]

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff import __version__
from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.images.images import SYMMETRIES, symmetry
from textdiff.images.tiles import Grid, cut, stitch
from textdiff.pipeline.prediction.margins import margin_of
from textdiff.pipeline.prediction.preprocessing import Preprocessor
from textdiff.pipeline.prediction.tile_log import Said, TileLog, key_of
from textdiff.pipeline.prediction.unlike import Contrast, Likeness
from textdiff.pipeline.predictions import FittedNetwork, enlarge, mean_of_views, predictions, shows_nothing
from textdiff.pipeline.runs import Run
from textdiff.readers.directions import directions_of


class Predictor:
    """A run, with its backbone and text encoder where it needs them, for images that are in no cache.

    The image goes the way that the training images went: the same resizing, noise, network and rounding, so an image
    of the data set gets the mask that ``score`` measures, in as many ``views`` as it measured; but for the seams of its
    tiles, where these have a ``margin``, which those of a cache have not.

    Args:
        run: a finished run.
        device: where to compute, ``auto``, ``cpu``, ``cuda`` ...
        backbone: another place of the backbone; by default the one the cache was made with.
        views: 1, or 8 to give the mean over the symmetries of the square, as ``score`` does where a cache was
            extracted with ``--test-views 8``; for eight times the time.
        margin: pixels at the edges of a tile that are given to the network as surroundings alone; see ``margin_of``.

    Raises:
        UserError: the run is not finished; the backbone or the text encoder is missing or is another one; ``views`` is
            another number; the margin is too wide for its tiles, or it has none.
    """

    def __init__(
        self, run: Run, device: str = "auto", backbone: str | None = None, views: int = 1, margin: int | None = None
    ) -> None:
        if views not in (1, SYMMETRIES):
            raise UserError(f"--views {views}: must be 1, or 8 (the symmetries)")
        self._views, self._margin = views, margin_of(run, margin)
        self._fitted = FittedNetwork(run, device)
        self._preprocess = Preprocessor(run, self._fitted.device, backbone)
        self._made = run.config["fingerprint"]
        self.mpp: float | None = self._made.get("mpp")
        """Micrometres per pixel at which the run's cache looked at its images; None for those of each image."""
        self.reads_text = self._preprocess.reads_text
        """Whether the network looks at the text at all."""
        self.classes = self._fitted.classes
        """Classes, background included."""
        self._words = directions_of(run.config["about"])
        self._likeness = Likeness.load(run)
        self._times: list[int] = run.config["head"].get("times") or self._made["steps"]
        fitted = self._fitted
        self._facts = run.digest, views, fitted.device.type, fitted.precision, __version__
        """What the scores of a tile depend on besides what it shows."""
        self.start()
        self.seen = self.blank = 0
        """What the network was to see so far, images or tiles, and how many of them were blank."""

    def grid(self, height: int, width: int) -> Grid | None:
        """The tiles that an image (height, width) is predicted by, as the run's cache was cut; None if it was not."""
        made = self._made
        return Grid(height, width, made["tile"], made["overlap"], self._margin) if "tile" in made else None

    def start(self, log: Path | None = None, name: str = "") -> None:
        """Begins an image that comes tile by tile, for ``distance``; whole ones begin by themselves.

        Args:
            log: a file in which what is said of the tiles is kept until ``end``, and read if it is there; by default
                none. See ``TileLog``.
            name: of the image, for messages.
        """
        self._contrast = Contrast(self._times)
        self._taken = np.empty((2, 0))
        self._log = None if log is None else TileLog(log, name)

    def end(self, done: bool) -> None:
        """Ends it: the log goes if it is ``done``, or stays for the next ``start``."""
        if self._log is not None:
            self._log.remove() if done else self._log.close()
            self._log = None

    @property
    def distance(self) -> float | None:
        """How far the last image is from the training images; None where that is not known. See ``Likeness``."""
        return None if self._likeness is None else self._likeness.distance(self._contrast.result())

    @property
    def unlike(self) -> str:
        """What to say of the last image if it is unlike the training images; empty otherwise."""
        distance = self.distance
        if self._likeness is None or distance is None or distance <= self._likeness.limit:
            return ""
        return f"is unlike the training images (distance {distance:.2f}, limit {self._likeness.limit})"

    def __call__(self, image: NDArray[np.uint8], description: str = "") -> NDArray[np.float32]:
        """Class probabilities at the image's own size. A run that was fitted on tiles predicts by tiles.

        Args:
            image: (H, W, 3) uint8, RGB, any size.
            description: the text that comes with it.

        Returns:
            (classes, H, W) float32, summing to one over the classes.
        """
        mean: NDArray[np.float32] = self.members(image, description, each=False)[0]
        return mean

    def members(self, image: NDArray[np.uint8], description: str = "", each: bool = True) -> NDArray[np.float32]:
        """What each member of an ensemble says, the only one being the network itself where it is none.

        Arguments as for the call, (members, classes, H, W) float32; unless ``each`` what they stand for together, as
        the only member. Where the majority of the members decides, that comes first, before each of them: see
        ``apart``.
        """
        self.start()
        height, width = image.shape[:2]
        grid = self.grid(height, width)
        if grid is None:
            return self.tile(image, description, each)
        tiles = (self.tile(cut(image, y, x, grid.size), description, each) for y, x in grid.places)
        first = next(tiles)
        whole = np.empty((len(first), self.classes, height, width), np.float32)
        for y, _, band in stitch(grid, chain([first], tiles)):
            whole[..., y : y + band.shape[-2], :] = band
        return whole

    def tile(self, pixels: NDArray[np.uint8], description: str = "", each: bool = False) -> NDArray[np.float32]:
        """``members`` of what the network sees at once, RGB (h, w, 3) uint8: (members, classes, h, w) float32."""
        if self._log is None:
            return self._said_of(pixels, description, each).members
        key = key_of(pixels, description, each, *self._facts)
        if (said := self._log.recall(key)) is None:
            said = self._said_of(pixels, description, each)
            self._log.keep(key, said)
        else:
            self.seen, self.blank = self.seen + 1, self.blank + said.blank
            self._contrast.again(said.moments)
        return said.members

    def _said_of(self, pixels: NDArray[np.uint8], description: str, each: bool) -> Said:
        self.seen += 1
        blank, network = self.blank, self._fitted.network
        views = [found for _, found in predictions(self._fitted, self._items(pixels, description), each=True)]
        shown = [mean_of_views(enumerate(map(network.combined, views)))[None]] if network.votes or not each else []
        if each:
            shown.append(mean_of_views(enumerate(views)))
        members = enlarge(np.concatenate(shown), *pixels.shape[:2])
        return Said(members, self._taken, self.blank > blank)

    def apart(self, members: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of what ``members`` or ``tile`` gives, (..., classes, h, w), what all stand for together, and each member."""
        return (members[0], members[1:]) if self._fitted.network.votes else (members.mean(0), members)

    def _items(self, pixels: NDArray[np.uint8], description: str) -> Iterator[Item]:
        """The views of an image or tile, as the network reads them."""
        for view in range(self._views):
            text = self._words.turned(description, view) if self._words else description
            item = self._preprocess(symmetry(pixels, view), text)
            if view == 0:
                self.blank += shows_nothing(self._fitted.network, item)
                self._taken = self._contrast.add(item)
            yield item
