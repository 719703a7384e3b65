"""A finished run put to use on images that are in no cache."""

__all__ = ["MixedPredictor", "Predictor", "margin_of", "open_predictor"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff import __version__
from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.images.directions import directions_of
from textdiff.images.images import SYMMETRIES, symmetry
from textdiff.images.tiles import Grid, cut, stitch
from textdiff.models.backbones.load import backbone_kind
from textdiff.models.networks.models import get_model
from textdiff.pipeline.mixture import mixed
from textdiff.pipeline.prediction.preprocessing import Preprocessor
from textdiff.pipeline.prediction.tile_log import Said, TileLog, key_of
from textdiff.pipeline.prediction.unlike import Contrast, Likeness
from textdiff.pipeline.predictions import FittedNetwork, enlarge, mean_of_views, predictions, shows_nothing
from textdiff.pipeline.runs import Run

_MOST_MORE = 3
"""How many times as many tiles along a side a margin may cost that nobody asked for."""


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
        self.seen = self.blank = 0
        """What the network was to see so far, images or tiles, and how many of them were blank."""
        self.start()
        self.native = np.empty((0, self.classes, 0, 0), np.float32)
        """What ``tile`` gave last as the network said it, before it was enlarged: (members, classes, S, S)."""

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
        self._before = self.seen, self.blank
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

    @property
    def nothing(self) -> bool:
        """Whether all of the last image was blank, so that it is background and the network saw none of it."""
        seen, blank = self._before
        return self.blank - blank == self.seen - seen > 0

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
        self.native = np.concatenate(shown)
        members = enlarge(self.native, *pixels.shape[:2])
        return Said(members, self._taken, self.blank > blank)

    def apart(self, members: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of what ``members`` or ``tile`` gives, (..., classes, h, w), what all stand for together, and each member."""
        return (members[0], members[1:]) if self._fitted.network.votes else (members.mean(0), members)

    def _items(self, pixels: NDArray[np.uint8], description: str) -> Iterator[Item]:
        """The views of an image or tile, as the network reads them."""
        for view in range(self._views):
            text = self._words.turned(description, view) if self._words else description
            item = self._preprocess(symmetry(pixels, view), text)
            item = replace(item, sentence=description, view=view)
            if view == 0:
                self.blank += shows_nothing(self._fitted.network, item)
                self._taken = self._contrast.add(item)
            yield item


def open_predictor(
    run: Run, device: str = "auto", backbone: str | None = None, views: int = 1, margin: int | None = None
) -> Predictor:
    """The predictor of a run, be it combined of several; arguments and errors as for ``Predictor``."""
    kind = MixedPredictor if run.combined else Predictor
    return kind(run, device, backbone, views, margin)


class MixedPredictor(Predictor):
    """A ``Predictor`` for each of the runs that a combined one consists of, asked one after the other.

    Args:
        run: a combined one.
        device: as for ``Predictor``.
        backbone: another place of the backbone, where those runs that need one have the same.
        views, margin: as for ``Predictor``.

    Raises:
        UserError: as ``Predictor``; a backbone is given and the runs have several; a run is not as it was.
    """

    def __init__(
        self, run: Run, device: str = "auto", backbone: str | None = None, views: int = 1, margin: int | None = None
    ) -> None:
        run.check_members()
        readers = [member.reads.activations for member in run.members]
        made = [member.config["fingerprint"]["backbone_sha256"] for member in run.members if member.reads.activations]
        if backbone is not None and len(set(made)) != 1:
            what = f"has runs of {len(set(made))} backbones" if made else "needs no backbone"
            raise UserError(f"--backbone {backbone}: {run.path} {what}; leave it out")
        self._weights: Sequence[float] = run.weights
        shared = margin_of(run, margin)
        self._parts = [
            Predictor(member, device, backbone if reads else None, views, shared)
            for member, reads in zip(run.members, readers, strict=True)
        ]
        self.seen = self.blank = 0
        self.mpp, self.classes = self._parts[0].mpp, self._parts[0].classes
        self.reads_text = any(part.reads_text for part in self._parts)

    def grid(self, height: int, width: int) -> Grid | None:
        """The tiles that an image (height, width) is predicted by, the same for all runs; None if it is not cut."""
        return self._parts[0].grid(height, width)

    def start(self, log: Path | None = None, name: str = "") -> None:
        """Begins an image that comes tile by tile; each run has a log of its own beside ``log``."""
        for number, part in enumerate(self._parts):
            part.start(log and log.with_name(f"{log.name}.{number}"), name)

    def end(self, done: bool) -> None:
        """Ends it, and its logs with it."""
        for part in self._parts:
            part.end(done)

    @property
    def distance(self) -> float | None:
        """The last image's distance from the training images, by the run that finds it the furthest away."""
        known = [distance for part in self._parts if (distance := part.distance) is not None]
        return max(known, default=None)

    @property
    def unlike(self) -> str:
        """What to say of the last image if it is unlike the training images of a run; empty otherwise."""
        return next((what for part in self._parts if (what := part.unlike)), "")

    @property
    def nothing(self) -> bool:
        """Whether all of the last image was blank to every run."""
        return all(part.nothing for part in self._parts)

    def tile(self, pixels: NDArray[np.uint8], description: str = "", each: bool = False) -> NDArray[np.float32]:
        """What all runs stand for together, and if ``each`` then what every run says: (1 + runs, classes, h, w)."""
        members = np.concatenate([part.tile(pixels, description) for part in self._parts])
        self.native = mixed(np.concatenate([part.native for part in self._parts]), self._weights)[None]
        self.seen, self.blank = self._parts[0].seen, min(part.blank for part in self._parts)
        together = mixed(members, self._weights)[None]
        return np.concatenate([together, members]) if each else together

    def apart(self, members: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of what ``members`` or ``tile`` gives what all stand for together, and each run where they were asked for."""
        return members[0], members[1:]


def margin_of(run: Run, asked: int | None) -> int:
    """The margin of the tiles that a run predicts by, in pixels of the tiles; 0 for a run without tiles.

    By default as far as the run sees, so that tiles meet without a seam: they say what one piece would. That is known
    where the backbone states its ``reach`` and the network looks at single pixels. Where it is not known, or where the
    tiles are too small for that, there is none.

    Args:
        run: a finished run, be it combined; all its runs have the same tiles.
        asked: what is asked for; None for the default.

    Raises:
        UserError: the margin that is asked for is too wide for the tiles, or the run has none.
    """
    made = run.config["fingerprint"]
    if "tile" not in made:
        if asked:
            raise UserError(f"--margin {asked}: {run.path} sees an image as a whole, and needs none; leave it out")
        return 0
    tile, overlap = made["tile"], made["overlap"]
    most = (tile - 2 * overlap) // 2
    if asked is None:
        wide = 0
        for member in run.members if run.combined else [run]:
            if (reach := _reach(member)) is None:
                return 0
            wide = max(wide, reach)
        affordable = _MOST_MORE * (tile - overlap - 2 * wide) >= tile - overlap
        return wide if wide <= most and affordable else 0
    if asked > max(most, 0):
        raise UserError(
            f"--margin {asked}: tiles of {tile} pixels that share {overlap} have room for {most}; take that or less"
        )
    return asked


def _reach(run: Run) -> int | None:
    """How many pixels of a tile away what a run says of a pixel can come from; None where that is not known."""
    if not get_model(run.config["model"]).pixelwise:
        return None
    made = run.config["fingerprint"]
    reach = backbone_kind(run.config["about"]["backbone"]).reach
    if reach is None:
        return None
    pixels: float = made["tile"] / made["image_size"]
    enlarge: int = made.get("enlarge", 1)
    # Where pixels are resized, each is of its neighbours too, on the way in and on the way out.
    resized = 0 if pixels == enlarge == 1 else 2 * max(1.0, pixels)
    return math.ceil(reach / enlarge * pixels + resized)
