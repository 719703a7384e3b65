"""Commands of Typer made from records: the signature, the grouped help, the completion."""

__all__ = ["Command", "add", "usage"]

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperArgument, TyperCommand

from textdiff.options.option import Option, imported
from textdiff.options.record import Record, options, summary


class Command(NamedTuple):
    """What a command is made from."""

    record: type[Record]
    run: str
    """``module:function`` of what takes the record, below ``textdiff``: it is imported once the options are sound."""
    show: Callable[[Any, Any, bool], None]
    """Prints the function's result, for given options, and as JSON where that is asked for."""
    as_json: bool = False
    """Whether JSON can be asked for."""
    takes: tuple[str, ...] = ()
    """The options that the function takes one by one, in the place of the record."""


class _Grouped(TyperCommand):
    """A command whose help has its options in groups, and is made when it is shown: plug-ins may add to it."""

    record: type[Record]

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        # Typer puts what must be given into braces, which elsewhere stand for a choice.
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        groups: dict[str, list[tuple[str, str]]] = {}
        shown = {option.name: option for option in options(self.record)}
        for parameter in self.get_params(ctx):
            option = shown.get(parameter.name or "")
            if option and not option.positional:
                parameter.help = option.described()  # type: ignore[attr-defined]
                parameter.metavar = option.metavar or None
            line = parameter.get_help_record(ctx)
            if line and isinstance(parameter, TyperArgument):
                line = f"{parameter.metavar}{'...' if parameter.nargs == -1 else ''}", line[1]
            if line:
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Other options", []).append(line)
        for heading, lines in groups.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


def add(app: typer.Typer, name: str, command: Command) -> None:
    """Adds a command to an app. Values are checked by the record, so that mistakes read the same everywhere."""
    shown = options(command.record)

    def call(**given: Any) -> None:
        as_json = bool(given.pop("as_json", False))
        by_name = {option.name: option for option in shown}
        values = {name: _value(by_name[name], value) for name, value in given.items() if value not in (None, [])}
        record = command.record.of((), values, name)
        taken = [getattr(record, name) for name in command.takes] or [record]
        command.show(imported(f"textdiff.{command.run}")(*taken), record, as_json)

    parameters = [_parameter(option) for option in shown]
    if command.as_json:
        flag = typer.Option("--json", help="Print JSON for a program to read.", show_default=False)
        parameters.append(_keyword("as_json", Annotated[bool | None, flag]))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__ = inspect.getdoc(command.record)
    kind = type("Grouped", (_Grouped,), {"record": command.record})
    app.command(name, cls=kind, short_help=summary(command.record))(call)


def usage(error: Any) -> str:
    """What was wrong with the words of a command line, and where its help is; ``error`` is Click's."""
    message = error.format_message().rstrip(".")
    context = error.ctx
    command = context.command_path if context else "textdiff"
    extra = re.search(r"unexpected extra arguments?(?:\(s\))? \((.+)\)$", message)
    takes_run = context and any(parameter.name == "run" for parameter in context.command.params)
    if takes_run and extra:
        words = [extra[1]] if Path(extra[1]).is_dir() else extra[1].split()
        given = [context.params.get(name) for name in ("run", "runs")]
        if all(Path(word).is_dir() for word in words):
            several = len(words) > 1 or any(one and (Path(one) / "config.json").is_file() for one in given)
            told = "`textdiff combine` makes one run of several" if several else f"a run is given as --run {words[0]}"
            message += f"; {told}"
    return f"{message} (`{command} --help` shows what there is)"


def _value(option: Option, given: Any) -> Any:
    if option.item is bool:
        return given
    return option.parsed(given if isinstance(given, list) else [given])


def _parameter(option: Option) -> inspect.Parameter:
    one: Any = bool if option.item is bool else str
    many = option.shape in ("many", "mapping")
    told = option.positional and option.required  # by Typer
    more: dict[str, Any] = {"show_default": False, "rich_help_panel": option.group}
    if option.positional:
        more |= {"help": option.help if told else option.described(), "metavar": option.metavar}
    if option.named:
        more["autocompletion"] = _completion(option)
    info: Any = typer.Argument(**more) if option.positional else typer.Option(option.spelling, **more)
    # Other options that must be given are asked for by the record.
    default = inspect.Parameter.empty if told else None
    kind = list[one] if many else one
    return _keyword(option.name, Annotated[kind if default else kind | None, info], default)


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _completion(option: Option) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if option.shape == "many" else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in option.completions() if name.startswith(last)]

    return complete
