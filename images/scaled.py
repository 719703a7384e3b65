"""An image file at a wanted number of micrometres per pixel, which stands where the path of a file would."""

__all__ = ["SLIDES", "Scaled"]

from dataclasses import dataclass
from pathlib import Path

SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
"""Endings that slide scanners alone give to their files, in lower case; what is so called is read by OpenSlide."""


@dataclass(frozen=True)
class Scaled:
    """A file, the resolution that it is read at, and what is known of its own."""

    file: Path
    mpp: float | None
    """Micrometres per pixel that are wanted; None for those of the finest level."""
    own: float | None = None
    """Micrometres per pixel of the finest level, where the user gives them; what the file says by default."""

    @property
    def name(self) -> str:
        """The file's."""
        return self.file.name

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its place."""
        return self.file.parts

    def __str__(self) -> str:
        return str(self.file)

    def __fspath__(self) -> str:
        return str(self.file)
