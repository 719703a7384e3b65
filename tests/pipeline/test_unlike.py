"""What is said of an image that is unlike the training images, and how far it is, against sums of its own."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import textdiff

FOUND = "is unlike the training images"


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, textdiff_once, tiny_backbone):
    """Caches of whole images and of tiles, with a run each on three images of discs."""
    root = tmp_path_factory.mktemp("unlike")
    make_lvit_once(root / "data", n_train=3, n_val=0, n_test=2, size=96)
    options = ("--backbone", str(tiny_backbone), "--text-encoder", "none", "--image-size", "64", "--blocks", "8,12")
    steps = ("--steps", "250,50")
    for name, tiles in (("whole", ()), ("tiles", ("--tile", "64", "--overlap", "8"))):
        cache = ("--cache", f"{name}.zarr")
        textdiff_once(root, "extract", "--dataset", "monuseg", "--data", "data", *options, *steps, *tiles, *cache)
        textdiff_once(root, "fit", *cache, "--epochs", "1", "--variant", "no-text", "--runs", name)
    return root


@pytest.fixture(scope="module")
def pictures(made, tmp_path_factory):
    """A test image, and noise that nobody would take for one."""
    folder = tmp_path_factory.mktemp("pictures")
    shutil.copy(made / "data/Test_Folder/img/test_000.tif", folder / "like.tif")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((96, 96)), 1)
    stripes = 255 * (np.sign(noise + np.sin(np.arange(96))) > 0)
    Image.fromarray(stripes.astype(np.uint8)).save(folder / "unlike.png")
    return folder


def lines(folder):
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def contrasts(cache, name):
    """The deviations of an image's activations at the least noised step, over all its tiles."""
    step = cache.steps.index(min(cache.steps))
    rows = [row for row, entry in enumerate(cache.rows) if entry.id == name]
    found = []
    for block in cache.blocks:
        width = cache.blocks[block][0]
        tiles = [cache.features(row, block).reshape(len(cache.steps), width, -1)[step] for row in rows]
        found.append(np.concatenate(tiles, axis=1).astype(np.float64).std(axis=1))
    return np.concatenate(found)


@pytest.mark.parametrize("name", ["whole", "tiles"])
def test_an_unlike_image_is_warned_of_and_the_distance_is_that_of_the_formula(
    name, made, pictures, tmp_path, textdiff_once
):
    result = textdiff_once(made, "predict", str(pictures), "--runs", name, "--out", str(tmp_path))
    found = lines(tmp_path)
    assert f"unlike.png: {FOUND} (distance {float(found['unlike']['distance']):.2f}, limit 1.5)" in result.stderr
    assert f"like.tif: {FOUND}" not in result.stderr
    assert [FOUND in found[one]["notes"] for one in ("like", "unlike")] == [False, True]

    cache = textdiff.open_cache(made / f"{name}.zarr")
    logs = [np.log(contrasts(cache, f"train_{number:03d}")) for number in range(3)]

    def away(one, others):
        return np.sqrt(np.mean((one - np.mean(others, axis=0)) ** 2))

    unit = np.mean([away(logs[one], logs[:one] + logs[one + 1 :]) for one in range(3)])
    expected = away(np.log(contrasts(cache, "test_000")), logs) / unit
    assert float(found["like"]["distance"]) == pytest.approx(expected, abs=0.02)


def test_in_python_it_is_warned_of_too_and_the_distance_is_there(made, pictures, capsys):
    predictor = textdiff.Predictor(runs=made / "whole")
    predictor(pictures / "like.tif")
    assert FOUND not in capsys.readouterr().err
    assert predictor.distance < 1.5
    predictor(np.asarray(Image.open(pictures / "unlike.png")))
    assert f"an image {FOUND}" in capsys.readouterr().err
    assert predictor.distance > 1.5


@pytest.mark.parametrize("options", [("--labels", "1", "--variant", "no-text"), ("--model", "unet", "--width", "8")])
def test_of_one_training_image_and_of_a_unet_nothing_is_known_and_nothing_said(
    options, made, pictures, tmp_path, textdiff_once
):
    runs = ("--runs", str(tmp_path / "runs"))
    textdiff_once(made, "fit", "--cache", "whole.zarr", "--epochs", "1", *options, *runs)
    result = textdiff_once(made, "predict", str(pictures), *runs, "--out", str(tmp_path / "out"))
    assert FOUND not in result.stderr
    assert {row["distance"] for row in lines(tmp_path / "out").values()} == {""}


def test_two_training_images_are_enough_and_a_training_image_is_like_them(made, pictures, tmp_path, textdiff_once):
    runs = ("--runs", str(tmp_path / "runs"))
    fit = ("fit", "--cache", "whole.zarr", "--epochs", "1", "--variant", "no-text", "--labels", "2")
    textdiff_once(made, *fit, *runs)
    run = textdiff.open_run(runs=tmp_path / "runs")
    own = made / f"data/Train_Folder/img/{run.config['train_ids'][0]}.png"
    textdiff_once(made, "predict", str(own), str(pictures / "unlike.png"), *runs, "--out", str(tmp_path / "out"))
    found = lines(tmp_path / "out")
    # One of two images is half as far from their mean as from the other.
    assert float(found[own.stem]["distance"]) == pytest.approx(0.5, abs=0.01)
    assert FOUND in found["unlike"]["notes"]


def test_an_ensemble_compares_with_the_same_images(made, pictures, tmp_path, textdiff_once):
    runs = ("--runs", str(tmp_path / "runs"))
    fit = ("fit", "--cache", "whole.zarr", "--epochs", "1", "--variant", "no-text", "--ensemble", "2")
    textdiff_once(made, *fit, *runs)
    for one, where in (("ensemble", runs), ("single", ("--runs", "whole"))):
        textdiff_once(made, "predict", str(pictures), *where, "--out", str(tmp_path / one))
    both = [{name: row["distance"] for name, row in lines(tmp_path / one).items()} for one in ("ensemble", "single")]
    assert both[0] == both[1]


def test_what_it_is_compared_with_is_under_a_checksum(made, pictures, tmp_path, textdiff_once):
    run = textdiff.open_run(runs=made / "whole").path
    copy = shutil.copytree(run, tmp_path / "run")
    file = copy / "likeness.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    command = ("predict", str(pictures), "--run", str(copy), "--out", str(tmp_path / "out"))
    assert "likeness.safetensors: damaged" in textdiff_once(made, *command, status=2).stderr
    file.unlink()
    textdiff_once(made, *command)
    assert {row["distance"] for row in lines(tmp_path / "out").values()} == {""}
    assert json.loads((copy / "config.json").read_text())["likeness_sha256"]
