"""One image with its mask and its text, and what can be wrong with them: what every reader returns."""

__all__ = ["UNMASKED", "UNSPLIT", "LoadedMask", "Problem", "Sample", "Slice", "Split", "where_of"]

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.images.scaled import Scaled

UNMASKED = "has no mask: it is unlabelled"
UNSPLIT = "has no splits: all its images are for training, and nothing can be scored"

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Slice:
    """One image or mask inside an HDF5 or COCO file; stands where the path of a file of its own would."""

    file: Path
    dataset: str
    index: int | None
    """Along the dataset's first axis; None where the dataset is the image itself."""

    @property
    def name(self) -> str:
        """What a table of files would call it."""
        return str(self).rsplit("/", 1)[-1] if self.index is None else f"{self.dataset}[{self.index}]"

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its place, as of a path."""
        return (*self.file.parts, self.name)

    def __str__(self) -> str:
        return f"{self.file}/{self.dataset}" + ("" if self.index is None else f"[{self.index}]")

    def __fspath__(self) -> str:
        return str(self)


def where_of(source: Path | Slice | Scaled) -> str:
    """``Train_Folder/img/a.png``: enough to find it, short enough to read."""
    return "/".join(source.parts[-3:])


@dataclass(frozen=True)
class Sample:
    """One image of a data set. ``id`` is the stem of its file name, unique over all splits."""

    id: str
    split: Split
    image: Path | Slice | Scaled
    mask: Path | Slice | None
    text: str
    group: str = ""
    """What must stay in one split, such as a patient; empty where nothing is known."""
    classes: tuple[str, ...] = ()
    """Names of the mask's classes 1, 2, ...; empty for a mask of two classes."""
    named: tuple[str, ...] = ()
    """Names of the numbers 1, 2, ... in the file, the background and what says nothing among them, if they have one."""
    instances: bool = False
    """Whether the mask numbers its objects."""
    unlabelled: int | None = None
    """The number in the mask of pixels of which nothing is said; None where every pixel says something."""


class LoadedMask(NamedTuple):
    """A mask as the pipeline takes it."""

    labels: NDArray[np.uint8]
    """(H, W) class numbers, 0 for the background and ``UNSAID`` where nothing is said."""
    instances: NDArray[np.uint32] | None
    """(H, W) object numbers, None where the sample does not keep them."""
    sha256: str
    notes: list[str]
    value: str = ""
    """How a mask of two classes stores its foreground; see ``PlainMask.value``."""


@dataclass(frozen=True)
class Problem:
    """Something about a file that the user should mend (``error``) or know (``note``)."""

    severity: Literal["error", "note"]
    where: str
    """The file, relative to the data set's directory."""
    what: str
    fix: str

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" + (f"; {self.fix}" if self.fix else "")
        # File names may hold line breaks; a problem is one line all the same.
        return " ".join(text.split())
