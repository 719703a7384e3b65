"""What sentences say of places in a picture: how they turn along with it, and a map of the places they name.

"At the upper left" of a picture is at the lower left of it turned. The words are in ``directions.toml``, and users add
their own. What becomes of a direction is read off from :func:`textdiff.images.images.symmetry` itself, so that words
and pictures cannot come apart.
"""

__all__ = ["Directions", "directions_of", "read_directions"]

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.images.denials import Denials, any_of
from textdiff.images.images import symmetry
from textdiff.images.named_place import Place

_OWN = Path(__file__).with_name("directions.toml")
_SIDES = {(0, -1): 0, (0, 1): 1, (-1, 0): 2, (1, 0): 3}
"""The places of left, right, up and down in a line of the table, by (rows down, columns to the right)."""
_MIRRORED = (1, 0, 2, 3)
_MIDDLE = 6
_SMALL = r"(?:a|an|and|are|as|at|by|for|from|has|in|is|of|on|or|that|the|to|was|were|with)\b"
_JOINED = re.compile(
    r"\s+|-|/|,\s*|\s+(?:and|or)\s+(?:the\s+)?"
    rf"|(?P<part>(?:\s+(?!{_SMALL})\w+){{1,2}})\s+(?:of|in)\s+(?:(?:the|both)\s+)*"
)
"""What stands between words of the same place: "left and right lung", "upper third of the left lung"."""
_PART_OF = rf"(?:[\s-]+(?!{_SMALL})\w+){{1,2}}\s+(?:of|in)\s+(?:(?:the|both)\s+)*"
"""What stands between a word and a part of the patient: "lower part of both lungs", "left side of the chest"."""
_HALF = re.compile(r"\bhal(?:f|ves)\b", re.IGNORECASE)
_BESIDE = re.compile(r"\s+|-")
_NOUN = re.compile(rf"[\s-]+(?!{_SMALL})\w")
_ARTICLE = re.compile(r"\b(an?)(\s+)$", re.IGNORECASE)


class _Word(NamedTuple):
    """A word of a text that tells a direction or an axis."""

    start: int
    end: int
    side: int
    """0 to 3 for left, right, up and down; 4 and 5 for along rows and along columns; 6 for between up and down."""
    lines: tuple[int, ...]
    """The lines of the table that it stands in."""
    before_noun: bool
    of_patient: bool
    of_thirds: bool
    """Whether up and down are thirds, as they are of a patient but in "lower half of both lungs"."""


@dataclass(frozen=True)
class Directions:
    """A table of the words for directions; the fields are what ``directions.toml`` says of them."""

    directions: tuple[tuple[str, str, str, str], ...]
    axes: tuple[tuple[str, str], ...]
    patient: tuple[str, ...]
    middle: tuple[str, ...]
    denied: tuple[str, ...]
    absent: tuple[str, ...]
    lacking: tuple[str, ...]
    findings: tuple[str, ...]
    contrast: tuple[str, ...]
    keep: tuple[str, ...]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """The table that ``record`` gives; lists may stand for tuples.

        Raises:
            ValueError: a name that is none, or a line of another length.
        """
        names = [field.name for field in fields(cls)]
        if wrong := [name for name in table if name not in names]:
            raise ValueError(f"{wrong[0]} is not among {', '.join(names)}")
        for name, lines in table.items():
            length = {"directions": 4, "axes": 2}.get(name)
            if length is None and not _words(lines):
                raise ValueError(f"{name} must be a list of words")
            if length and not (isinstance(lines, list | tuple) and all(_words(own, length) for own in lines)):
                raise ValueError(f"{name} must be a list of lines of {length} words each")
        found = dict[str, Any]()
        for name in names:
            found[name] = tuple(own if isinstance(own, str) else tuple(own) for own in table.get(name, ()))
        return cls(**found)

    def record(self) -> dict[str, Any]:
        """The table, JSON-able."""
        return {name: [list(e) if isinstance(e, tuple) else e for e in own] for name, own in asdict(self).items()}

    def turned(self, text: str, view: int) -> str:
        """The text as it is true of the picture's view of this number, as ``images.symmetry`` counts them."""
        sides, swapped = _turned_sides(view)
        parts, done = [], 0
        words = [word for word in self._found(text) if word.side != _MIDDLE]
        number = 0
        while number < len(words):
            word = words[number]
            following = words[number + 1] if number + 1 < len(words) else None
            group = [word]
            if following and _corner(word, following) and _BESIDE.fullmatch(text[word.end : following.start]):
                group.append(following)
            shared = set(group[0].lines).intersection(group[-1].lines)
            said = [self._turned(one, sides, swapped, shared) for one in group]
            # The word for up or down stays first, or last. What says which of two organs is meant stays before it.
            if swapped and len(said) == 2 and not word.of_patient:
                said.reverse()
            for one, new in zip(group, said, strict=True):
                before, old = text[done : one.start], text[one.start : one.end]
                parts += [_ARTICLE.sub(lambda found: _article(found, new), before), _alike(old, new)]  # noqa: B023
                done = one.end
            number += len(group)
        return "".join(parts) + text[done:]

    def place_map(self, text: str, size: int, view: int = 0) -> NDArray[np.float32]:
        """A map of the places that a text names, for a network whose pixels are to know what is said of them.

        Left and right are halves of the picture, and so are up and down; before a part of the patient, which has a
        middle too, upper, middle and lower are thirds, and left is the patient's, at the right. So it is in "lower part
        of both lungs" and "left side of the chest"; "lower half" of them is a half. Places that are named together, as
        in "upper and lower left lung", are all in it: it is the maximum of one map of each. In "right middle and lower
        lobes" both are at the right. A clause that denies something names no place, but for a finding that is told
        before ", no effusion" and the like; nor does a phrase that tells where one thing is beside another.

        Args:
            text: of the picture as it lies.
            size: height and width of the map, in pixels.
            view: the picture's view, as ``images.symmetry`` counts them; the map turns along.

        Returns:
            (size, size) float32, 1 in the places named and 0 elsewhere, with soft edges; 1 everywhere where none is.
        """
        named = [box.drawn(size) for box in self.places(text)]
        return symmetry(np.max(named, axis=0) if named else np.ones((size, size), np.float32), view)

    def places(self, text: str) -> list[Place]:
        """The places that a text names, in its order; see ``place_map``."""
        told = self._denials.told(text, lambda part: bool(self._told(part)))
        return [place for part in told for place in self._told(part)]

    def _told(self, part: str) -> list[Place]:
        return _places_of(part, [word for word in self._found(part) if self._stands(word)])

    def _stands(self, word: _Word) -> bool:
        """Whether a word tells a place: axes do not, nor phrases such as "to the left of", nor any other middle."""
        if word.side == _MIDDLE:
            return word.of_thirds
        return word.side < 4 and not all(any(" " in name for name in self.directions[line]) for line in word.lines)

    def _turned(self, word: _Word, sides: Sequence[int], swapped: bool, shared: set[int]) -> str:
        """What is to stand in a word's place, in small letters."""
        if word.side > 3:
            return self.axes[word.lines[0]][(word.side - 4) ^ swapped]
        side = sides[word.side]
        if word.of_patient and swapped:
            # Turns by half and mirrors do the same to the patient's left as to the picture's.
            side = sides[_MIRRORED[word.side]]
            side = _MIRRORED[side]
        lines = [line for line in word.lines if line in shared] or word.lines
        return self.directions[lines[0 if word.before_noun else -1]][side]

    def _found(self, text: str) -> list[_Word]:
        """The words of a text that tell directions, in their order; what follows them decides what they are of."""
        found: list[_Word] = []
        for match in reversed(list(self._pattern.finditer(text))):
            key = _key(match.group())
            if key not in self._known:
                continue
            side, lines = self._known[key]
            after = text[match.end() :]
            part_of = self._part_of.match(after)
            before_noun, of_patient = bool(_NOUN.match(after)), bool(self._part.match(after) or part_of)
            of_thirds = of_patient and not (part_of and _HALF.search(part_of.group()))
            if found and (joined := _JOINED.fullmatch(text[match.end() : found[-1].start])):
                before_noun, of_patient, of_thirds = found[-1][-3:]
                if part := joined["part"]:
                    of_thirds = of_patient and not _HALF.search(part)
            found.append(_Word(match.start(), match.end(), side, lines, before_noun, of_patient, of_thirds))
        return found[::-1]

    @cached_property
    def _known(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """By word its side and the lines it stands in; a word of two sides is taken to be what it was first."""
        known: dict[str, tuple[int, tuple[int, ...]]] = {}
        for table, first in ((self.directions, 0), (self.axes, 4), ([(word,) for word in self.middle], _MIDDLE)):
            for number, line in enumerate(table):
                for side, word in enumerate(line, start=first):
                    known_side, lines = known.get(_key(word), (side, ()))
                    if known_side == side:
                        known[_key(word)] = side, (*lines, number)
        return known

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Of phrases that begin alike the longest counts, and one that is kept hides the words in it.
        phrases = sorted({*self._known, *map(_key, self.keep)}, key=len, reverse=True)
        return re.compile(any_of(phrases), re.IGNORECASE)

    @cached_property
    def _denials(self) -> Denials:
        return Denials(self.denied, self.absent, self.lacking, self.findings, self.contrast)

    @cached_property
    def _part(self) -> re.Pattern[str]:
        return re.compile(rf"(?:{_NOUN.pattern}*){{0,2}}?[\s-]+{any_of(self.patient)}", re.IGNORECASE)

    @cached_property
    def _part_of(self) -> re.Pattern[str]:
        return re.compile(rf"{_PART_OF}(?:\w+\s+)?{any_of(self.patient)}", re.IGNORECASE)


def _places_of(text: str, words: Sequence[_Word]) -> list[Place]:
    """The places that the words of a clause name: those that belong to the same noun name one, or several corners."""
    groups: list[list[_Word]] = []
    continued: list[bool] = []
    for word in words:
        joint = text[groups[-1][-1].end : word.start] if groups else ""
        joined = bool(groups) and bool(_JOINED.fullmatch(joint))
        if joined and not (_both(groups[-1]) and not _BESIDE.fullmatch(joint)):
            groups[-1].append(word)
        else:
            groups.append([word])
            continued.append(joined)
    for number, group in enumerate(groups):
        if continued[number] and not _both(group):
            # In "right middle and lower lobes" both are at the right.
            across = group[0].side < 2
            group += [word for word in groups[number - 1] if (word.side < 2) != across]
    return [_place(group) for group in groups]


def _both(words: Sequence[_Word]) -> bool:
    """Whether words tell a place across and one down."""
    return any(word.side < 2 for word in words) and any(word.side >= 2 for word in words)


def _place(words: Sequence[_Word]) -> Place:
    spans: tuple[dict[tuple[float, float], None], ...] = {}, {}
    for word in words:
        if word.side < 2:
            half = word.side ^ word.of_patient
            spans[0][half / 2, (half + 1) / 2] = None
        elif word.of_thirds:
            third = {2: 0, _MIDDLE: 1, 3: 2}[word.side]
            spans[1][third / 3, (third + 1) / 3] = None
        else:
            spans[1][(word.side - 2) / 2, (word.side - 1) / 2] = None
    across, down = (tuple(span) or ((0.0, 1.0),) for span in spans)
    return Place(across, down)


def read_directions(path: str | PathLike[str] | None = None) -> Directions:
    """The table of the package, and before its lines those of a user's own file.

    Raises:
        UserError: the file is no such table.
    """
    known = Directions.of(tomllib.loads(_OWN.read_text(encoding="utf-8")))
    if path is None:
        return known
    try:
        own = Directions.of(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: no table of direction words ({error}); write TOML, as in "
            'directions = [["links", "rechts", "oben", "unten"]]'
        ) from error
    return Directions(**{field.name: getattr(own, field.name) + getattr(known, field.name) for field in fields(own)})


def directions_of(about: Mapping[str, Any]) -> Directions | None:
    """The table by which the texts of a cache turn, from what it says about itself; None where they stay."""
    return Directions.of(about["turned_texts"]) if about.get("turned_texts") else None


def _turned_sides(view: int) -> tuple[list[int], bool]:
    """Where left, right, up and down come to be in a view, and whether rows become columns."""
    sides = []
    for down, right in _SIDES:
        spot = np.zeros((3, 3), np.uint8)
        spot[1 + down, 1 + right] = 1
        (row,), (column,) = np.nonzero(symmetry(spot, view))
        sides.append(_SIDES[int(row) - 1, int(column) - 1])
    return sides, sides[0] > 1


def _corner(one: _Word, other: _Word) -> bool:
    """Whether two words are one of left or right and one of up or down."""
    return one.side < 4 and other.side < 4 and (one.side < 2) != (other.side < 2)


def _words(value: Any, length: int | None = None) -> bool:
    listed = isinstance(value, list | tuple) and all(isinstance(word, str) and word.strip() for word in value)
    return listed and length in (None, len(value))


def _key(word: str) -> str:
    return " ".join(word.lower().split())


def _alike(old: str, new: str) -> str:
    """``new`` in capitals, or with one, as ``old`` is; ``old`` itself where it says the same."""
    if _key(old) == new.lower():
        return old
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _article(found: re.Match[str], new: str) -> str:
    """``a`` or ``an`` as the next word needs it; both stay where they were right."""
    article = found.group(1)
    wanted = article[0] + ("n" if new[0] in "aeiou" else "")
    return wanted + found.group(2)
