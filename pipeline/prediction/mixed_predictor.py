"""A combined run put to use on images that are in no cache: each of its runs prepares them in its own way."""

__all__ = ["MixedPredictor", "open_predictor"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.images.tiles import Grid
from textdiff.pipeline.mixture import mixed
from textdiff.pipeline.prediction.margins import margin_of
from textdiff.pipeline.prediction.predictor import Predictor
from textdiff.pipeline.runs import Run


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

    def tile(self, pixels: NDArray[np.uint8], description: str = "", each: bool = False) -> NDArray[np.float32]:
        """What all runs stand for together, and if ``each`` then what every run says: (1 + runs, classes, h, w)."""
        members = np.concatenate([part.tile(pixels, description) for part in self._parts])
        self.seen, self.blank = self._parts[0].seen, min(part.blank for part in self._parts)
        together = mixed(members, self._weights)[None]
        return np.concatenate([together, members]) if each else together

    def apart(self, members: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of what ``members`` or ``tile`` gives what all stand for together, and each run where they were asked for."""
        return members[0], members[1:]
