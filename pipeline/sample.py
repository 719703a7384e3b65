"""One image with its mask and its text, and what can be wrong with them: what every reader returns."""

__all__ = ["Problem", "Sample"]

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Sample:
    """One image of a data set. ``id`` is the stem of its file name, unique over all splits."""

    id: str
    split: Literal["train", "val", "test"]
    image: Path
    mask: Path | None
    text: str


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
