"""Where data sets are looked for when the command line does not say, and what they are called."""

__all__ = ["OWN", "find_data", "name_of_data"]

import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from textdiff.errors import UserError

FOLDERS = {"monuseg": "MoNuSeg", "mosmed": "MosMedDataPlus", "qata": "QaTa-COV19"}
OWN = ("folder", "hdf5")
"""A lab's own data, which has no usual place."""
_KIND = {"folder": "directory", "hdf5": "HDF5 file"}


def find_data(dataset: str) -> Path:
    """The directory of a data set: under ``$TEXTDIFF_DATA``, ``data/`` or ``datasets/``, by its usual name.

    The phantom is made in ``data/phantom`` if it is not there yet.

    Raises:
        UserError: it is in none of them.
    """
    if dataset == "phantom":
        from textdiff.readers.phantom import ensure_phantom

        return ensure_phantom(Path("data") / "phantom")
    if dataset in OWN:
        raise UserError(f"--data: missing; --dataset {dataset} needs the place of your {_KIND[dataset]}")
    folder = FOLDERS.get(dataset, dataset)
    roots = [Path(os.environ["TEXTDIFF_DATA"])] if os.environ.get("TEXTDIFF_DATA") else []
    places = [root / folder for root in (*roots, Path("data"), Path("datasets"))]
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"--data: no {folder} directory in {looked}; give its place with --data, or set TEXTDIFF_DATA")


def name_of_data(about: Mapping[str, Any]) -> str:
    """What tables and reports call a data set: a lab's own by its directory or file, any other by its layout.

    Args:
        about: what a cache says of itself.
    """
    layout = str(about.get("dataset", "data"))
    place = PurePath(str(about.get("options", {}).get("data", ""))) if layout in OWN else PurePath()
    name = place.stem if place.suffix in (".h5", ".hdf5") else place.name
    return name if name not in ("", "..") else layout
