"""``textdiff next`` from a cache alone: a few images that stand for all, beside those with a mask."""

import hashlib
import itertools
import json
import shlex

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

import textdiff
from textdiff.cache import FeatureCache, Row

POINTS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float16)
POINTS[8] = POINTS[2]
MASKED = 2


@pytest.fixture
def cache(tmp_path):
    """Ten images, each of one colour for the network, the third with a mask and its twin without one."""
    rows = []
    for number in range(len(POINTS)):
        digest = hashlib.sha256(bytes([number])).hexdigest()
        mask = digest if number == MASKED else None
        rows.append(Row(str(number), "train", 0, -1, f"{number}.png", digest, mask, 4, 4))
    made = FeatureCache.create(
        tmp_path / "c.zarr",
        fingerprint={"dtype": "float16"},
        rows=rows,
        blocks={4: (3, 2, 2)},
        steps=(50, 0),
        image_size=4,
        texts=[],
        tokens=None,
        token_mask=None,
        about={"dataset": "tiny"},
    )
    for row, point in enumerate(POINTS):
        mask = np.eye(4, dtype=np.uint8) if row == MASKED else None
        # At the noised step all are alike.
        levels = np.stack([np.ones((3, 2, 2)), np.broadcast_to(point[:, None, None], (3, 2, 2))]).astype(np.float32)
        made.write(row, {4: levels}, np.zeros((4, 4, 3), np.uint8), mask, mask)
    return tmp_path / "c.zarr"


def coverage(chosen) -> float:
    """By its definition, with each channel in units of its deviation."""
    points = POINTS.astype(float) / POINTS.astype(float).std(0)
    apart = cdist(points, points)
    return 1 - apart[:, [MASKED, *chosen]].min(1).mean() / apart.max()


def test_the_first_few_cover_the_images_as_well_as_a_greedy_choice_promises(cache, tmp_path, textdiff_once):
    lines = json.loads(textdiff_once(tmp_path, "next", "--cache", str(cache), "--json").stdout)
    order = [int(line["id"]) for line in lines]
    assert sorted(order) == [index for index in range(10) if index != MASKED]
    assert order[-1] == 8  # what is as an image with a mask teaches nothing new
    assert order[0] == max(order, key=lambda index: coverage([index]))
    for count in range(1, 10):
        assert lines[count - 1]["score"] == lines[count - 1]["coverage"] == pytest.approx(coverage(order[:count]))
    base = coverage([])
    best = max(coverage(three) for three in itertools.combinations(order, 3))
    assert coverage(order[:3]) - base >= (1 - 1 / np.e) * (best - base)
    assert lines[0]["disagreement"] is lines[0]["entropy"] is None
    table = textdiff_once(tmp_path, "next", "--cache", str(cache), "--top", "2").stdout
    assert table.split()[:5] == ["rank", "image", "split", "coverage", "%"]
    assert len(table.splitlines()) == 4
    assert list(tmp_path.iterdir()) == [cache]


def test_without_a_run_nothing_is_uncertain(cache, tmp_path, textdiff_once):
    result = textdiff_once(tmp_path, "next", "--cache", str(cache), "--by", "uncertainty", status=2)
    assert "--run" in result.stderr


def test_images_that_are_all_the_same_are_named_once_each(cache, monkeypatch):
    monkeypatch.setattr("textdiff.pipeline.prediction.coverage.described", lambda *_: np.ones(3))
    ranking = textdiff.rank(cache=cache)
    assert [line.coverage for line in ranking.candidates] == [1] * 9
    assert len({line.id for line in ranking.candidates}) == 9
    assert ranking.file is None


def test_a_cache_without_masks_is_to_be_ranked_and_not_fitted(tmp_path, textdiff_once):
    (tmp_path / "data/images").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (32, 32), (90 * number, 9, 200)).save(tmp_path / f"data/images/{number}.png")
    options = ("--preset", "rgb", "--image-size", "32", "--text-encoder", "none", "--cache", "my c.zarr")
    said = textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "data", *options).stderr
    (advice,) = (line for line in said.splitlines() if line.startswith("next: "))
    command = shlex.split(advice.removeprefix("next: textdiff ").split(";")[0])
    assert command == ["next", "--cache", "my c.zarr"]
    textdiff_once(tmp_path, *command)
