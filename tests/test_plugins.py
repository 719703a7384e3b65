"""Other packages bring backbones, networks, layouts, formats: found by entry points, refused if they are none."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.pipeline import doctor
from textdiff.plugins import registry
from textdiff.readers.sample import Sample

OWN = {"ours": 1}


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Puts a package with entry points where Python finds it, without installing anything."""

    def make(name: str, entries: dict[str, list[str]], **modules: str) -> Path:
        folder = tmp_path / name
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        groups = (f"[textdiff.{group}]\n" + "\n".join(lines) for group, lines in entries.items())
        (info / "entry_points.txt").write_text("\n".join(groups))
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
        return folder

    before = set(sys.modules)
    yield make
    for module in set(sys.modules) - before:
        if module.startswith("lab_"):
            del sys.modules[module]


def test_a_plug_in_is_imported_when_it_is_asked_for(other_package):
    joined = registry("things", OWN, int)
    assert dict(joined) == OWN
    other_package("lab", {"things": ["theirs = lab_things:VALUE"]}, lab_things="VALUE = 2")
    assert list(joined) == ["ours", "theirs"]
    assert len(joined) == 2
    assert "theirs" in joined
    assert "lab_things" not in sys.modules
    assert joined["theirs"] == 2
    assert dict(joined) == {"ours": 1, "theirs": 2}
    assert joined.get("nobodys") is None


@pytest.mark.parametrize(
    ("entry", "module", "words"),
    [
        ("it = lab_bad:VALUE", "import nowhere_to_be_found", ("ModuleNotFoundError", "nowhere_to_be_found")),
        ("it = lab_bad:VALUE", "VALUES = 2", ("AttributeError", "VALUE")),
        ("it = lab_bad:VALUE", "1 / 0", ("ZeroDivisionError",)),
        ("it = lab_bad:VALUE", "VALUE = 'two'", ("is a str, and must be a int",)),
        ("ours = lab_bad:VALUE", "VALUE = 2", ("ours: is the name of a plug-in", "taken by textdiff itself")),
        ("it = lab_bad:VALUE\nIt = lab_bad:VALUE\nit = lab_bad:VALUE", "VALUE = 2", ("taken by lab 1.2",)),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_refused_in_one_line(other_package, entry, module, words):
    other_package("lab", {"things": [entry]}, lab_bad=module)
    joined = registry("things", OWN, int)
    name = entry.split()[0]
    with pytest.raises(UserError) as refused:
        joined[name]
    said = str(refused.value)
    assert "\n" not in said
    for word in (name, "lab 1.2", "textdiff.things", *words):
        assert word in said
    assert next(iter(joined)) == "ours"  # the list can still be shown


LOOKING = """
import importlib.metadata, sys
find = importlib.metadata.entry_points

def entry_points(group):
    print("looked for", group, file=sys.stderr)
    return find(group=group)

importlib.metadata.entry_points = entry_points
import textdiff.cli
textdiff.cli.main()
"""


@pytest.mark.parametrize(("arguments", "looked"), [(["--help"], False), (["fit", "--model", "none"], True)])
def test_the_help_looks_for_no_plug_in(arguments, looked):
    command = [sys.executable, "-c", LOOKING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ("looked for textdiff." in done.stderr) == looked, done


BACKBONE = """
import torch
from textdiff.models.backbones.base import Backbone

class Toy(Backbone):
    reads_text = True

    def levels(self, image_size):
        return {3: (4, image_size // 2, image_size // 2)}

    def features(self, images, t, texts, levels):
        x = images.float()[..., ::2, ::2] / 255
        told = x.new_tensor([len(text) for text in texts])[:, None, None, None].expand_as(x[:, :1])
        return {3: torch.cat([x, told], 1)}
"""
READER = """
from textdiff.readers.sample import Sample

def read_toy(root, options):
    return [
        Sample(p.stem, "test" if p.stem > "c" else "train", p, root / f"{p.stem}.mask.png", f"it is {p.stem}")
        for p in sorted(root.glob("?.png"))
    ], []
"""
FORMAT = """
from textdiff.outputs import Format

def write(path, segmented, numbered):
    path.write_text(f"{segmented.name} {(segmented.labels > 0).sum()}")

FORMAT = Format("Toy", ".toy", write)
"""
NETWORK = """
from torch import nn
from textdiff.models.networks.image_network import ImageNetwork
from textdiff.models.networks.recipes import FAIR

class Toy(ImageNetwork):
    title, recipes = "a toy", {"default": FAIR._replace(learning_rate=0.03), "slow": FAIR}

    def __init__(self, classes, standardise, augment, side=None):
        super().__init__()
        self.config = {"classes": classes, "standardise": standardise, "augment": augment, "side": side}
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 1))

    @classmethod
    def build(cls, cache, options, recipe):
        cls.check_options(options)
        return cls(len(cache.classes) + 1, recipe.standardise, recipe.augment)

    def scores(self, x):
        return self.layers(x)
"""
NETWORKS = {"toy": "lab_network:Toy", "gone": "lab_gone:Toy", "number": "lab_network:FAIR", "conv": "torch.nn:Conv2d"}
ENTRIES = {
    "backbones": ["toy = lab_backbone:Toy"],
    "readers": ["toys = lab_reader:read_toy"],
    "formats": ["toy = lab_format:FORMAT"],
    # Those that cannot be used are in nobody's way.
    "networks": [f"{name} = {place}" for name, place in NETWORKS.items()],
}


def test_backbones_networks_layouts_and_formats_come_from_outside(other_package, tmp_path, textdiff_once, monkeypatch):
    other_package("lab", ENTRIES, lab_backbone=BACKBONE, lab_reader=READER, lab_format=FORMAT, lab_network=NETWORK)
    (tmp_path / "data").mkdir()
    draw = np.random.default_rng(0)
    for name in "abcde":
        mask = np.kron(draw.random((6, 6)) < 0.4, np.ones((8, 8))).astype(bool)
        Image.fromarray(np.where(mask[..., None], (90, 40, 120), (230, 200, 220)).astype(np.uint8)).save(
            tmp_path / f"data/{name}.png"
        )
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"data/{name}.mask.png")
    assert "|toys]" in textdiff_once(tmp_path, "extract", "--help").stdout
    command = ["extract", "--dataset", "toys", "--data", "data", "--backbone", "toy", "--text-encoder", "none"]
    textdiff_once(tmp_path, *command, "--image-size", "50", "--device", "cpu")
    cache = FeatureCache.open(tmp_path / "cache/toys.zarr")
    assert (cache.steps, cache.blocks, [row.split for row in cache.rows]) == (
        (0,),
        {3: (4, 25, 25)},
        ["train"] * 3 + ["test"] * 2,
    )
    np.testing.assert_allclose(cache.features(0, 3)[0, 3], len("it is a"))
    fit = ["fit", "--cache", "cache/toys.zarr", "--variant", "no-text", "--epochs", "12", "--batch-size", "1"]
    textdiff_once(tmp_path, *fit, "--device", "cpu")
    textdiff_once(tmp_path, "score", "--device", "cpu")
    assert textdiff.open_run(tmp_path / "runs/latest").scores()["scores"]["clean"]["dice"]["mean"] > 0.6
    predict = ["predict", "data/e.png", "--text", "it is e", "--format", "toy", "--out", "out", "--device", "cpu"]
    textdiff_once(tmp_path, *predict)
    found = np.asarray(Image.open(tmp_path / "out/e.png")) > 0
    assert (tmp_path / "out/e.toy").read_text() == f"e {found.sum()}"
    _fit_and_use_a_network(tmp_path, textdiff_once)
    # What the backbone read decides what it gave, so a row whose text changed is made anew.
    monkeypatch.setattr(sys.modules["lab_reader"], "Sample", lambda *given: Sample(*given[:-1], given[-1] + "!"))
    textdiff_once(tmp_path, *command, "--image-size", "50", "--device", "cpu", "--update")
    np.testing.assert_allclose(FeatureCache.open(cache.path).features(0, 3)[0, 3], len("it is a!"))


def _fit_and_use_a_network(root, textdiff_once):
    """``fit --model toy`` on the images of the cache ``toys``, ``score``, ``predict``; and what is no network."""
    assert "|toy|gone|number|conv]" in textdiff_once(root, "fit", "--help").stdout
    fit = ("fit", "--cache", "cache/toys.zarr", "--device", "cpu", "--model")
    textdiff_once(root, *fit, "toy", "--epochs", "40")
    run = textdiff.open_run(root / "runs/latest")
    assert (run.label, run.config["fit"]["learning_rate"]) == ("toy", 0.03)
    textdiff_once(root, "score", "--device", "cpu")
    assert run.scores()["scores"]["clean"]["dice"]["mean"] > 0.6
    textdiff_once(root, "predict", "data/e.png", "--out", "by-toy", "--device", "cpu")
    found, truth = (np.asarray(Image.open(root / name)) > 0 for name in ("by-toy/e.png", "data/e.mask.png"))
    assert (found == truth).mean() > 0.8
    textdiff_once(root, *fit, "toy", "--recipe", "slow", "--epochs", "1")
    assert textdiff.open_run(root / "runs/latest").label == "toy-slow"
    for name, words in (("gone", "ModuleNotFoundError"), ("number", "must be a type"), ("conv", "must be a Segmenter")):
        said = textdiff_once(root, *fit, name, status=2).stderr
        assert words in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("group", "command"),
    [
        ("backbones", ("extract", "--dataset", "phantom", "--backbone", "toy", "--text-encoder", "none")),
        ("readers", ("data", "check", "--dataset", "toys", "--data", ".")),
    ],
)
def test_a_broken_plug_in_ends_a_command_with_a_line(other_package, tmp_path, textdiff_once, group, command):
    broken = dict.fromkeys(("lab_backbone", "lab_reader", "lab_format"), "import nowhere_to_be_found")
    other_package("lab", ENTRIES, **broken)
    said = textdiff_once(tmp_path, *command, status=2).stderr
    assert len(said.splitlines()) == 1
    for word in ("lab 1.2", f"textdiff.{group}", "nowhere_to_be_found"):
        assert word in said


def test_doctor_lists_what_packages_add_and_what_of_it_cannot_be_used(other_package):
    networks = [f"{name} = {place}" for name, place in NETWORKS.items() if name != "toy"]
    wrong = {"backbone": ["toy = lab_format:FORMAT"], "formats": ["png = lab_format:FORMAT"], "networks": networks}
    other_package("lab", {"backbones": ENTRIES["backbones"], "readers": ENTRIES["readers"]}, lab_backbone=BACKBONE,
                  lab_reader=READER)  # fmt: skip
    other_package("lab_two", wrong, lab_format=FORMAT, lab_network="import sys\nsys.exit(3)")
    lines = [str(line) for line in doctor.EXAMINATIONS["plug-ins"](Path())]
    assert lines[0] == "PASS  plug-ins: lab 1.2 adds toy (backbones), toys (readers)"
    for line, words in zip(
        lines[1:],
        [
            (
                "WARN",
                "toy: the plug-in of lab_two 1.2 (textdiff.backbone) is looked for by nothing",
                "textdiff.readers",
            ),
            ("FAIL", "png: is the name of a plug-in of lab_two 1.2", "taken by textdiff itself; fix: rename"),
            ("FAIL", "gone: ", "lab_two 1.2", "No module named 'lab_gone'); fix: mend it, or uninstall it"),
            ("FAIL", "number: ", "SystemExit: 3"),
            ("FAIL", "conv: the plug-in of lab_two 1.2 (textdiff.networks) is no Segmenter; fix: mend it"),
        ],
        strict=True,
    ):
        for word in words:
            assert word in line


def test_doctor_passes_over_what_a_hidden_release_of_a_package_adds(other_package, tmp_path, monkeypatch):
    other_package("lab", {"readers": ENTRIES["readers"]}, lab_reader=READER)
    info = tmp_path / "behind/lab-1.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.1\n")
    (info / "entry_points.txt").write_text("[textdiff.readers]\nolder = lab_older:READER\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "behind")])
    [line] = doctor.EXAMINATIONS["plug-ins"](Path())
    assert str(line) == "PASS  plug-ins: lab 1.2 adds toys (readers)"


def test_the_package_of_the_page_does_what_it_says(other_package, tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[1] / "docs/plugins.md").read_text()
    (snippet,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    groups = tomllib.loads(snippet)["project"]["entry-points"]
    entries = {
        group.removeprefix("textdiff."): [f"{name} = {place}" for name, place in found.items()]
        for group, found in groups.items()
    }
    place = other_package("lab_tools", entries) / "lab_tools"
    place.mkdir()
    for name, text in re.findall(r"```python\n# lab_tools/(\w+\.py)\n(.*?)```", page, flags=re.DOTALL):
        (place / name).write_text(text)
    assert len(list(place.iterdir())) == len(entries) == 4
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        folder = tmp_path / f"toys/{number}"
        folder.mkdir(parents=True)
        mask = np.kron(np.indices((4, 4)).sum(0) % 2 == number, np.ones((16, 16))).astype(bool)
        Image.fromarray(np.where(mask[..., None], (90, 40, 120), (230, 200, 220)).astype(np.uint8)).save(
            folder / "image.png"
        )
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
    cpu = {"device": "cpu"}
    cache = textdiff.extract("toys", data="toys", backbone="toy", text_encoder="none", image_size=64, **cpu)
    assert FeatureCache.open(cache).blocks == {0: (3, 32, 32)}
    run = textdiff.fit(cache, model="tiny", epochs=60, learning_rate=0.02, **cpu)
    textdiff.predict("toys/0/image.png", run=run, format=["count"], **cpu)
    found = np.asarray(Image.open("predictions/image.png")) > 0
    truth = np.asarray(Image.open("toys/0/mask.png")) > 0
    assert (found == truth).mean() > 0.9
    assert Path("predictions/image.count.txt").read_text().endswith(f"objects, {found.sum()} pixels")
    with pytest.raises(UserError, match="two convolutions reads no text"):
        textdiff.fit(cache, model="tiny", variant="concat", **cpu)
