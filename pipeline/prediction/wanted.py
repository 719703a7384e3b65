"""What is written for each image that is segmented."""

__all__ = ["Wanted"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textdiff.errors import UserError
from textdiff.options.run import Outputs
from textdiff.outputs import FORMATS, require
from textdiff.pipeline.predict import pictures

OVERLAY = "overlay"


@dataclass(frozen=True, kw_only=True)
class Wanted(Outputs):
    """What is written for each image, and into which files.

    A PNG of the mask is among it whatever the formats. Where it is said how objects are told apart, PNG and NIfTI come
    with a second file, ``<name>_objects``, that holds their numbers. Smaller objects than ``min_area`` are background.
    """

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
        formats = dict.fromkeys(("png", *(self.format or ())))
        files = {folder / f"{name}{FORMATS[kind].suffix}": (kind, False) for kind in formats}
        if self.objects:
            numbered = [kind for kind in formats if FORMATS[kind].single]
            files |= {folder / f"{name}_objects{FORMATS[kind].suffix}": (kind, True) for kind in numbered}
        shown = self.maps | {OVERLAY: self.overlay}
        return files | {folder / f"{name}_{kind}.png": (kind, False) for kind, asked in shown.items() if asked}

    def pictures(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """The mask and the maps asked for, of probabilities (members, classes, H, W); see ``predict.pictures``."""
        return pictures(members, self.probabilities, self.entropy, self.disagreement)

    def check_run(self, members: Sequence[object]) -> None:
        """Checks what a run with these members, none for a single network, can give here.

        Raises:
            UserError: an unavailable format, or disagreement asked of a single network.
        """
        for kind in self.format or ():
            require(kind)
        if self.disagreement and not members:
            raise UserError(
                "--disagreement: the run is a single network; fit with --ensemble 5, or ask for --entropy instead"
            )
