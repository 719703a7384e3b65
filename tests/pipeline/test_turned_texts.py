"""Views turn the text along with the image: in the cache, in controls, in scores and in predictions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.images.directions import read_directions
from textdiff.metrics.pixels import dice
from textdiff.models.networks.variants import assign_texts
from textdiff.pipeline.prediction.predictor import Predictor
from textdiff.tests.run_cases import newest

WORDS = read_directions()
TEXTS = {"a": "disc at the upper left", "b": "disc at the lower left", "c": "disc at the top", "d": "some disc"}
SPLITS = dict(zip(TEXTS, ("train", "train", "val", "test"), strict=True))
COMMON = ("--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "32", "--text-encoder", "minilm")
VIEWS = ("--views", "8", "--test-views", "8")


@pytest.fixture(scope="module")
def root(tmp_path_factory, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("turned")
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    for name in TEXTS:
        mask = np.zeros((32, 32), np.uint8)
        mask[3:12, 4:15] = 255
        Image.fromarray(draw.integers(0, 200, (32, 32, 3), dtype=np.uint8)).save(root / f"data/images/{name}.png")
        Image.fromarray(mask).save(root / f"data/masks/{name}.png")
    lines = ["image,text,split", *(f"{name},{text},{SPLITS[name]}" for name, text in TEXTS.items())]
    (root / "data/texts.csv").write_text("\n".join(lines) + "\n")
    said = textdiff_once(root, "extract", *COMMON, *VIEWS, "--cache", "c.zarr").stderr
    assert 'as "disc at the upper left" to "disc at the lower left"; --no-turn-texts leaves them' in said
    assert "3 of 4 texts tell directions" in said
    return root


def texts_of(cache: FeatureCache) -> dict[tuple[str, int], str]:
    return {(row.id, row.view): cache.texts[row.text] for row in cache.rows}


def test_the_table_of_words_is_counted_and_not_shown_with_the_facts_of_a_cache(root, textdiff_once):
    lines = textdiff_once(root, "cache", "info", "c.zarr").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("turned texts"))
    assert f"directions ({len(WORDS.directions)})" in line
    assert max(map(len, lines)) < 200


def test_each_view_has_the_text_that_is_true_of_it(root):
    found = texts_of(FeatureCache.open(root / "c.zarr"))
    assert found == {(name, view): WORDS.turned(text, view) for name, text in TEXTS.items() for view in range(8)}
    assert len(set(found.values())) == 4 + 4 + 1  # the corners, the sides, and one that tells none


@pytest.mark.parametrize("how", [("--no-turn-texts",), ("--protocol", "paper")], ids=["asked", "paper"])
def test_texts_stay_where_they_are_to(root, textdiff_once, how):
    cache = f"{how[0].strip('-')}.zarr"
    textdiff_once(root, "extract", *COMMON, *VIEWS, *how, "--cache", cache)
    assert set(texts_of(FeatureCache.open(root / cache)).values()) == set(TEXTS.values())


def test_a_cache_made_before_is_updated_without_the_network(root, textdiff_once):
    textdiff_once(root, "extract", *COMMON, *VIEWS, "--no-turn-texts", "--cache", "old.zarr")
    again = ("extract", *COMMON, *VIEWS, "--cache", "old.zarr")
    said = textdiff_once(root, *again, "--turn-texts", status=2).stderr
    assert "--update keeps 32 of 32 rows" in said
    assert "It was made with other texts for turned views (--turn-texts, --no-turn-texts)" in said
    said = textdiff_once(root, *again, "--views", "1", status=2).stderr
    assert "made with --views 8, and 1 asked for" in said
    assert "32 rows are taken over, and 0 rows are " in textdiff_once(root, *again, "--turn-texts", "--update").stderr
    old, new = (FeatureCache.open(root / name) for name in ("old.zarr", "c.zarr"))
    assert texts_of(old) == texts_of(new)


@pytest.mark.parametrize("variant", ["shuffled-text", "constant-text"])
def test_a_text_of_another_image_turns_as_this_image_does(root, variant):
    cache = FeatureCache.open(root / "c.zarr")
    given = assign_texts(cache, variant, 0, ["a", "b"])
    assert all(cache.rows[row].view == cache.rows[donor].view for row, donor in given.items())
    first = {row.id: cache.rows[given[number]].id for number, row in enumerate(cache.rows) if row.view == 0}
    assert all(cache.rows[donor].id == first[cache.rows[row].id] for row, donor in given.items())


HOW = {"positions": ("--positions",), "places": ("--places",), "unet": ("--places", "--model", "text-unet")}


@pytest.mark.parametrize("how", HOW.values(), ids=list(HOW))
def test_score_and_predict_give_each_view_its_text(root, textdiff_once, how):
    runs = f"runs{'-'.join(how)}"
    fit = ("fit", "--cache", "c.zarr", "--epochs", "4", *how, "--runs", runs)
    textdiff_once(root, *fit, "--learning-rate", "0.01")
    run = newest(root / runs)
    scored = textdiff.score(run, split="val").summary
    (image,) = run.scores("val")["images"]
    pixels = np.asarray(Image.open(root / "data/images/c.png").convert("RGB"))
    truth = np.asarray(Image.open(root / "data/masks/c.png")) > 0
    predictor = Predictor(run, "cpu", views=8)
    found = predictor(pixels, TEXTS["c"])
    assert dice(found.argmax(0) > 0, truth) == pytest.approx(image["dice_original"], abs=1e-9)
    given = textdiff.score(run, split="val", text=TEXTS["c"]).summary
    assert given["scores"] == scored["scores"]
    assert np.abs(predictor(pixels, TEXTS["b"]) - found).max() > 1e-3
