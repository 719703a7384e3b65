"""The floor plan: which folder may import which. Arrows point down, and never in a circle."""

import ast
import re
from pathlib import Path

import pytest

from textdiff.models.backbones import BACKBONES
from textdiff.models.networks.models import MODELS
from textdiff.outputs import FORMATS
from textdiff.readers import READERS

ROOT = Path(__file__).resolve().parents[1]
# From the top down; folders of one storey do not know each other.
STOREYS = (
    ("__main__", "cli", "commands", "api", "napari_plugin"),
    ("experiments",),
    ("pipeline",),
    ("models", "readers"),
    ("cache", "images", "metrics", "outputs"),
    ("options", "tables", "console", "files", "places", "plugins", "stopping", "errors"),
)
# The ground floor and the attic are each one room: their modules share what the whole house stands on, or is seen as.
SHARED = {*STOREYS[0], *STOREYS[-1]}
HEIGHT = {name: len(STOREYS) - number for number, names in enumerate(STOREYS) for name in names}


def imports() -> set[tuple[str, str, str]]:
    """(file, its folder, the folder imported) of every import of our own, wherever in the file it stands."""
    found = set()
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT)
        folder = place.parts[0].removesuffix(".py")
        if folder not in HEIGHT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textdiff"):
                for module in [node.module] if "." in node.module else [f"textdiff.{one.name}" for one in node.names]:
                    found.add((str(place), folder, module.split(".")[1]))
    return found


IMPORTS = imports()


def test_the_plan_names_every_folder_and_module():
    packaged = {
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in (*ROOT.glob("*/__init__.py"), *ROOT.glob("*.py"))
        if path != ROOT / "__init__.py"
    }
    assert packaged == set(HEIGHT)
    assert len(IMPORTS) > 300


@pytest.mark.parametrize("folder", sorted(HEIGHT))
def test_arrows_point_down(folder):
    wrong = sorted(
        f"{file} imports textdiff.{target}"
        for file, source, target in IMPORTS
        if source == folder
        and target in HEIGHT
        and target != folder
        and (HEIGHT[target] > HEIGHT[folder] or (HEIGHT[target] == HEIGHT[folder] and folder not in SHARED))
    )
    assert wrong == []


@pytest.mark.parametrize(
    ("call", "folders", "place"),
    [
        ("inference_mode", ("pipeline", "experiments", "api"), "pipeline/predictions.py"),
        ("disk_usage", HEIGHT, "files.py"),
        ("quantile", HEIGHT, "metrics/intervals.py"),
    ],
)
def test_there_is_one_of_each(call, folders, place):
    """One loop that runs networks without gradients, one check of free space, one interval."""
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].removesuffix(".py") in folders]
    found = [
        path
        for path in files
        if call in {getattr(node, "attr", "") for node in ast.walk(ast.parse(path.read_text("utf-8")))}
    ]
    assert [str(path.relative_to(ROOT)) for path in found] == [place]


def test_a_path_in_a_command_to_be_typed_is_quoted_as_a_shell_reads_it():
    """``textdiff fit --cache '/data/my slides.zarr'``; elsewhere a path stands as it is."""
    command = re.compile(r"textdiff [a-z-]+( repair|( [^;:`]*)? --(cache|run|data|backbone)) $", flags=re.DOTALL)
    asked, wrong = 0, []
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT)
        if place.parts[0].removesuffix(".py") not in HEIGHT:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            said = ""
            for part in node.values if isinstance(node, ast.JoinedStr) else ():
                if isinstance(part, ast.FormattedValue) and command.search(said):
                    asked += 1
                    if not ast.unparse(part.value).startswith("quoted("):
                        wrong.append(f"{place}:{part.lineno}: {ast.unparse(part.value)}")
                said += part.value if isinstance(part, ast.Constant) else "X"
    assert wrong == []
    assert asked > 20


def test_nothing_goes_by_the_name_of_a_plug_in():
    """What differs between backbones, networks, layouts and formats is a fact that each of them states."""
    names = {*BACKBONES, *MODELS, *READERS, *FORMATS} - {"textdiff", "rgb"}  # the package, and an order of channels
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0].removesuffix(".py") in HEIGHT
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Compare)
        and names & {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    ]
    assert found == []
