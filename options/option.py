"""One option: its name, its type, the values that it takes, and how the command line writes them."""

__all__ = [
    "Again",
    "AnyPath",
    "Argument",
    "Exists",
    "InStore",
    "Known",
    "Metavar",
    "Option",
    "Range",
    "Usual",
    "imported",
]

import dataclasses
import importlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from textdiff.errors import UserError, nearest, one_of, one_of_many
from textdiff.places import Url, located

AnyPath = str | PathLike[str]
"""How a file, a cache or a run is given: by its path, or as what stands for it, such as an open cache."""

M = TypeVar("M")


class Again:
    """Marks an option that may name a value more than once."""


class Argument:
    """Marks an option that the command line takes without its name."""


class Metavar(NamedTuple):
    """What stands for the value in the help."""

    text: str


class Range(NamedTuple):
    """The numbers that an option takes; None for no bound."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, int | float)
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        # In full where it is whole: a bound such as 4294967295 is not to be rounded.
        return " and ".join(f"{word} {bound:.16g}" for word, bound in words.items() if bound is not None)


class Exists(NamedTuple):
    """Marks a path that must be there before any work begins."""

    what: str
    fix: str = ""
    holds: str = ""
    """A file that is in every such directory: of names that are close, only those that have it are suggested."""


class InStore:
    """Marks a path that may be an address in an object store, too."""


class Known(NamedTuple):
    """The names that an option takes beside others, or, if ``strict``, alone.

    ``module:attribute`` holds or makes them.
    """

    place: str
    strict: bool = False
    listed: bool = True
    """Whether the help lists all names of a strict option; not where that would take seconds."""
    page: str = ""
    """The page that lists the names where these are too many for a message; ``place`` then says what each is, too."""
    sums: bool = False
    """Whether several of a strict option's names with plus signs between them are a value, too."""

    def names(self) -> Collection[str]:
        """The names."""
        names: Collection[str] | Callable[[], Collection[str]] = imported(self.place)
        return names() if callable(names) else names

    def described(self) -> Mapping[str, str]:
        """The names that ``page`` lists, and what each is in words."""
        names = self.names()
        assert isinstance(names, Mapping)
        return names


class Usual(NamedTuple):
    """Where a default that is not a constant is told in words: ``module:function`` of the option's name."""

    place: str


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a record: what the command line, the Python API and the reference page are made of."""

    name: str
    help: str
    group: str
    """The heading that it stands under."""
    default: Any
    """``dataclasses.MISSING`` where the option must be given."""
    item: type
    """``bool``, ``int``, ``float``, ``str`` or ``Path``."""
    shape: Literal["one", "many", "pair", "mapping"]
    optional: bool
    """Whether None is a value."""
    choices: tuple[str, ...]
    """All the names there are, where these are fixed."""
    words: tuple[str, ...]
    """Names that stand in the place of a value of another type, such as ``all``."""
    marks: tuple[object, ...]

    @property
    def flag(self) -> str:
        """As messages name it: ``--image-size``, or ``IMAGE`` for what is given without a name."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def spelling(self) -> str:
        """As the command line takes it: with its negation where the default is not False."""
        both = self.item is bool and self.default is not False
        return f"{self.flag}/--no-{self.flag[2:]}" if both else self.flag

    @property
    def positional(self) -> bool:
        """Whether the command line takes it without its name."""
        return Argument in self.marks

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is dataclasses.MISSING

    @property
    def named(self) -> bool:
        """Whether some of its values have names, which a shell may complete."""
        return bool(self.choices or self.words or self._mark(Known))

    def completions(self) -> tuple[str, ...]:
        """The names of values."""
        known = self._mark(Known)
        return (*self.choices, *self.words, *(known.names() if known else ()))

    @property
    def metavar(self) -> str:
        """What stands for the value in the help; empty for a flag."""
        if self.item is bool:
            return ""
        if self.positional:
            return self.flag
        if own := self._mark(Metavar):
            return "|".join((own.text, *self.words))
        word = {int: "N", float: "X", Path: "PATH", str: "TEXT"}[self.item]
        if self._mark(Known):
            word = "NAME"
        known = self._mark(Known)
        if (known is None or known.listed) and (names := self._names()):
            word = f"[{'|'.join(names)}]"
        if self.shape == "many":
            word = f"{word}..." if self.item is Path else f"{word},..."
        elif self.shape != "one":
            word = "NAME=VALUE" if self.shape == "mapping" else f"{word},{word}"
        return word + "".join(f"|{name}" for name in self.words)

    def default_in_words(self) -> str:
        """The default as the command line writes it, or in words; empty where the help says it, or there is none."""
        if usual := self._mark(Usual):
            words: str = imported(usual.place)(self.name)
            return words
        if self.required or self.shape == "mapping" or any(self.default is none for none in (None, False, "", ())):
            return ""
        return self.flag if self.default is True else self.written(self.default)

    def described(self) -> str:
        """The help with the default, or that there is none."""
        default = self.default_in_words()
        return self.help + (f" [default: {default}]" if default else " [required]" if self.required else "")

    def written(self, value: Any) -> str:
        """A value as the command line takes it."""
        if isinstance(value, tuple | list):
            separator = "/" if self._mark(Metavar) == Metavar("I/N") else ","
            return separator.join(self.written(part) for part in value)
        return f"{value:g}" if isinstance(value, float) else str(value)

    def parsed(self, texts: Sequence[str]) -> Any:
        """The value that the command line's words stand for.

        Raises:
            UserError: they stand for none.
        """
        if self.shape == "mapping":
            return dict(map(self._pair, texts))
        if self.words and texts[-1] in self.words:
            return texts[-1]
        if self.shape == "one":
            return self._scalar(texts[-1])
        if self.item is Path:
            return tuple(texts)  # an empty one would be the working directory
        parts = re.split("[,/]" if self.shape == "pair" else ",", ",".join(texts))
        try:
            return tuple(self._scalar(part.strip()) for part in parts)
        except UserError:
            raise self._no(",".join(texts)) from None

    def checked(self, value: Any) -> Any:
        """``value`` in the type that the rest of the program relies on.

        Raises:
            UserError: the option takes no such value.
        """
        if value is None and (self.optional or self.default is None):
            return None
        if isinstance(value, str) and value in self.words:
            return value
        if self.shape == "one":
            return self._checked_scalar(value)
        if self.shape == "mapping":
            if not isinstance(value, Mapping):
                raise UserError(f"{self.flag} {value!r}: must be a mapping from names to values")
            return dict(value)
        if isinstance(value, str) and self.item is not Path:
            value = self.parsed([value])
        elif not isinstance(value, Iterable) or isinstance(value, str | PathLike):
            value = (value,)
        found = tuple(self._checked_scalar(part) for part in value)
        if self.shape == "pair" and len(found) != 2:
            raise UserError(f"{self.flag} {self.written(found)}: must be two values, as in {self.metavar}")
        if not found and found != self.default:
            raise UserError(f"{self.flag}: is empty; give at least one")
        many = self.shape == "many" and self.item is not Path and not self._mark(Again)
        if many and len(set(found)) < len(found):
            raise UserError(f"{self.flag} {self.written(found)}: names one twice")
        return found

    def _checked_scalar(self, value: Any) -> Any:
        names = self._names()
        kinds: Any = {bool: bool, int: Integral, float: Real, str: str, Path: (str, PathLike)}[self.item]
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.item is not bool):
            raise self._unknown(value) if names else self._no(value)
        if self.item is Path and not os.fspath(value):
            raise UserError(f"{self.flag}: is empty; give a path")
        value = located(value) if self.item is Path else self.item(value)
        if isinstance(value, Url) and not self._mark(InStore):
            raise UserError(f"{self.flag} {value}: only caches can be in an object store; give a place on a disk")
        if self.item is float and not math.isfinite(value):
            raise self._no(value)
        bounds, there = self._mark(Range), self._mark(Exists)
        known = self._mark(Known)
        parts = value.split("+") if known and known.sums and value not in names else [value]
        if names and (unknown := [part for part in parts if part not in names]):
            raise self._unknown(unknown[0])
        if len(set(parts)) < len(parts):
            raise UserError(f"{self.flag} {value}: names one twice")
        if self.item is str and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise UserError(f"{self.flag}: is not text in UTF-8; type it again, in a terminal set to UTF-8")
        if self.item is str and self.shape == "many" and not value:
            raise UserError(f"{self.flag}: has an empty name; give names with commas between")
        if self.item is int and abs(value) >= 1 << 53:
            raise UserError(f"{self.flag} {value}: is too large a number")
        if bounds and value not in bounds:
            raise UserError(f"{self.flag} {value}: must be {bounds}")
        if there and isinstance(value, Path) and not value.exists():
            fix = f"; {there.fix}" if there.fix else ""
            raise UserError(f"{self.flag} {value}: no such {there.what}{nearest(value, there.holds)}{fix}")
        return value

    def _scalar(self, text: str) -> Any:
        if self.item not in (int, float):
            return text
        try:
            return self.item(text)
        except ValueError:
            raise self._no(text) from None

    def _pair(self, text: str) -> tuple[str, Any]:
        name, given, value = text.partition("=")
        if not given or not name.strip():
            raise UserError(f"{self.flag} {text}: must be name=value, as in {self.flag} width=96")
        try:
            return name.strip().replace("-", "_"), json.loads(value)
        except ValueError:
            return name.strip().replace("-", "_"), value

    def _names(self) -> tuple[str, ...]:
        """All values, where these have names."""
        known = self._mark(Known)
        return tuple(known.names()) if known and known.strict else self.choices

    def _unknown(self, value: object) -> UserError:
        known = self._mark(Known)
        if known and known.page:
            return UserError(f"{self.flag} {value}: {one_of_many(str(value), known.described(), known.page)}")
        return UserError(f"{self.flag} {value}: {one_of(str(value), self._names())}")

    def _no(self, value: object) -> UserError:
        what = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}[
            self.item
        ]
        form = f", in the form {self.metavar}" if self.shape != "one" else "".join(f" or {word}" for word in self.words)
        return UserError(f"{self.flag} {value}: must be {what}{form}")

    def _mark(self, kind: type[M]) -> M | None:
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)


def imported(place: str) -> Any:
    """What ``module:attribute`` names, imported now."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
