"""Several classes: from their masks through the cache and a fit to the scores of each."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.images.images import resize_mask
from textdiff.pipeline.evaluation.class_scores import class_scores
from textdiff.tests.reader_cases import EXTRACT, labels_of, make_folder


def test_several_classes_go_through_extract_fit_score_and_predict(tmp_path, tiny_backbone, textdiff_once):
    make_folder(tmp_path / "data", [(labels_of(n) % 3).astype(np.uint8) for n in range(4)])
    options = ("--dataset", "folder", "--data", "data", "--backbone", str(tiny_backbone))
    textdiff_once(tmp_path, *EXTRACT, *options, "--classes", "nucleus,stroma")
    cache = FeatureCache.open(tmp_path / "cache/data.zarr")
    assert cache.classes == ("nucleus", "stroma")
    np.testing.assert_array_equal(cache.truth(0), labels_of(0) % 3)
    np.testing.assert_array_equal(cache.mask(0), labels_of(0) % 3)  # the image has the cache's size
    textdiff_once(tmp_path, "fit", "--cache", "cache/data.zarr", "--variant", "no-text", "--epochs", "3")
    config = json.loads((tmp_path / "runs/latest/config.json").read_text())
    assert config["head"]["classes"] == 3
    scored = json.loads(textdiff_once(tmp_path, "score", "--json").stdout)["scores"]["clean"]
    assert set(scored["classes"]) == {"nucleus", "stroma"}
    means = [scored["classes"][name]["dice"]["mean"] for name in ("nucleus", "stroma")]
    assert scored["dice"]["mean"] == pytest.approx(np.mean(means))
    assert "| - stroma |" in (tmp_path / "runs/latest/report.md").read_text()
    textdiff_once(tmp_path, "predict", "data/images/3.png", "--out", "out")
    predicted = np.asarray(Image.open(tmp_path / "out/3.png"))
    assert predicted.shape == (64, 64)
    assert set(np.unique(predicted)) <= {0, 1, 2}


def test_class_scores_are_the_metric_of_each_class_and_their_mean():
    true = np.array([[0, 1, 1, 2], [0, 0, 2, 2]])
    predicted = np.array([[0, 1, 2, 2], [0, 0, 2, 0]])
    found = class_scores(predicted, true, ("a", "b"), "clean")
    assert found["iou_clean_a"] == 1 / 2
    assert found["iou_clean_b"] == 2 / 4
    assert found["dice_clean"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    binary = class_scores(predicted > 0, true > 0, ("foreground",), "clean")
    assert (binary["dice_clean"], binary["iou_clean"]) == pytest.approx((8 / 9, 4 / 5))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(["area", "bilinear"]), st.integers(3, 20))
def test_resizing_classes_is_resizing_masks_where_there_is_one(seed, classes, rule, size):
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, classes, (draw.integers(4, 24), draw.integers(4, 24)))
    several = resize_mask(mask, size, rule, classes=max(3, classes))
    binary = resize_mask(mask > 0, size, rule)
    assert several.max() < max(3, classes)
    np.testing.assert_array_equal(resize_mask(mask > 0, size, rule, classes=3), binary)
    if rule == "bilinear":
        np.testing.assert_array_equal(several > 0, binary > 0)


def test_classes_are_resized_by_majority():
    mask = np.array([[1, 1, 2, 0], [1, 2, 0, 0], [2, 2, 0, 1], [1, 1, 2, 0]])
    # Upper right: three of background. Lower left: two and two, so the larger number. Lower right: 0, 0, 1, 2.
    np.testing.assert_array_equal(resize_mask(mask, 2, "area", classes=3), [[1, 0], [2, 0]])
