"""``score --data``: the backbone is run on the images, and the scores are those that a cache of them gives."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache, Loader
from textdiff.tests.run_cases import newest
from textdiff.tests.text_cases import make_bert

WORDS = ("one", "two", "three", "nuclei", "pale", "dense")
CASES = {
    "int8": (("--dtype", "int8"), ("--variant", "full")),
    # A control, whose texts are those of other images.
    "shuffled": ((), ("--variant", "shuffled-text")),
    # Stitched tiles, each the mean of eight views, of a head that reads a part of the cache.
    "tiles": (
        ("--dtype", "float32", "--tile", "64", "--overlap", "12", "--test-views", "8"),
        ("--variant", "full", "--blocks", "8"),
    ),
    # A network that reads images only.
    "unet": ((), ("--model", "unet", "--width", "8")),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A BERT with random weights that knows ``WORDS``."""
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    make_bert(folder, WORDS)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A directory with a data set."""
    root, rng = tmp_path_factory.mktemp("streamed"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    lines = ["image,text,split"]
    for number, split in enumerate(("train", "train", "val", "test", "test")):
        mask = np.kron(rng.random((5, 6)) < 0.4, np.ones((16, 16)))
        image = (np.where(mask, 60, 180)[..., None] + rng.integers(0, 60, (80, 96, 3))).astype(np.uint8)
        Image.fromarray(image).save(root / f"data/images/c{number}.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(root / f"data/masks/c{number}.png")
        lines.append(f"c{number},{WORDS[number]} nuclei,{split}")
    (root / "data/texts.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def scored(root, tiny_backbone, encoder, textdiff_once) -> Callable[[str], Path]:
    """For a case the directory of its runs: one run, scored by its cache."""

    @cache
    def make(name: str) -> Path:
        made, fitted = CASES[name]
        textdiff_once(
            root, "extract", "--dataset", "folder", "--data", "data", "--cache", f"{name}.zarr", "--image-size", "64",
            *("--backbone", str(tiny_backbone), "--text-encoder", str(encoder), "--views", "1"),
            *("--blocks", "6,8", "--steps", "50,150", *made),
        )  # fmt: skip
        fit = ("fit", "--cache", f"{name}.zarr", "--epochs", "1", "--learning-rate", "0.01", *fitted)
        textdiff_once(root, *fit, "--runs", name)
        textdiff_once(root, "score", "--runs", name)
        return root / name

    return make


def scores(runs: Path, suffix: str = "") -> dict:
    return json.loads((newest(runs).path / f"scores{suffix}.json").read_text())


@pytest.mark.parametrize(
    "name", ["int8", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "int8")]
)
def test_scores_are_those_of_the_cache_to_the_bit_and_no_cache_is_read(root, scored, textdiff_once, monkeypatch, name):
    before = scores(scored(name))
    shutil.copytree(root / "data", root / f"{name}-data")
    monkeypatch.setattr(Loader, "__init__", None)
    monkeypatch.setattr(FeatureCache, "open", None)
    textdiff_once(root, "score", "--runs", name, "--data", f"{name}-data")
    assert scores(root / name) == before
    assert before["images"][0]["dice_clean"] > 0
    assert not list(root.glob("*-data/**/*.zarr"))


def test_a_given_text_and_another_split_are_scored_as_by_the_cache(root, scored, textdiff_once):
    runs = scored("int8")
    textdiff_once(root, "score", "--runs", "int8", "--text", "", "--split", "val")
    before = scores(runs, "-val-text-empty")
    textdiff_once(root, "score", "--runs", "int8", "--text", "", "--split", "val", "--data", "data")
    assert scores(runs, "-val-text-empty") == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((), ["--data and --cache", "give one"]),
        ("masks", ["the test split has no image with a mask", "; give masks to images of the split test"]),
        ("split", ["c0 is a test image now", "was fitted on it"]),
        ("backbone", ["not the backbone that"]),
    ],
)
def test_what_does_not_match_is_refused_in_one_line(root, scored, tmp_path, textdiff_once, change, words):
    scored("int8")
    data, more = tmp_path / "data", ()
    shutil.copytree(root / "data", data)
    if change == ():
        more = ("--cache", "int8.zarr")
    elif change == "masks":
        shutil.rmtree(data / "masks")
        (data / "masks").mkdir()
        shutil.copy(root / "data/masks/c0.png", data / "masks")
    elif change == "split":
        table = (data / "texts.csv").read_text()
        (data / "texts.csv").write_text(table.replace("c0,one nuclei,train", "c0,one nuclei,test"))
    elif change == "backbone":
        more = ("--backbone", "nano-he")
    result = textdiff_once(root, "score", "--runs", "int8", "--data", str(data), *more, status=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line
    assert "Traceback" not in result.stderr


def test_another_data_set_is_read_with_its_own_splits_and_masks(root, tmp_path, textdiff_once):
    """The run's test images were drawn, and its outlines lie beside its data set."""
    (tmp_path / "outlines").mkdir()
    for number in range(5):
        square = {"type": "Polygon", "coordinates": [[[8, 8], [60, 8], [60, 50 + number], [8, 50], [8, 8]]]}
        feature = json.dumps({"type": "Feature", "geometry": square, "properties": {}})
        (tmp_path / f"outlines/c{number}.geojson").write_text(feature)
    shutil.copytree(root / "data/images", tmp_path / "own/images")
    smallest = ("--preset", "rgb", "--image-size", "32", "--text-encoder", "none", "--test", "0.2", "--cache", "c.zarr")
    data = ("--dataset", "folder", "--data", "own", "--annotations", "outlines")
    textdiff_once(tmp_path, "extract", *data, *smallest)
    textdiff_once(tmp_path, "fit", "--cache", "c.zarr", "--variant", "no-text", "--epochs", "1")
    shutil.copytree(root / "data", tmp_path / "other")
    pixels = np.asarray(Image.open(root / "data/images/c3.png"))
    for number in range(5):  # other pictures than those that the run was fitted on
        Image.fromarray(pixels[::-1, ::-1] // (number + 2)).save(tmp_path / f"other/images/c{number}.png")
    for name in ("images", "masks"):
        for path in (tmp_path / "other" / name).iterdir():
            path.rename(path.with_name(f"d{path.name}"))
    table = (root / "data/texts.csv").read_text().replace("\nc", "\ndc")
    (tmp_path / "other/texts.csv").write_text(table)
    textdiff_once(tmp_path, "score", "--data", "other")
    scores = json.loads((newest(tmp_path / "runs").path / "scores.json").read_text())
    assert {image["id"] for image in scores["images"]} == {"dc3", "dc4"}
