"""Extract, fit, score and predict on images that are cut into tiles, with a network of the real topology."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from textdiff.cache import FeatureCache, Row
from textdiff.images import formats
from textdiff.images.images import axis_weights, read_image, resize_image, resize_mask
from textdiff.images.masks import decode_mask
from textdiff.images.tiles import Grid, cut
from textdiff.metrics.pixels import confusion, dice, pooled_dice
from textdiff.models.networks.variants import assign_texts
from textdiff.pipeline.prediction.predictor import Predictor
from textdiff.pipeline.predictions import predict_members
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.epochs import order_of, rows_by_tile
from textdiff.tests.run_cases import assert_masks_are_those_scored, newest

SIZE, TILE, OVERLAP = (100, 76), 64, 12


def extract(root: Path, backbone: Path, cache: str, *more: str) -> list[str]:
    return [
        *("extract", "--dataset", "monuseg", "--data", str(root / "data"), "--cache", cache),
        *("--backbone", str(backbone), "--text-encoder", "none", "--image-size", "64", "--steps", "50"),
        *("--blocks", "6,8", *more),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    """A directory with a data set, its cache in tiles and one finished and scored run."""
    root = tmp_path_factory.mktemp("tiled")
    make_lvit_once(root / "data", n_train=3, n_val=1, n_test=2, size=SIZE)
    tiles = ("--tile", str(TILE), "--overlap", str(OVERLAP))
    textdiff_once(root, *extract(root, tiny_backbone, "tiled.zarr", *tiles))
    textdiff_once(root, "fit", "--cache", "tiled.zarr", "--labels", "2", "--epochs", "2", "--variant", "no-text")
    textdiff_once(root, "score")
    return root


@pytest.fixture(scope="module")
def cache(made) -> FeatureCache:
    return FeatureCache.open(made / "tiled.zarr")


@pytest.fixture(scope="module")
def run(made) -> Run:
    return newest(made / "runs")


def test_a_table_of_images_in_tiles_says_which_truth_to_go_by(made, textdiff_once):
    rows = ("ablate", "--cache", "tiled.zarr", "--variants", "no-text", "--no-unet", "--labels", "2", "--epochs", "1")
    rows += ("--draws", "1", "--seeds", "1", "--jobs", "1")
    told = textdiff_once(made, *rows).stdout
    assert "go by --truth original. Published scores alone are to be compared by --truth paper." in told
    assert "go by --truth" not in textdiff_once(made, *rows, "--table-only", "--truth", "original").stdout


def test_rows_are_the_tiles_of_the_images(made, cache):
    places = Grid(*SIZE, TILE, OVERLAP).places
    assert len(places) == 4
    assert [(row.y, row.x) for row in cache.rows] == places * 6
    for row, entry in enumerate(cache.rows):
        (folder,) = (made / "data").glob(f"{entry.split.capitalize()}_Folder")
        (image,), (mask,) = (list((folder / name).glob(f"{entry.id}.*")) for name in ("img", "labelcol"))
        y, x = slice(entry.y, entry.y + TILE), slice(entry.x, entry.x + TILE)
        assert (cache.image(row) == read_image(image)[y, x]).all()
        assert (cache.mask(row) == decode_mask(mask).labels[y, x]).all()
        assert (cache.truth(row) == decode_mask(mask).labels[y, x]).all()
    assert (cache.fingerprint["tile"], cache.fingerprint["overlap"]) == (TILE, OVERLAP)


def test_a_tile_larger_than_the_network_sees_is_reduced_and_a_small_image_continued(made, tiny_backbone, textdiff_once):
    result = textdiff_once(made, *extract(made, tiny_backbone, "half.zarr", "--tile", "128"))
    assert "squeezed" not in result.stderr
    half = FeatureCache.open(made / "half.zarr")
    assert len(half.rows) == 6
    assert half.fingerprint["overlap"] == 16
    image = read_image(next((made / "data/Train_Folder/img").glob(f"{half.rows[0].id}.*")))
    assert (half.image(0) == resize_image(cut(image, 0, 0, 128), 64, "area")).all()
    assert half.truth(0).shape == SIZE


def test_a_cache_without_tiles_does_not_mention_them(made, tiny_backbone, textdiff_once):
    textdiff_once(made, *extract(made, tiny_backbone, "plain.zarr", "--shard", "98/99"))  # none of its rows
    plain = FeatureCache.open(made / "plain.zarr")
    assert not {"tile", "overlap"} & plain.fingerprint.keys()
    assert all(row.tile == 0 for row in plain.rows)
    result = textdiff_once(made, *extract(made, tiny_backbone, "plain.zarr", "--tile", "64"), status=2)
    assert "tile: nothing in the cache, 64 asked for" in result.stderr


def test_an_epoch_passes_over_all_tiles_of_the_drawn_images(cache, run):
    drawn = run.config["train_ids"]
    assert len(drawn) == 2  # --labels counts images
    rows = rows_by_tile(cache)
    training = [views for name in drawn for views in rows[name]]
    orders = [order_of(training, 0, epoch) for epoch in (0, 1)]
    expected = [row for row, entry in enumerate(cache.rows) if entry.id in drawn]
    assert [sorted(order) for order in orders] == [expected, expected]
    assert orders[0] != orders[1]


def test_pooled_dice_is_that_of_the_pixels_put_together():
    rng = np.random.default_rng(0)
    prediction, truth = rng.random((2, 30, 40)) < 0.3
    pieces = [(slice(0, 10), slice(None)), (slice(10, 30), slice(0, 15)), (slice(10, 30), slice(15, 40))]
    assert pooled_dice([confusion(prediction[p], truth[p]) for p in pieces]) == dice(prediction, truth)


def stitched(run: Run, cache: FeatureCache, name: str) -> np.ndarray:
    """The probabilities of an image from those of its cached tiles, all at once and by other arithmetic."""
    head, total, weight = run.load_network(), np.zeros((2, *SIZE)), np.zeros(SIZE)
    rows = [row for row, entry in enumerate(cache.rows) if entry.id == name]
    ramp = np.minimum(1, np.sin(np.pi / 2 * np.minimum(1, (np.arange(TILE) + 0.5) / OVERLAP)) ** 2)
    window = np.outer(ramp * ramp[::-1], ramp * ramp[::-1])
    for item in head.loader(cache, torch.device("cpu")).epoch(rows):
        entry = cache.rows[item.row]
        area = np.s_[..., entry.y : entry.y + TILE, entry.x : entry.x + TILE]
        total[area] += window * predict_members(head, item, "float32").mean(0)
        weight[area] += window
    return total / weight


def test_score_measures_the_stitched_image_at_its_own_size(made, cache, run):
    scores = json.loads((run.path / "scores.json").read_text())
    assert scores["primary"] == "original"
    assert len(scores["images"]) == 2
    for record in scores["images"]:
        probability = stitched(run, cache, record["id"])
        mask = decode_mask(next((made / "data/Test_Folder/labelcol").glob(f"{record['id']}.*"))).labels
        assert record["dice_original"] == pytest.approx(dice(probability.argmax(0) > 0, mask > 0))
        # For the other two the whole image is brought to 64 x 64, here row by row and column by column.
        down, across = axis_weights(SIZE[0], 64, "area"), axis_weights(SIZE[1], 64, "area")
        small = (down @ probability @ across.T).argmax(0) > 0
        assert record["dice_clean"] == pytest.approx(dice(small, resize_mask(mask, 64, "area") > 0))
        assert record["dice_paper"] == pytest.approx(dice(small, resize_mask(mask, 64, "bilinear") > 0))
    first = (run.path / "report.md").read_text().splitlines()[4]
    assert "original size" in first


def test_predict_gives_the_stitched_mask_that_score_measured(made, run, textdiff_once):
    test_images = sorted((made / "data/Test_Folder/img").iterdir())
    textdiff_once(made, "predict", *map(str, test_images), "--out", "masks")
    assert_masks_are_those_scored(run, made / "data", made / "masks")


def test_a_large_tiff_gets_the_same_mask_as_when_it_is_read_whole(made, textdiff_once, monkeypatch):
    image = next((made / "data/Test_Folder/img").glob("*.tif"))
    arguments = ("predict", str(image), "--probabilities", "--entropy", "--out")
    textdiff_once(made, *arguments, "whole")
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.001)
    textdiff_once(made, *arguments, "parts")
    for suffix in ("", "_probability", "_entropy"):
        with Image.open(made / "whole" / f"{image.stem}{suffix}.png") as picture:
            whole = np.asarray(picture).astype(int)
        parts = tifffile.imread(made / "parts" / f"{image.stem}{suffix}.tif").astype(int)
        assert np.abs(whole - parts).max() <= (1 if suffix else 0)
    lines = [next(csv.DictReader((made / folder / "images.csv").open())) for folder in ("whole", "parts")]
    expected = [float(line["expected_dice"]) for line in lines]
    assert 0 < expected[0] < 1
    assert expected[0] == pytest.approx(expected[1], abs=2e-4)
    assert lines[0]["flagged"] == lines[1]["flagged"]
    assert "1 of 1 image is done already" in textdiff_once(made, *arguments, "parts").stderr


def test_a_unet_is_fitted_scored_and_used_on_tiles_too(made, textdiff_once):
    fit = ("fit", "--cache", "tiled.zarr", "--model", "unet", "--width", "8", "--epochs", "1", "--runs", "unets")
    textdiff_once(made, *fit)
    textdiff_once(made, "score", "--runs", "unets")
    (run,) = (path for path in (made / "unets").glob("tiled-*"))
    image = next((made / "data/Test_Folder/img").iterdir())
    truth = decode_mask(next((made / "data/Test_Folder/labelcol").glob(f"{image.stem}.*"))).labels > 0
    mask = Predictor(Run(run), "cpu")(read_image(image)).argmax(0) > 0
    scores = {row["id"]: row for row in csv.DictReader((run / "scores.csv").open())}
    assert dice(mask, truth) == pytest.approx(float(scores[image.stem]["dice_original"]), abs=1e-9)


def test_the_predictor_stitches_images_of_any_size(run):
    predictor = Predictor(run, "cpu")
    for size in ((30, 200), (64, 64)):
        image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        probabilities = predictor(image)
        assert probabilities.shape == (2, *size)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
        left = predictor.tile(cut(image, 0, 0, TILE))[0][:, : size[0], : TILE - OVERLAP]
        np.testing.assert_allclose(probabilities[:, :, : TILE - OVERLAP], left, atol=1e-6)


def test_axis_weights_resize_as_resize_image_does():
    image = np.random.default_rng(2).integers(0, 256, (70, 50), dtype=np.uint8)
    for rule in ("area", "bilinear"):
        weighted = axis_weights(70, 64, rule) @ image.astype(float) @ axis_weights(50, 64, rule).T
        assert np.abs(weighted - resize_image(image, 64, rule)).max() <= 0.5 + 1e-3


def test_the_most_frequent_text_is_counted_over_images_not_tiles():
    texts = {"large": 0, "small": 1, "smaller": 1}
    rows = [
        Row(name, "train", 0, text, name, "a", "b", 128, 128, tile=32, y=y, x=0)
        for name, text in texts.items()
        for y in ((0, 32, 64, 96) if name == "large" else (0,))
    ]
    given = assign_texts(SimpleNamespace(rows=rows), "constant-text", 0, list(texts))
    assert {rows[row].text for row in given.values()} == {1}
