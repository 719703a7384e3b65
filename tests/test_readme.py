"""What the documents tell a reader to type exists, and what they point to is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from textdiff.cli import COMMANDS, app
from textdiff.options.option import Exists
from textdiff.options.record import options

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


def commands(text: str, program: str) -> list[str]:
    lines = (line.split(" #")[0].strip() for line in text.splitlines() if line.startswith("    "))
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_parse(document):
    every = typer.main.get_command(app)
    for line in commands((ROOT / document).read_text(), "textdiff"):
        command, arguments, name = every, shlex.split(line)[1:], []
        while hasattr(command, "commands"):
            assert arguments[0] in command.commands, line
            name.append(arguments[0])
            command, arguments = command.commands[arguments[0]], arguments[1:]
        given = command.make_context(line, list(arguments)).params
        for option in options(COMMANDS[" ".join(name)].record):
            value = given[option.name]
            if value and option.item is not bool and not any(isinstance(mark, Exists) for mark in option.marks):
                option.checked(option.parsed(value if isinstance(value, list) else [value]))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_pictures_are_there(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line.split()[1] for line in commands((ROOT / "README.md").read_text(), "make")}
    assert {"demo", "test"} == named <= targets
