"""The mechanism by which an option is declared once: as a field of a frozen dataclass.

    @dataclass(frozen=True)
    class Score(Record):
        \"\"\"Score a run on the annotated images of a split.\"\"\"

        split: Literal["train", "val", "test"] = "test"
        \"\"\"Images to score on.\"\"\"

The field's name is the keyword of the Python API and, with ``--`` before it, the option of the command line. Its type
says which values there are, its default is the default, and the docstring below it is the help. The class's docstring
is the command's. Options that several commands share are a class of their own, from which the commands' records
inherit; its docstring is the heading that they stand under in the help.
"""

__all__ = ["Record", "function", "options", "summary"]

import ast
import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from textdiff.errors import UserError, suggest
from textdiff.options.option import Option

P = ParamSpec("P")
R = TypeVar("R", bound="Record")
T = TypeVar("T")


class Record:
    """The base of all records: every value is checked, and brought to its type, when a record is made."""

    explicit: frozenset[str] = frozenset()
    """The options that the caller of ``of`` gave, also with their defaults; none of a record that is made directly."""

    def __post_init__(self) -> None:
        for option in options(type(self)):
            object.__setattr__(self, option.name, option.checked(getattr(self, option.name)))
        self.check()

    def check(self) -> None:
        """Refuses values that contradict each other.

        Raises:
            UserError: they do.
        """

    def part(self, record: type[R], **changes: Any) -> R:
        """A record of another type, of the fields that both have and of ``changes``."""
        shared = {option.name: getattr(self, option.name) for option in options(record) if hasattr(self, option.name)}
        return record(**shared | changes)

    @classmethod
    def of(cls, arguments: Sequence[Any], keywords: Mapping[str, Any], name: str) -> Self:
        """The record that the arguments of a call to ``name`` make.

        Raises:
            UserError: an unknown keyword, an option that is missing, or a value that an option does not take.
        """
        known = {option.name: option for option in options(cls)}
        for keyword in keywords:
            if keyword not in known:
                hint = suggest(keyword, known) or f"; there are {', '.join(known)}"
                raise UserError(f"{name}: has no option {keyword}{hint}")
        try:
            given = inspect.signature(cls).bind_partial(*arguments, **keywords).arguments
        except TypeError as error:
            raise UserError(f"{name}: {error}") from None
        for option in known.values():
            if option.required and option.name not in given:
                raise UserError(
                    f"{option.flag}: is missing; give the {option.help[0].lower()}{option.help[1:].rstrip('.')}"
                )
        record = cls(*arguments, **keywords)
        object.__setattr__(record, "explicit", frozenset(given))
        return record


def function(record: Callable[P, R], run: Callable[[R], T]) -> Callable[P, T]:
    """``run`` as a function whose arguments are the fields of ``record``, for the Python API."""
    kind = cast(type[R], record)

    @wraps(run)
    def call(*arguments: P.args, **keywords: P.kwargs) -> T:
        return run(kind.of(arguments, keywords, kind.__name__.lower()))

    raised = inspect.getdoc(run) or ""
    lines = [inspect.getdoc(kind) or "", "", "Args:", *(f"    {o.name}: {o.described()}" for o in options(kind))]
    call.__doc__ = "\n".join([*lines, *raised.partition("\n")[2:]])
    call.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    del call.__wrapped__
    return call


def summary(record: type[Record]) -> str:
    """The first sentence of a record's docstring: what its command is for."""
    return (inspect.getdoc(record) or "").partition("\n")[0]


def options(record: type[Record]) -> tuple[Option, ...]:
    """The options of a record: those that must be given first, then its own, then those that it shares."""
    return _options(cast(Any, record))


@cache
def _options(record: type[Any]) -> tuple[Option, ...]:
    hints = get_type_hints(record, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(record)}
    seen: dict[str, Option] = {}
    for part in record.__mro__:
        helps = _helps(part.__module__).get(part.__name__, {}) if issubclass(part, Record) else {}
        heading = "Options" if part is record else summary(part).rstrip(".")
        for name in vars(part).get("__annotations__", {}):
            if name in fields and name not in seen and name in helps:
                seen[name] = _option(fields[name], hints[name], helps[name], heading)
    return tuple(sorted(seen.values(), key=lambda option: not option.required))


def _option(field: "dataclasses.Field[Any]", hint: Any, text: str, heading: str) -> Option:
    kinds, marks = _alternatives(hint)
    literals = [str(name) for kind in kinds if get_origin(kind) is Literal for name in get_args(kind)]
    others = [kind for kind in kinds if kind is not types.NoneType and get_origin(kind) is not Literal]
    shape: Literal["one", "many", "pair", "mapping"] = "one"
    for kind in others:
        if issubclass(get_origin(kind) or kind, Mapping):
            shape, others = "mapping", [str]
        elif get_origin(kind) is tuple and get_args(kind)[-1] is not ...:
            shape, others = "pair", [get_args(kind)[0]]
        elif issubclass(get_origin(kind) or kind, Sequence) and kind is not str:
            shape = "many"
            inner, more = _alternatives(get_args(kind)[0])
            marks += more
            named = [name for kind in inner if get_origin(kind) is Literal for name in get_args(kind)]
            literals, others = ([*named, *literals], []) if named else (literals, inner)
    item = Path if any(issubclass(get_origin(kind) or kind, PathLike) for kind in others) else (others or [str])[0]
    return Option(
        name=field.name,
        help=text,
        group=heading,
        default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
        item=item,
        shape=shape,
        optional=types.NoneType in kinds,
        choices=() if others else tuple(literals),
        words=tuple(literals) if others else (),
        marks=tuple(marks),
    )


def _alternatives(hint: Any) -> tuple[list[Any], list[object]]:
    """The types that a hint allows, and what ``Annotated`` says beside them."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        kinds, more = _alternatives(inner)
        return kinds, [*marks, *more]
    if get_origin(hint) in (Union, types.UnionType):
        found = [_alternatives(part) for part in get_args(hint)]
        return [kind for kinds, _ in found for kind in kinds], [mark for _, marks in found for mark in marks]
    return [hint], []


@cache
def _helps(module: str) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of a module's classes, by class and field, each as one line."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_documented(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _documented(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(node.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())
