"""Data sets as people have them -> samples: one module per layout, and a line each here.

A reader lists and matches names and texts, and opens no image: ``read(root, options) -> (samples, problems)``. What an
image or a mask holds is the business of ``load``.
"""

__all__ = ["READERS"]

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from textdiff.plugins import on_demand, registry

if TYPE_CHECKING:
    from pathlib import Path

    from textdiff.options.reading import ReadOptions
    from textdiff.readers.sample import Problem, Sample

READERS: Mapping[str, Callable[["Path", "ReadOptions"], tuple[list["Sample"], list["Problem"]]]] = registry(
    "readers",
    on_demand(
        {
            "monuseg": "textdiff.readers.monuseg:read_monuseg",
            "qata": "textdiff.readers.lvit:read_lvit",
            "mosmed": "textdiff.readers.lvit:read_lvit",
            "folder": "textdiff.readers.folder:read_folder",
            "hdf5": "textdiff.readers.hdf5:read_hdf5",
            "phantom": "textdiff.readers.lvit:read_lvit",
        }
    ),
    Callable,  # type: ignore[arg-type]
)
"""How each data set is read, by the names that ``--dataset`` takes; a preset of its own is in ``presets``."""
