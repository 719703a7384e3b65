"""What is written for each image that is segmented."""

__all__ = ["Wanted"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textdiff.errors import UserError
from textdiff.outputs import FORMATS, require
from textdiff.pipeline.evaluation.instances import METHODS
from textdiff.pipeline.predict import pictures

OVERLAY = "overlay"


@dataclass(frozen=True)
class Wanted:
    """What is written for each image.

    A PNG of the mask is among it whatever the formats. ``instances`` is one of ``METHODS`` or None; given, PNG and
    NIfTI come with a second file, ``<name>_objects``, that holds the numbers of the objects. None counts connected
    components. Smaller objects than ``min_area`` pixels are background.
    """

    formats: tuple[str, ...] = ()
    instances: str | None = None
    min_area: int = 0
    probabilities: bool = False
    entropy: bool = False
    disagreement: bool = False
    views: int = 1
    """Of how many views each prediction is the mean, see ``Predictor``."""
    overlay: bool = False
    """Whether the objects are drawn on the image, too."""
    mpp: float | None = None
    """Micrometres per pixel of all images; by default what each file says."""

    @property
    def maps(self) -> dict[str, bool]:
        """Which maps are asked for, by the end of a file's name."""
        return {"probability": self.probabilities, "entropy": self.entropy, "disagreement": self.disagreement}

    def large_files(self, folder: Path, name: str) -> list[Path]:
        """Every file of an image that is worked through in parts: its mask and maps, without objects."""
        suffixes = ["", *(f"_{kind}" for kind, asked in self.maps.items() if asked)]
        return [folder / f"{name}{suffix}.tif" for suffix in suffixes]

    def files(self, folder: Path, name: str) -> dict[Path, tuple[str, bool]]:
        """Every file of an image and what it is: a format or a picture, and whether it holds the numbers of objects."""
        formats = dict.fromkeys(("png", *self.formats))
        files = {folder / f"{name}{FORMATS[kind].suffix}": (kind, False) for kind in formats}
        if self.instances:
            numbered = [kind for kind in formats if FORMATS[kind].single]
            files |= {folder / f"{name}_objects{FORMATS[kind].suffix}": (kind, True) for kind in numbered}
        shown = self.maps | {OVERLAY: self.overlay}
        return files | {folder / f"{name}_{kind}.png": (kind, False) for kind, asked in shown.items() if asked}

    def pictures(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """The mask and the maps asked for, of probabilities (members, classes, H, W); see ``predict.pictures``."""
        return pictures(members, self.probabilities, self.entropy, self.disagreement)

    def check(self, ensemble: Sequence[object]) -> None:
        """Checks the options, for a run of so many members.

        Raises:
            UserError: an unknown or unavailable format or method, a number out of its range, disagreement asked of a
                single network.
        """
        for kind in self.formats:
            require(kind)
        if self.instances not in (None, *METHODS):
            raise UserError(f"--instances {self.instances}: unknown; use {' or '.join(METHODS)}")
        if self.min_area < 0:
            raise UserError(f"--min-area {self.min_area}: a number of pixels, from 0")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise UserError(f"--mpp {self.mpp:g}: micrometres per pixel, above 0, such as 0.25 for a slide at 40x")
        if self.disagreement and not ensemble:
            raise UserError(
                "--disagreement: the run is a single network; fit with --ensemble 5, or ask for --entropy instead"
            )
