"""Maps of the places that texts name, ``fit --places``: what only the text tells is found, by every command."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.tests.run_cases import newest

CORNERS = {"upper left": (0, 0), "upper right": (0, 16), "lower left": (16, 0), "lower right": (16, 16)}
COMMON = ("--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "32", "--text-encoder", "minilm")
FIT = ("fit", "--cache", "c.zarr", "--recipe", "default", "--epochs", "30", "--learning-rate", "0.01")
NETWORKS = {"head": ("--places",), "unet": ("--places", "--model", "text-unet", "--width", "8")}


@pytest.fixture(scope="module")
def root(tmp_path_factory, textdiff_once) -> Path:
    """Images of nothing but noise, whose masks are the corner that the text names."""
    root = tmp_path_factory.mktemp("places")
    draw = np.random.default_rng(0)
    lines = ["image,text,split"]
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    for split in ("train", "val", "test"):
        for words, (y, x) in CORNERS.items():
            name = f"{split} {words}"
            mask = np.zeros((32, 32), np.uint8)
            mask[y : y + 16, x : x + 16] = 255
            Image.fromarray(mask).save(root / f"data/masks/{name}.png")
            Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).save(root / f"data/images/{name}.png")
            lines.append(f"{name},Cells are dense at the {words}.,{split}")
    (root / "data/texts.csv").write_text("\n".join(lines) + "\n")
    textdiff_once(root, "extract", *COMMON, "--views", "8", "--cache", "c.zarr")
    for network, options in NETWORKS.items():
        textdiff_once(root, *FIT, *options, "--runs", network)
    return root


def dice(root: Path, network: str, **options: str) -> float:
    found = textdiff.score(newest(root / network), **options).summary["scores"]["clean"]["dice"]
    return float(found[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_what_only_the_text_tells_is_found(root, network):
    assert dice(root, network) > 0.85
    one = dice(root, network, text="Cells are dense at the upper left.")
    assert one == pytest.approx(dice(root, network) / 4, abs=0.05)
    assert newest(root / network).label == {"head": "full-places", "unet": "text-unet-places"}[network]


@pytest.mark.parametrize("network", NETWORKS)
def test_predict_draws_the_map_of_the_text_it_is_given(root, textdiff_once, network):
    shutil.copy(root / "data/images/test upper left.png", root / "one.png")
    for words, (y, x) in CORNERS.items():
        out = f"out-{network}-{words}"
        textdiff_once(
            root,
            "predict",
            "one.png",
            "--run",
            str(newest(root / network).path),
            "--views",
            "8",
            "--text",
            f"Cells at the {words}.",
            "--out",
            out,
        )
        mask = np.asarray(Image.open(next((root / out).glob("one*.png")))) > 0
        here = mask[y : y + 16, x : x + 16].sum()
        assert here > 200
        assert mask.sum() - here < 60
    without = ("predict", "one.png", "--run", str(newest(root / network).path), "--out", f"out-{network}-none")
    assert "is given one that is bright everywhere" in " ".join(textdiff_once(root, *without).stderr.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "unet"), "--places: a plain U-Net takes none; leave it out"),
        (("--variant", "no-text"), "--places: the variant no-text reads no text; leave one of them out"),
        (("--cache", "none.zarr"), "none.zarr was extracted with --text-encoder none; extract with a text encoder"),
        (("--cache", "tiles.zarr"), "tiles.zarr holds tiles, and a text says where in the whole image; leave it out"),
    ],
)
def test_where_there_is_no_place_to_draw_it_is_refused(root, textdiff_once, options, said):
    if not (root / "tiles.zarr").exists():
        textdiff_once(root, "extract", *COMMON, "--tile", "32", "--cache", "tiles.zarr")
        textdiff_once(root, "extract", *COMMON[:-1], "none", "--cache", "none.zarr")
    assert said in textdiff_once(root, *FIT, "--places", *options, status=2).stderr


def test_texts_whose_words_for_places_are_not_known_are_told(root, tmp_path, textdiff_once):
    shutil.copytree(root / "data", tmp_path / "data")
    table = tmp_path / "data/texts.csv"
    english, german = ("upper left", "upper right", "lower"), ("oben links", "oben rechts", "unten")
    said = table.read_text()
    for ours, theirs in zip(english, german, strict=True):
        said = said.replace(f"Cells are dense at the {ours}", f"Dichte Zellen {theirs}")
    table.write_text(re.sub("unten .*,", "unten.,", said))
    (tmp_path / "words.toml").write_text('directions = [["links", "rechts", "oben", "unten"]]')
    warned = []
    for options in ((), ("--direction-words", "words.toml")):
        cache = f"{len(options)}.zarr"
        textdiff_once(tmp_path, "extract", *COMMON, *options, "--cache", cache)
        fitted = textdiff_once(tmp_path, "fit", "--cache", cache, "--places", "--epochs", "1")
        warned.append("no text of the training images names a place" in fitted.stderr)
    assert warned == [True, False]
