"""Pictures that hold nothing are background, and the same from a file, by rows of a large file, and from a cache."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import textdiff
from textdiff import console
from textdiff.cache import FeatureCache, Loader
from textdiff.experiments.evaluate import evaluate
from textdiff.images import formats
from textdiff.images.images import read_image
from textdiff.images.tiles import Grid, cut
from textdiff.metrics.pixels import entropy
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.tensor_files import load_tensors, save_tensors
from textdiff.pipeline.fit import FitConfig, begin, initial_network
from textdiff.pipeline.prediction.blank import BLANK_BELOW, HOLDS_NOTHING, blank_limit, contrast, is_blank
from textdiff.pipeline.prediction.predictor import Predictor
from textdiff.pipeline.predictions import predict_members
from textdiff.pipeline.runs import IDENTITY, Run, write_config

SIZE, TILE, OVERLAP = (64, 168), 64, 12
CPU = torch.device("cpu")


def glass(height: int, width: int, deviation: float = 2) -> np.ndarray:
    """Bright and empty, with grain."""
    grain = np.random.default_rng(3).normal(243, deviation, (height, width, 3))
    return grain.round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    """A cache in tiles, and untrained networks that find foreground everywhere: ``head``, ``unet``, ``ensemble``.

    Of the test images one is full, one is full for its first 64 columns, and one is blank and has no mask.
    """
    root = tmp_path_factory.mktemp("blank")
    make_lvit_once(root / "data", n_train=2, n_val=1, n_test=3, size=SIZE)
    for number, first in ((1, 64), (2, 0)):
        picture = root / f"data/Test_Folder/img/test_00{number}.tif"
        pixels = read_image(picture).copy()
        pixels[:, first:] = glass(*SIZE)[:, first:]
        Image.fromarray(pixels).save(picture)
    (root / "data/Test_Folder/labelcol/test_002.png").unlink()
    textdiff_once(
        root, "extract", "--dataset", "monuseg", "--data", "data", "--cache", "tiled.zarr", "--steps", "50",
        *("--backbone", str(tiny_backbone), "--text-encoder", "none", "--image-size", "64"),
        *("--tile", str(TILE), "--overlap", str(OVERLAP)),
    )  # fmt: skip
    for name, model, variant in (("head", "textdiff", "no-text"), ("unet", "unet", "full")):
        config = FitConfig(root / "tiled.zarr", model=model, variant=variant, width=16)
        run = begin(config, lambda _, name=name: root / "runs" / name)
        weights = {key: value.clone() for key, value in initial_network(run).state_dict().items()}
        weights["conv3.bias" if name == "head" else "classify.bias"] += torch.tensor([0.0, 3.0])
        save_tensors(run.path / "head.safetensors", weights, {IDENTITY: run.identity})
    edit(root / "runs/ensemble", Run(root / "runs/head").config, ensemble=2)
    weights, _ = load_tensors(root / "runs/head/head.safetensors")
    for number, member in enumerate(Run(root / "runs/ensemble").members):
        write_config(member, Run(root / "runs/ensemble").member_config(number))
        save_tensors(member.path / "head.safetensors", weights, {IDENTITY: member.identity})
    return root


def edit(path: Path, config: dict, **fit) -> None:
    write_config(Run(path), config | {"fit": config["fit"] | fit})


@pytest.fixture(scope="module", params=["head", "unet", "ensemble"])
def run(made, request) -> Run:
    return Run(made / "runs" / request.param)


@pytest.fixture
def earlier(run, tmp_path) -> Run:
    """The same run, of pictures that have no limit."""
    shutil.copytree(run.path, tmp_path / "earlier")
    for path in (tmp_path / "earlier").rglob("config.json"):
        edit(path.parent, Run(path.parent).config | {"blank_below": None})
    return Run(tmp_path / "earlier")


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """One entry for each image that went through the UNet."""
    count, forward = [], Extractor.__call__

    def counted(self, image, text=""):
        count.append(1)
        return forward(self, image, text)

    monkeypatch.setattr(Extractor, "__call__", counted)
    return count


def test_a_blank_picture_is_certainly_background_which_the_same_weights_do_not_find(run, earlier, forwards):
    for picture in (glass(TILE, TILE), np.full((TILE, TILE, 3), 243, np.uint8), np.zeros((30, 50, 3), np.uint8)):
        assert (Predictor(earlier, "cpu")(picture)[1] > 0.5).any()
        ran = len(forwards)
        probabilities = Predictor(run, "cpu")(picture)
        assert len(forwards) == ran
        np.testing.assert_allclose(probabilities[0], 1, atol=1e-6)
        assert (probabilities[1] == 0).all()
        assert entropy(probabilities).max() < 1e-6
        assert Predictor(run, "cpu").members(picture).shape == (len(run.members) or 1, 2, *picture.shape[:2])


def test_the_cached_rows_of_a_file_and_the_file_agree_to_the_bit(made, run):
    network, cache, predictor = run.load_network(), run.open_cache(), Predictor(run, "cpu")
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "test" and entry.view == 0]
    blank = []
    for item in network.loader(cache, CPU).epoch(rows):
        entry = cache.rows[item.row]
        image = read_image(made / f"data/Test_Folder/img/{entry.id}.tif")
        from_cache = predict_members(network, item, "float32").mean(0)
        np.testing.assert_array_equal(predictor.tile(cut(image, entry.y, entry.x, TILE))[0], from_cache)
        blank.append((from_cache[1] == 0).all())
    # The full image, that of which a tile and the next one's overlap are full, and the blank one.
    assert blank == [False, False, False, False, False, True, True, True, True]
    assert (predictor.seen, predictor.blank) == (9, 4)


def test_what_is_not_blank_is_predicted_as_without_the_rule(made, run, earlier):
    image = read_image(made / "data/Test_Folder/img/test_000.tif")
    np.testing.assert_array_equal(Predictor(run, "cpu")(image), Predictor(earlier, "cpu")(image))


def test_an_earlier_run_asks_its_network_about_everything(made, earlier):
    network, cache = earlier.load_network(), earlier.open_cache()
    (row, *_) = (row for row, entry in enumerate(cache.rows) if entry.id == "test_002")
    (item,) = network.loader(cache, CPU).epoch([row])
    with torch.inference_mode():
        expected = torch.stack([member(*network.inputs([item]))[0].softmax(0) for member in network.members])
    assert (expected[:, 1] > 0.5).any()
    np.testing.assert_array_equal(predict_members(network, item, "float32"), expected.numpy())
    tile = cut(read_image(made / "data/Test_Folder/img/test_002.tif"), 0, 0, TILE)
    np.testing.assert_array_equal(Predictor(earlier, "cpu").tile(tile)[0], expected.numpy().mean(0))


def test_score_evaluate_and_predict_count_the_same_pixels(made, textdiff_once, tmp_path):
    run = Run(made / "runs/head")
    cache = run.open_cache()
    summary = textdiff.score(run, metrics=["dice"], device="cpu").summary
    evaluate([run], cache, CPU, "test", Loader(cache, CPU))  # a loader that training shares reads no images
    found = json.loads((run.path / "images-test.json").read_text())["scores"]["dice_original"]
    records = json.loads((run.path / "scores.json").read_text())["images"]
    assert summary["scores"]
    assert found == [record["dice_original"] for record in records]
    result = textdiff_once(
        made, "predict", "--run", str(run.path), "data/Test_Folder/img/test_001.tif", "--out", str(tmp_path)
    )
    assert "1 of 3 tiles holds nothing and is background" in result.stderr
    mask = np.asarray(Image.open(tmp_path / "test_001.png")) > 0
    truth = np.asarray(Image.open(made / "data/Test_Folder/labelcol/test_001.png")) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) == pytest.approx(records[1]["dice_original"])


@pytest.mark.parametrize("name", ["head", "both"])
def test_an_image_that_holds_nothing_is_named_as_it_may_have_been_read_too_dark(made, textdiff_once, tmp_path, name):
    if name == "both":
        textdiff_once(made, "combine", "runs/head", "runs/unet", "--runs", str(tmp_path))
    run = tmp_path / "latest" if name == "both" else made / "runs" / name
    files = [f"data/Test_Folder/img/test_00{number}.tif" for number in range(3)]
    result = textdiff_once(made, "predict", "--run", str(run), *files, "--out", str(tmp_path / "out"))
    named = [line for line in result.stderr.splitlines() if "holds nothing" in line]
    assert named == [f"warning: {files[2]}: {HOLDS_NOTHING}; check its window, or the range of its numbers"]
    lines = list(csv.DictReader((tmp_path / "out/images.csv").read_text().splitlines()))
    assert [HOLDS_NOTHING in line["notes"] for line in lines] == [False, False, True]
    assert [line["expected_dice"] != "" for line in lines] == [True, True, False]
    assert (lines[2]["flagged"], float(lines[0]["expected_dice"]) < 1) == ("True", True)


def test_a_predictor_in_python_says_so_too(made, capsys):
    predictor = textdiff.Predictor(made / "runs/head", device="cpu")
    predictor(read_image(made / "data/Test_Folder/img/test_001.tif"))
    assert HOLDS_NOTHING not in capsys.readouterr().err
    predictor(glass(*SIZE))
    assert f"warning: an image {HOLDS_NOTHING}" in capsys.readouterr().err


def test_a_blank_image_is_the_last_to_be_annotated(run):
    (candidate,) = textdiff.rank(run, device="cpu").candidates
    assert (candidate.id, candidate.entropy) == ("test_002", 0)
    assert candidate.disagreement in (None, 0)


def test_rows_of_tiles_of_a_large_image_skip_the_backbone(made, tmp_path, monkeypatch, forwards, textdiff_once):
    image = np.vstack([read_image(made / f"data/Test_Folder/img/test_00{number}.tif") for number in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    run = Run(made / "runs/head")
    whole = Predictor(run, "cpu")(image)
    grid = Grid(*image.shape[:2], TILE, OVERLAP)
    blank = [is_blank(cut(image, y, x, TILE), BLANK_BELOW) for y, x in grid.places]
    assert 0 < sum(blank) < len(blank)
    assert len(forwards) == len(blank) - sum(blank)
    forwards.clear()
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
    command = ("predict", "--run", str(run.path), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out"))
    result = textdiff_once(made, *command, "--device", "cpu")
    assert len(forwards) == len(blank) - sum(blank)
    assert f"{console.some(sum(blank), len(blank), 'tile', 'holds', 'hold')} nothing" in result.stderr
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif") > 0, whole.argmax(0) > 0)


def test_a_blank_tile_fades_into_a_full_neighbour(made):
    run = Run(made / "runs/head")
    image = glass(TILE, 2 * TILE - OVERLAP)
    image[:, :40] = read_image(made / "data/Test_Folder/img/test_000.tif")[:, :40]
    predictor = Predictor(run, "cpu")
    probabilities, full = predictor(image), predictor.tile(image[:, :TILE])[0]
    assert predictor.blank == 1
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    only, overlap = TILE - OVERLAP, slice(TILE - OVERLAP, TILE)
    np.testing.assert_allclose(probabilities[..., :only], full[..., :only], atol=1e-6)
    assert (probabilities[1, :, TILE:] == 0).all()
    fading = probabilities[1, :, overlap] / full[1, :, overlap]
    np.testing.assert_allclose(
        fading, np.cos(np.pi / 2 * (np.arange(OVERLAP) + 0.5) / OVERLAP) ** 2 + 0 * fading, atol=1e-5
    )


def test_the_limit_is_where_it_is_said_to_be(made, forwards):
    run = Run(made / "runs/head")
    picture = np.full((TILE, TILE, 3), 200, np.uint8)
    picture[:, TILE // 2 :, 1] += 10
    assert contrast(picture) == BLANK_BELOW == run.config["blank_below"]
    assert (Predictor(run, "cpu")(picture)[1] > 0.5).any()
    assert len(forwards) == 1
    picture[::8, TILE // 2 :: 8, 1] -= 1
    assert contrast(picture) == BLANK_BELOW - 1 / 64
    assert (Predictor(run, "cpu")(picture)[1] == 0).all()
    assert len(forwards) == 1


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_contrast_is_the_range_of_the_means_of_squares(height, width, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    means = np.array(
        [picture[y : y + 8, x : x + 8].reshape(-1, 3).mean(0) for y in range(0, height, 8) for x in range(0, width, 8)]
    )
    assert contrast(picture) == pytest.approx(np.ptp(means, axis=0).max(), abs=1e-9)


def test_grain_is_nothing_and_one_small_nucleus_is_something():
    assert is_blank(glass(256, 256, deviation=8), BLANK_BELOW)
    picture = glass(256, 256)
    y, x = np.mgrid[:256, :256]
    picture[(y - 127.5) ** 2 + (x - 127.5) ** 2 < 4**2] -= 100  # where four squares meet, the worst place
    assert picture.std((0, 1)).max() < 4
    assert not is_blank(picture, BLANK_BELOW)


def test_what_continues_a_small_image_neither_fills_nor_empties_it():
    small = glass(40, 30)
    assert is_blank(cut(small, 0, 0, 256), BLANK_BELOW)
    small[-8:, -8:] -= 60
    assert not is_blank(cut(small, 0, 0, 256), BLANK_BELOW)


def test_where_foreground_has_no_contrast_a_run_has_no_limit(made, capsys):
    cache = FeatureCache.open(made / "tiled.zarr")
    assert blank_limit(cache, ["train_000", "train_001"]) == BLANK_BELOW
    inside = np.ones((64, 64), np.uint8)
    rows = [replace(cache.rows[0], id=name, view=0) for name in ("blank", "lung")]
    made_up = SimpleNamespace(rows=rows, image=lambda row: glass(64, 64), mask=lambda row: row * inside)
    assert blank_limit(made_up, ["blank"]) == BLANK_BELOW
    assert blank_limit(made_up, ["blank", "lung"]) is None
    assert "lung: has foreground where there is no contrast" in capsys.readouterr().err


def test_without_its_image_a_row_is_not_guessed_about(made):
    run = Run(made / "runs/head")
    (item,) = Loader(run.open_cache(), "cpu").epoch([0])
    with pytest.raises(ValueError, match="row 0: has no image"):
        predict_members(run.load_network(), item, "float32").mean(0)


def test_predictions_by_another_limit_do_not_mix_in_one_folder(made, tmp_path, textdiff_once):
    shutil.copytree(made / "runs/unet", tmp_path / "unet")
    command = ("predict", "--run", str(tmp_path / "unet"), "data/Test_Folder/img", "--out", str(tmp_path / "out"))
    textdiff_once(made, *command)
    edit(tmp_path / "unet", Run(tmp_path / "unet").config | {"blank_below": None})
    assert "blank_below 10.0, now None" in textdiff_once(made, *command, status=2).stderr
