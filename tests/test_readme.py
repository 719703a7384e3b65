"""What the documents tell a reader to type exists, and what they point to is there."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer.main
from PIL import Image

from textdiff.benchmarks.results_figure import drawn
from textdiff.cli import COMMANDS, app
from textdiff.models.networks.models import MODELS, get_model, get_recipe
from textdiff.options.fit import FitConfig
from textdiff.options.option import Exists
from textdiff.options.record import options
from textdiff.pipeline.pretraining.config import CONFIGS

ROOT = Path(__file__).resolve().parents[1]
RESEARCH = ROOT / "docs/research"
DOCUMENTS = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


def commands(text: str, program: str) -> list[str]:
    lines = (line.split(" #")[0].strip() for line in text.splitlines() if line.startswith("    "))
    return [line for line in lines if line.startswith(f"{program} ")]


def with_names_of_now(text: str) -> str:
    """A dated note, with recipes and rows called as they are now: so says the table of the notes."""
    table = (RESEARCH / "README.md").read_text()
    renamed = re.findall(r"^\| (row )?.*`(?:--recipe )?(\S+)` \| `(\S+)` \|$", table, flags=re.MULTILINE)
    assert renamed
    for row, then, now in renamed:
        before = r"(?<=[ ,])" if row else r"(?<=recipe[ =])"
        text = re.sub(f"{before}{then}(?![\\w-])", now, text)
    return text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_parse(document):
    every, text = typer.main.get_command(app), (ROOT / document).read_text()
    for line in commands(with_names_of_now(text) if RESEARCH in (ROOT / document).parents else text, "textdiff"):
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


def test_networks_have_the_parameters_that_their_page_says():
    blocks = {6: (512, 32, 32), 8: (512, 64, 64), 12: (256, 128, 128), 16: (256, 256, 256)}
    made = {"unet": CONFIGS["adm-256"] | {"out_channels": 6, "use_new_attention_order": False}}
    sizes = {"blocks": blocks, "steps": (50, 150, 250), "text_dim": 768, "fingerprint": made}
    cache = SimpleNamespace(classes=("nucleus",), image_size=256, **sizes)
    page = (ROOT / "docs/networks.md").read_text()
    told = re.findall(r"^\| `(\S+)` \| .* \| ([\d,]+) \| ([\d,]+) \|$", page, flags=re.MULTILINE)
    assert [name for name, *_ in told] == list(MODELS)
    for name, *counts in told:
        for recipe, count in zip(("default", "fair"), counts, strict=True):
            if recipe not in get_model(name).recipes:  # trees have one
                continue
            options = FitConfig(model=name, recipe=recipe)
            with torch.device("meta"):
                network = get_model(name).build(cache, options, get_recipe(name, recipe))
            assert f"{sum(x.numel() for x in network.parameters()):,}" == count, (name, recipe)


def test_the_picture_of_the_results_shows_the_numbers_of_their_page():
    """It is drawn again by ``python benchmarks/results_figure.py docs/results.md docs/images/results.png``."""
    with Image.open(ROOT / "docs/images/results.png") as picture:
        shown = picture.text["Comment"]
    assert shown == drawn((ROOT / "docs/results.md").read_text(encoding="utf-8"))
    assert all(len(rows) > 1 for _, labels, tables in json.loads(shown) for _, rows in zip(labels, tables, strict=True))
