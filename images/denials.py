"""Which parts of a text tell where something is, and which where it is not."""

__all__ = ["Denials", "any_of"]

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

_SENTENCE = re.compile("[.;]")


class Denials:
    """Reads texts by lists of words, which are the fields of the same names in ``directions.toml``."""

    def __init__(
        self,
        denied: Sequence[str],
        absent: Sequence[str],
        lacking: Sequence[str],
        findings: Sequence[str],
        contrast: Sequence[str],
    ) -> None:
        joint = rf",(?=\s*(?:and\s+|with\s+|there\s+(?:is|are)\s+)*{any_of(absent)})|\s(?={any_of(lacking)})"
        self._break = re.compile(rf":|(?P<contrast>{any_of(contrast)})|{joint}", re.IGNORECASE)
        self._denying = re.compile(any_of((*denied, *absent, *lacking)), re.IGNORECASE)
        # By a table without such words every part tells of something.
        self._finding = re.compile(any_of(findings) if findings else "", re.IGNORECASE)

    def told(self, text: str, names_place: Callable[[str], bool]) -> Iterator[str]:
        """The parts of a text that tell where something is.

        One that denies is left out, and so is one that only says where there is nothing, as in "Left lung: clear." or
        "The left lung is wide, no opacity.": it tells of nothing that was found, and the next part denies.

        Args:
            text: the text.
            names_place: whether a part names a place. One that denies in contrast and has its own ("..., but the right
                lung is clear") says nothing of the one before.
        """
        for sentence in _SENTENCE.split(text):
            parts = [*self._parts(sentence), ("", False)]
            for (part, _), (following, contrast) in pairwise(parts):
                heads = self._denying.search(following) and not (contrast and names_place(following))
                if not self._denying.search(part) and (self._finding.search(part) or not heads):
                    yield part

    def _parts(self, sentence: str) -> Iterator[tuple[str, bool]]:
        """The parts of a sentence, and of each whether it is in contrast to the one before."""
        start, contrast = 0, False
        for match in [*self._break.finditer(sentence), None]:
            part = sentence[start : match.start() if match else None]
            if part.strip():
                yield part, contrast
                contrast = False
            if match:
                start, contrast = match.end(), contrast or match["contrast"] is not None


def any_of(phrases: Iterable[str]) -> str:
    """A pattern of whole words; of no phrases, one that is nowhere."""
    spaced = (r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
    return rf"(?<!\w)(?:{'|'.join(spaced) or '(?!)'})(?!\w)"
