"""What is written for each image that is segmented."""

__all__ = ["OVERLAY", "OutputFiles"]

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.metrics.pixels import entropy, jensen_shannon
from textdiff.options.run import Outputs
from textdiff.outputs import FORMATS, require

OVERLAY = "overlay"
ALWAYS = "png"
"""The format that every mask is written in; of an image that is not held a TIFF takes its place."""


@dataclass(frozen=True, kw_only=True)
class OutputFiles(Outputs):
    """What is written for each image, and into which files.

    A PNG of the mask is among it whatever the formats. Where it is said how objects are told apart, PNG and NIfTI come
    with a second file, ``<name>_objects``, that holds their numbers. Smaller objects than ``min_area`` are background.
    """

    @property
    def maps(self) -> dict[str, bool]:
        """Which maps are asked for, by the end of a file's name."""
        return {"probability": self.probabilities, "entropy": self.entropy, "disagreement": self.disagreement}

    def large_files(self, folder: Path, name: str) -> list[Path]:
        """Every file of an image that is worked through in parts: its mask and maps, a summary, and what streams."""
        suffixes = ["", *(f"_{kind}" for kind, asked in self.maps.items() if asked)]
        files = [folder / f"{name}{suffix}.tif" for suffix in suffixes]
        files += [folder / f"{name}{FORMATS[kind].suffix}" for kind in self.streams]
        return [*files, folder / f"{name}_summary.json"]

    @property
    def streams(self) -> list[str]:
        """The formats that are asked for and take an image in parts."""
        return [kind for kind in dict.fromkeys(self.format or ()) if FORMATS[kind].stream is not None]

    def too_large_for(self, name: str) -> dict[str, str]:
        """What is asked for and cannot be made of an image that is not held: why, by the file's name."""
        refused = {}
        for kind in dict.fromkeys(self.format or ()):
            if FORMATS[kind].stream is None and kind != ALWAYS:
                reason = f"{name}: is too large to be held, and {FORMATS[kind].title} is written at once"
                refused[f"{name}{FORMATS[kind].suffix}"] = f"{reason}; use --format geojson or ome-zarr"
        return refused

    def files(self, folder: Path, name: str) -> dict[Path, tuple[str, bool]]:
        """Every file of an image and what it is: a format or a picture, and whether it holds the numbers of objects."""
        formats = dict.fromkeys((ALWAYS, *(self.format or ())))
        files = {folder / f"{name}{FORMATS[kind].suffix}": (kind, False) for kind in formats}
        if self.objects:
            numbered = [kind for kind in formats if FORMATS[kind].single]
            files |= {folder / f"{name}_objects{FORMATS[kind].suffix}": (kind, True) for kind in numbered}
        shown = self.maps | {OVERLAY: self.overlay}
        return files | {folder / f"{name}_{kind}.png": (kind, False) for kind, asked in shown.items() if asked}

    def pictures(self, told: NDArray[np.float32], members: NDArray[np.float32]) -> dict[str, NDArray[np.uint16]]:
        """The maps that are asked for, by the end of a file's name: (H, W) each, 0..65535 standing for 0..1.

        They are the foreground's probability, the entropy over its maximum log(classes), and the members' disagreement
        over the same.

        Args:
            told: (classes, H, W) float32, the probabilities at the run's temperature.
            members: each member's, (members, classes, H, W) float32.
        """
        most = np.log(len(told))
        made = {
            "probability": lambda: 1 - told[0],
            "entropy": lambda: entropy(told) / most,
            "disagreement": lambda: jensen_shannon(members) / most,
        }
        shares = {kind: np.clip(made[kind](), 0, 1) for kind, asked in self.maps.items() if asked}
        return {f"_{kind}": np.round(share * 65535).astype(np.uint16) for kind, share in shares.items()}

    def check_run(self, several: bool) -> None:
        """Checks what a run can give here, of several networks or a single one.

        Raises:
            UserError: an unavailable format, or disagreement asked of a single network.
        """
        for kind in self.format or ():
            require(kind)
        if self.disagreement and not several:
            raise UserError(
                "--disagreement: the run is a single network; fit with --ensemble 5, or ask for --entropy instead"
            )
