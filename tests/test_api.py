"""The Python API: the same defaults and results as the command line, and an import that costs nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import textdiff
from textdiff.outputs.colours import class_colours
from textdiff.outputs.overlay import outlined


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_lvit_once) -> Path:
    return make_lvit_once(tmp_path_factory.mktemp("api") / "data", n_train=3, n_val=1, n_test=2, size=64)


@pytest.fixture(scope="module")
def cache(data, tiny_backbone):
    return textdiff.extract(
        "monuseg",
        data=str(data),
        cache=data.parent / "c.zarr",
        backbone=tiny_backbone,
        text_encoder="none",
        image_size=64,
        blocks=[4, 8],
        steps=(50, 250),
    )


@pytest.fixture(scope="module")
def run(cache, data):
    return textdiff.fit(cache, variant="no-text", epochs=2, labels=2, runs=data.parent / "runs")


def test_import_is_light_and_every_name_is_there_when_asked_for():
    code = (
        "import sys, textdiff; assert not {'torch', 'numpy', 'zarr'} & set(sys.modules);"
        "assert set(textdiff.__all__) <= set(dir(textdiff));"
        "assert all(getattr(textdiff, name) is not None for name in textdiff.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'extracts'"):
        textdiff.extracts  # noqa: B018


def test_extract_resolves_as_the_command_line_does(cache, data, tiny_backbone, textdiff_once):
    arguments = ("--data", str(data), "--cache", "cli.zarr", "--backbone", str(tiny_backbone), "--text-encoder", "none")
    options = ("--image-size", "64", "--blocks", "4,8", "--steps", "50,250")
    textdiff_once(data.parent, "extract", "--dataset", "monuseg", *arguments, *options)
    other = textdiff.open_cache(str(data.parent / "cli.zarr"))
    assert isinstance(other, textdiff.FeatureCache)
    assert other.fingerprint_hash == cache.fingerprint_hash
    assert all(
        (other.features(row, block) == cache.features(row, block)).all()
        for row in range(len(cache.rows))
        for block in cache.blocks
    )


def test_fit_and_score_give_runs_and_scores(run):
    assert run.finished
    assert len(run.config["train_ids"]) == 2
    assert [line["epoch"] for line in run.log()] == [1, 2]
    scores = textdiff.score(run)
    means = [image["dice_clean"] for image in run.scores()["images"]]
    assert scores.summary["scores"]["clean"]["dice"].mean == pytest.approx(np.mean(means))
    assert textdiff.open_run(runs=run.path.parent).path.samefile(run.path)
    assert textdiff.open_run(str(run.path)).config == run.config


def test_predictor_takes_a_file_or_its_pixels_and_gives_what_predict_writes(run, data, tmp_path):
    predictor = textdiff.Predictor(str(run.path))
    assert not predictor.reads_text
    image = next((data / "Test_Folder/img").iterdir())
    pixels = np.asarray(Image.open(image))
    probabilities = predictor(image)
    assert probabilities.shape == (2, 64, 64)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (predictor(pixels) == probabilities).all()
    written, *tables = textdiff.predict(image, run=run, out=tmp_path)
    assert {table.name for table in tables} == {"predictions.csv", "images.csv", "summary.csv"}
    assert ((np.asarray(Image.open(written)) > 0) == (probabilities.argmax(0) > 0)).all()
    grey = pixels[..., 0]
    assert (predictor(grey) == predictor(np.stack([grey] * 3, axis=2))).all()


def test_a_cache_shows_what_it_is_in_one_line(cache):
    shown = "6 rows of 6 images, 64x64, blocks 4, 8, steps 50, 250"
    assert repr(cache) == f"<FeatureCache {cache.path}: {shown}>"


def test_overlay_outlines_what_the_predictor_finds_and_leaves_the_rest(run, data):
    predictor = textdiff.Predictor(run)
    pixels = np.asarray(Image.open(next((data / "Test_Folder/img").iterdir())))
    assert list(predictor.colours) == ["foreground"]
    found = predictor(pixels).argmax(0)
    found[16:48, 16:48] = 1  # whatever a fit of two epochs finds, there is an outline to draw
    before = pixels.copy()
    assert (predictor.overlay(pixels) == outlined(pixels, predictor(pixels).argmax(0), class_colours(1))).all()
    drawn = outlined(pixels, found, [(213, 94, 0)])
    inner = ndimage.binary_erosion(found, np.ones((3, 3)), border_value=1)
    assert (drawn[(found == 1) & ~inner] == (213, 94, 0)).all()
    assert (drawn[(found == 0) | inner] == pixels[(found == 0) | inner]).all()
    assert (pixels == before).all()


def test_outlines_of_classes_that_touch_keep_to_their_own_side():
    labels = np.repeat([[0, 1, 1, 1, 1, 2, 2, 2, 2]], 7, axis=0)
    drawn = outlined(np.zeros((7, 9, 3), np.uint8), labels, class_colours(2))
    first, second = class_colours(2)
    black = (0, 0, 0)
    assert [tuple(pixel) for pixel in drawn[3].tolist()] == [
        *(black, first, black, black, first),
        *(second, black, black, black),
    ]


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_an_array_that_is_no_image_is_refused_by_its_shape_and_dtype(run, wrong):
    with pytest.raises(textdiff.UserError, match=r"uint8"):
        textdiff.Predictor(run)(wrong)


def test_mistakes_are_user_errors(tmp_path):
    for mistake in (
        lambda: textdiff.extract("nothing"),
        lambda: textdiff.open_cache(tmp_path / "none.zarr"),
        lambda: textdiff.fit(tmp_path / "none.zarr"),
        lambda: textdiff.score(runs=tmp_path),
        lambda: textdiff.predict("no.png", run=tmp_path / "none"),
    ):
        with pytest.raises(textdiff.UserError):
            mistake()


def test_resume_refuses_a_finished_run_and_score_names_the_missing_cache(run):
    with pytest.raises(textdiff.UserError, match="finished already"):
        textdiff.resume(run)
    with pytest.raises(textdiff.UserError, match=r"gone\.zarr"):
        textdiff.score(run, cache=run.path / "gone.zarr")


def test_scores_of_a_run_name_the_command_that_makes_them(run):
    with pytest.raises(textdiff.UserError, match=r"textdiff score --run .* --split val"):
        run.scores("val")
    damaged = run.path / "scores-train.json"
    for content in ("{", '{"schema": 3, "images": []}'):
        damaged.write_text(content)
        with pytest.raises(textdiff.UserError, match=r"scores-train\.json: damaged; remove it and run"):
            run.scores("train")
    for other in ({"schema": 2, "images": []}, []):
        damaged.write_text(json.dumps(other))
        with pytest.raises(textdiff.UserError, match=r"another version of TextDiff; run .*textdiff score --run"):
            run.scores("train")
    damaged.unlink()
