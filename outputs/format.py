"""What a format of results is, and what it can hold."""

__all__ = ["Format"]

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from textdiff.outputs.objects import Segmentation
from textdiff.outputs.stream import Sink, Streamed


@dataclass(frozen=True)
class Format:
    """A format, as facts."""

    title: str
    """What it is called in messages."""
    suffix: str
    """What a file, or a directory, of it is called after the image's name."""
    write: Callable[[Path, Segmentation, bool], None]
    """``write(path, segmented, numbered)`` writes atomically, and replaces what is there."""
    package: str = ""
    """The optional package that it needs."""
    side: int | None = None
    """The most pixels an image may have along a side; None where there is no limit."""
    objects: int | None = None
    """The largest object number; None for more than there can be."""
    stream: Callable[[Path, Streamed], AbstractContextManager[Sink]] | None = None
    """Opens a file, or a directory, for an image that comes in parts, which appears at the end; None if it cannot."""
    single: bool = False
    """Whether a file holds one map only, so that the numbers of objects need a second one."""

    def refusal(self, segmented: Segmentation, numbered: bool) -> str:
        """Why the format cannot hold the result, naming the image and the limit; empty if it can."""
        height, width = segmented.labels.shape
        if self.side is not None and max(height, width) > self.side:
            return f"{segmented.name}: {width}x{height} pixels, and {self.title} holds {self.side} a side"
        count = len(segmented.found)
        if self.objects is not None and count > self.objects and numbered:
            return f"{segmented.name}: {count} objects, and {self.title} numbers {self.objects}"
        return ""
