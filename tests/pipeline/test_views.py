"""Scores and predictions that are means over the symmetries of the square."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.experiments.evaluate import evaluate
from textdiff.metrics.pixels import dice
from textdiff.models.device import choose_device
from textdiff.models.networks.variants import assign_texts
from textdiff.pipeline.prediction.predictor import Predictor
from textdiff.pipeline.predictions import predict_members
from textdiff.pipeline.runs import Run
from textdiff.tests.run_cases import newest

TILES = {"whole": (), "tiles": ("--tile", "64", "--overlap", "12")}
MODELS = {
    "textdiff": ("--variant", "no-text", "--epochs", "2"),
    "unet": ("--model", "unet", "--width", "8", "--epochs", "20", "--learning-rate", "3e-3"),
}


def extract(root: Path, backbone: Path, cache: str, *more: str) -> list[str]:
    return [
        *("extract", "--dataset", "monuseg", "--data", str(root / "data"), "--cache", cache),
        *("--backbone", str(backbone), "--text-encoder", "none", "--image-size", "64"),
        *("--steps", "50", "--blocks", "6,8", *more),
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("views")
    make_lvit_once(root / "data", n_train=2, n_val=1, n_test=2, size=(72, 96))
    for name, cut in TILES.items():
        textdiff_once(root, *extract(root, tiny_backbone, f"{name}.zarr", "--views", "8", "--test-views", "8", *cut))
    return root


@pytest.fixture(scope="module", params=[(cut, model) for cut in TILES for model in MODELS], ids="-".join)
def scored(request, root, textdiff_once) -> Run:
    """A run that was fitted and scored on a cache with views of its test images."""
    cut, model = request.param
    runs = root / f"{cut}-{model}"
    textdiff_once(root, "fit", "--cache", f"{cut}.zarr", "--runs", str(runs), *MODELS[model])
    textdiff_once(root, "score", "--runs", str(runs))
    return newest(runs)


def turned(pixels: np.ndarray, view: int) -> np.ndarray:
    """By the definition of the views: so many quarter turns, then from 4 on a reflection."""
    pixels = np.rot90(pixels, view % 4)
    return pixels[:, ::-1] if view >= 4 else pixels


def turned_back(layers: np.ndarray, view: int) -> np.ndarray:
    return np.stack([np.rot90(layer[:, ::-1] if view >= 4 else layer, -(view % 4)) for layer in layers])


def test_views_of_images_that_are_not_trained_on_are_their_symmetries_in_their_own_colours(
    root, tiny_backbone, textdiff_once
):
    both = ("--test-views", "8", "--views", "8", "--jitter", "he")
    result = textdiff_once(root, *extract(root, tiny_backbone, "both.zarr", *both))
    assert "8 views of each annotated validation and test image" in result.stderr
    assert "8 views of each validation and test image" in textdiff_once(root, "cache", "info", "both.zarr").stdout
    cache = FeatureCache.open(root / "both.zarr")
    assert [sum(entry.split == split for entry in cache.rows) for split in ("train", "val", "test")] == [16, 8, 16]
    first = {entry.id: row for row, entry in enumerate(cache.rows) if entry.view == 0}
    for row, entry in enumerate(cache.rows):
        same = (cache.image(row) == turned(cache.image(first[entry.id]), entry.view)).all()
        assert same == (entry.split != "train" or entry.view == 0)
        assert (cache.mask(row) == turned(cache.mask(first[entry.id]), entry.view)).all()
        assert (cache.truth(row) is None) == (entry.view > 0)


@pytest.mark.parametrize("scored", [("whole", model) for model in MODELS], ids="-".join, indirect=True)
def test_a_score_is_that_of_the_mean_over_the_views_turned_back(scored):
    cache, network = scored.open_cache(), scored.load_network()
    texts = assign_texts(cache, "no-text", 0, scored.config["train_ids"])
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "test"]
    found: dict[str, list[np.ndarray]] = {}
    for item in network.loader(cache, choose_device("cpu")).epoch(rows, texts):
        entry = cache.rows[item.row]
        found.setdefault(entry.id, []).append(
            turned_back(predict_members(network, item, "float32").mean(0), entry.view)
        )
    scores = {image["id"]: image["dice_clean"] for image in scored.scores()["images"]}
    assert found.keys() == scores.keys()
    for name, layers in found.items():
        assert len(layers) == 8
        first = next(row for row in rows if cache.rows[row].id == name)
        mean, truth = np.mean(layers, axis=0), cache.mask(first) > 0
        assert scores[name] == pytest.approx(dice(mean.argmax(0) > 0, truth))
        assert scores[name] != dice(layers[0].argmax(0) > 0, truth)


def test_predict_with_views_gives_the_mask_that_score_measured(scored, root, tmp_path, textdiff_once):
    images = sorted((root / "data/Test_Folder/img").iterdir())
    arguments = ("predict", *map(str, images), "--run", str(scored.path), "--out", str(tmp_path))
    textdiff_once(root, *arguments, "--views", "8")
    rows = {row["id"]: row for row in csv.DictReader((scored.path / "scores.csv").open())}
    for image in images:
        mask = np.asarray(Image.open(tmp_path / f"{image.stem}.png")) > 0
        truth = next((root / "data/Test_Folder/labelcol").glob(f"{image.stem}.*"))
        measured = dice(mask, np.asarray(Image.open(truth).convert("L")) > 127)
        assert measured == pytest.approx(float(rows[image.stem]["dice_original"]), abs=1e-9)
    said = textdiff_once(root, *arguments, status=2).stderr
    assert "views 8, now 1" in said


def test_experiments_score_the_mean_too(scored):
    evaluate([scored], scored.open_cache(), choose_device("cpu"), "test")
    measured = json.loads((scored.path / "images-test.json").read_text())
    assert measured["views"] == 8
    images = {image["id"]: image for image in scored.scores()["images"]}
    for metric in ("dice_clean", "iou_paper", "dice_original"):
        expected = [images[name][metric] for name in measured["ids"]]
        assert measured["scores"][metric] == pytest.approx(expected, abs=1e-9)


def test_score_and_report_say_that_there_were_views(scored, textdiff_once):
    assert scored.scores()["views"] == 8
    assert "mean over 8 views" in (scored.path / "report.md").read_text()
    page = textdiff.report(scored).read_text()
    assert '["views averaged in scores","8"]' in page.replace(", ", ",")


def test_training_images_are_scored_in_one_view(scored):
    assert textdiff.score(scored, split="train").summary["views"] == 1


def test_scores_of_other_views_are_not_mixed(root, tiny_backbone, textdiff_once, tmp_path):
    """Views are added under a run that was scored without them, and whose texts depend on other images."""
    texts = ("--text-encoder", "minilm")
    arguments = extract(root, tiny_backbone, str(tmp_path / "c.zarr"), *texts)
    textdiff_once(root, *arguments)
    fit = ("fit", "--cache", "c.zarr", "--variant", "shuffled-text", "--epochs", "1")
    textdiff_once(tmp_path, *fit)
    textdiff_once(tmp_path, "score")
    textdiff_once(root, *arguments, "--test-views", "8", "--update")
    said = textdiff_once(tmp_path, "report", status=2).stderr
    assert "has 8 views of each image" in said
    assert "was scored on 1" in said
    said = textdiff_once(tmp_path, "score", "--text", "Some nuclei.").stderr
    assert "the number of views has changed since the run was scored" in said
    textdiff_once(tmp_path, "score")
    textdiff_once(tmp_path, "report")
    said = textdiff_once(root, *arguments, status=2).stderr
    assert "repeat the command that made it; or --update keeps" in said
    assert "made with --test-views 8, and 1 asked for" in said


def test_the_mean_over_views_turns_with_the_image_and_one_view_does_not(scored):
    """Turned images are square here, so that their symmetries are those of the image."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mean, one = Predictor(scored, "cpu", views=8), Predictor(scored, "cpu")
    expected, alone = mean.tile(pixels)[0], one.tile(pixels)[0]
    for view in (1, 6):
        np.testing.assert_allclose(turned_back(mean.tile(turned(pixels, view))[0], view), expected, atol=2e-6)
        assert np.abs(turned_back(one.tile(turned(pixels, view))[0], view) - alone).max() > 1e-4
    assert np.abs(expected - alone).max() > 1e-4
