"""``text-check``: paired short fits on validation images, what they say, and the warning about sentences from masks."""

import json

import numpy as np
import pytest

from textdiff.experiments.nested_bootstrap import Estimate
from textdiff.experiments.text_check import in_one_sentence
from textdiff.experiments.text_leak import Told, explained, leak_warning, mask_numbers, word_table
from textdiff.tests import experiment_cases as cases

UP, NONE, DOWN = (Estimate(mean, mean - 0.01, mean + 0.01, 5, 5, 8) for mean in (0.05, 0.0, -0.05))
ALONE = Estimate(0.05, None, None, 1, 1, 8)


@pytest.fixture(scope="module")
def checked(tmp_path_factory, textdiff_once):
    root = tmp_path_factory.mktemp("checked")
    cases.make_cache(root / "c.zarr")
    command = ("text-check", "--cache", "c.zarr", "--draws", "2", "--labels", "2", "--epochs", "2")
    command += ("--positions", "--places")
    return root, command, textdiff_once(root, *command, "--jobs", "1")


def test_the_check_pairs_fits_with_and_without_texts_on_validation_images(checked, textdiff_once):
    root, command, said = checked
    found = json.loads((root / "runs/text-check-c-positions-places/text-check.json").read_text())
    assert found["split"] == "val"
    plan = json.loads((root / "runs/text-check-c-positions-places/experiment.json").read_text())
    assert plan["options"]["fit.select"] == "last"
    rows = {row["method"]: row for row in found["rows"] if (row["truth"], row["metric"]) == ("clean", "dice")}
    assert list(rows) == ["full-places", "no-text", "shuffled-text-places"]
    for name in ("no-text", "shuffled-text-places"):
        assert found["gains"][name]["mean"] == pytest.approx(-rows[name]["difference"])
    assert rows["full-places"]["mean"] - rows["no-text"]["mean"] == pytest.approx(found["gains"]["no-text"]["mean"])
    names = ("full", "no-text", "shuffled-text")  # of the directories
    fits = {name: json.loads(next(root.glob(f"runs/*/{name}-d0-s0/config.json")).read_text())["fit"] for name in names}
    assert [fit["positions"] for fit in fits.values()] == [True] * 3
    assert [fit["places"] for fit in fits.values()] == [True, False, True]
    assert found["says"] in said.stdout
    assert "made-up, 1 val image, truth" in said.stdout
    again = textdiff_once(root, *command, "--jobs", "1")
    assert again.stdout == said.stdout


@pytest.mark.parametrize(
    ("against", "others", "begins"),
    [
        (UP, UP, "The texts help, by what they say"),
        (UP, NONE, "A text helps, but whether it is the image's own"),
        (NONE, UP, "A wrong text does harm"),
        (NONE, NONE, "No gain from the texts was seen"),
        (DOWN, UP, "The texts do harm"),
        (None, UP, "Nothing can be said yet"),
        (ALONE, ALONE, "Nothing can be said: one run on one group does not tell"),
    ],
)
def test_what_the_differences_mean_is_one_sentence(against, others, begins):
    said = in_one_sentence({"no-text": against, "shuffled-text": others}, "ask for more --draws")
    assert said.startswith(begins)
    assert said.count(". ") == 0


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--labels", "2", "--draws", "1"), "ask for more --draws."),
        (("--labels", "5"), "all annotated training images are drawn already, so ask for fewer --labels or annotate "),
    ],
)
def test_one_run_on_one_image_advises_what_gives_more(checked, tmp_path, textdiff_once, options, advice):
    command = ("text-check", "--cache", str(checked[0] / "c.zarr"), *options, "--epochs", "1", "--jobs", "1")
    said = textdiff_once(tmp_path, *command).stdout
    assert f"Nothing can be said: one run on one image does not tell how others vary; {advice}" in said


def test_left_out_errors_are_those_of_ridge_regressions_without_each_image():
    draw = np.random.default_rng(0)
    words, values = (draw.random((12, 5)) < 0.5).astype(float), draw.normal(size=12)
    errors, means = [], []
    for one in range(12):
        rest = np.arange(12) != one
        # With an intercept that is not penalised, of all words centred over all images.
        centred = words - words.mean(0)
        design = np.column_stack([np.ones(11), centred[rest]])
        penalty = np.diag([0.0, *np.ones(5)])
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ values[rest])
        errors.append(values[one] - np.array([1, *centred[one]]) @ weights)
        means.append(values[one] - values[rest].mean())
    assert explained(words, values)[0] == pytest.approx(1 - np.square(errors).sum() / np.square(means).sum())


@pytest.mark.parametrize("written", [True, False])
def test_sentences_written_from_masks_are_suspect_and_others_are_not(written):
    draw = np.random.default_rng(1)
    lefts = draw.random(24) < 0.5
    masks = np.zeros((24, 16, 16), np.uint8)
    for mask, left in zip(masks, lefts, strict=True):
        mask[4:8, (2 if left else 9) : (6 if left else 14)] = 1
    said = lefts if written else draw.permutation(lefts)
    words = word_table([f"one area at the {'left' if left else 'right'}" for left in said])
    places = np.array([mask_numbers(mask)["place from left to right"] for mask in masks])
    told = Told("place from left to right", *explained(words, places))
    assert told.suspect == written
    assert ("were these sentences written from the masks?" in leak_warning([told])) == written


def test_numbers_of_masks_tell_size_place_and_count():
    mask = np.zeros((10, 20), np.uint8)
    mask[0:2, 0:2] = mask[8:10, 18:20] = 2
    mask[4, 4] = 255  # says nothing
    found = mask_numbers(mask)
    assert found["area"] == 8 / 200
    assert found["place from left to right"] == pytest.approx(0.475)
    assert found["number of areas"] == pytest.approx(np.log(3))
    assert mask_numbers(np.zeros((4, 4), np.uint8))["place from top to bottom"] == 0.5
