"""What is odd about the images of a batch, said once for each kind."""

__all__ = ["Remarks"]

from pathlib import Path

from textdiff import console
from textdiff.images.scaled import Scaled
from textdiff.readers.datasets import Problem, alike, kind_of
from textdiff.readers.sample import Slice


class Remarks:
    """Says the first remark of a kind at once, since the last image may be hours away, and counts the others."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[Problem]] = {}

    def say(self, source: Path | Slice | Scaled, what: str, fix: str = "") -> None:
        """Takes one remark on an image."""
        problem = Problem("note", str(source), what, fix)
        alike = self._kinds.setdefault(kind_of(problem), [])
        alike.append(problem)
        if len(alike) == 1:
            console.warn(str(problem))

    def close(self) -> None:
        """Says of which kinds there were others."""
        for line in alike([problem for kind in self._kinds.values() if len(kind) > 1 for problem in kind]):
            console.warn(line)
