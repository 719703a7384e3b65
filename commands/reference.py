"""The reference page, made of the records: ``python -m textdiff.commands.reference > docs/reference.md``."""

__all__ = ["page"]

import inspect
from collections.abc import Iterator

from textdiff.cli import COMMANDS
from textdiff.commands.recipe_table import COLUMNS, recipe_rows
from textdiff.options.option import Option
from textdiff.options.record import options

HEAD = """# Reference

These are all commands with their options. The stages and the experiments are functions too, as in
`textdiff.fit(cache, labels=5)`: the option `--batch-size` is the keyword `batch_size`, and a list such as `6,8` is
`[6, 8]`. `textdiff next` is `textdiff.rank`. On the command line a list has commas, or its option is repeated;
`textdiff --install-completion` lets the shell complete names and values. `make reference` makes this page.
"""
RECIPES = """## Networks and recipes

`fit --model NETWORK --recipe RECIPE` trains as follows; [networks](networks.md) says what each network is. The cache's
size is that of `extract --image-size`, rounded up where a network needs a multiple of 16 or 32. The column on
normalisation is about batch normalisation where a network has it. Where there are no validation images the last weights
are kept.
"""


def page() -> str:
    """The page in Markdown."""
    return "\n".join([HEAD, *(line for name in COMMANDS for line in _command(name)), RECIPES, *_table()])


def _command(name: str) -> Iterator[str]:
    command = COMMANDS[name]
    positional = "".join(f" {option.name.upper()}" for option in options(command.record) if option.positional)
    yield from (f"## textdiff {name}{positional}", "")
    yield from (inspect.getdoc(command.record) or "", "")
    groups: dict[str, list[Option]] = {}
    for option in options(command.record):
        groups.setdefault(option.group, []).append(option)
    for heading, members in groups.items():
        yield from (f"**{heading}**", "", "| | | default |", "| :-- | :-- | :-- |")
        for option in members:
            value = f" {option.metavar}" if option.metavar and not option.positional else ""
            default = "required" if option.required else option.default_in_words()
            yield _row(f"`{option.spelling}{value}`", option.help, default)
        yield ""
    if command.as_json:
        yield from ("With `--json` the result is printed as JSON.", "")


def _table() -> Iterator[str]:
    yield _row(*COLUMNS)
    yield _row(*[":--"] * len(COLUMNS))
    yield from (_row(*cells) for cells in recipe_rows())
    yield ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(page(), end="")
