"""Ensembles: same images, other seeds; their mean, entropy and disagreement; which image to annotate next."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.torch import load_file
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from textdiff.cache import FeatureCache
from textdiff.metrics.pixels import entropy, jensen_shannon, mean_share
from textdiff.pipeline import fit as fit_module
from textdiff.pipeline.fit import FitConfig, fit, resume
from textdiff.pipeline.prediction.predictor import Predictor
from textdiff.pipeline.predictions import predict_members
from textdiff.pipeline.runs import Run, write_config
from textdiff.tests.run_cases import newest

LOGITS = st.floats(-30, 30, width=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    """A data set with two annotated training images of five, its cache, and an ensemble of three on the two."""
    root = tmp_path_factory.mktemp("made")
    make_lvit_once(root / "data", n_train=5, n_val=1, n_test=2, size=96)
    for number in (2, 3, 4):
        (root / f"data/Train_Folder/labelcol/train_{number:03d}.png").unlink()
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--cache", "cache.zarr")
    smallest = ("--text-encoder", "none", "--image-size", "64", "--blocks", "6", "--steps", "50")
    textdiff_once(root, *extract, "--backbone", str(tiny_backbone), *smallest)
    fit = ("fit", "--cache", "cache.zarr", "--labels", "2", "--variant", "no-text", "--epochs", "2")
    textdiff_once(root, *fit, "--runs", "single")
    textdiff_once(root, *fit, "--ensemble", "3", "--seed", "7")
    return root


@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 4), st.just(2), st.just(3)), elements=LOGITS))
def test_disagreement_is_the_mean_divergence_from_the_mean(logits):
    p = softmax(logits.astype(np.float64), axis=1)
    expected = rel_entr(p, p.mean(0)).sum(1).mean(0)
    found = jensen_shannon(p)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)
    assert (found >= 0).all()
    assert found.max() <= np.log(min(p.shape[:2])) + 1e-6


def test_disagreement_of_two_is_the_square_of_scipys_distance_and_entropy_is_in_nats():
    p = softmax(np.random.default_rng(0).normal(0, 2, (2, 3, 4, 5)), axis=1)
    assert np.allclose(jensen_shannon(p), jensenshannon(p[0], p[1], axis=0) ** 2, atol=1e-6)
    assert np.allclose(entropy(p.mean(0)), -(p.mean(0) * np.log(p.mean(0))).sum(0), atol=1e-6)


def test_extremes_of_disagreement():
    certain = np.array([1.0, 0.0])[:, None, None]
    same, opposite = np.stack([certain, certain]), np.stack([certain, certain[::-1]])
    undecided = np.full((2, 2, 1, 1), 0.5)
    assert jensen_shannon(same) == jensen_shannon(undecided) == 0
    assert mean_share(jensen_shannon(opposite), 2) == pytest.approx(1)
    with pytest.raises(ValueError, match="members"):
        jensen_shannon(certain)


def test_members_share_the_images_and_differ_in_seed_and_weights(made):
    run = newest(made / "runs")
    assert [member.config["fit"]["seed"] for member in run.members] == [7, 8, 9]
    assert {tuple(member.config["train_ids"]) for member in run.members} == {tuple(run.config["train_ids"])}
    weights = [load_file(member.path / "head.safetensors")["conv1.weight"] for member in run.members]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_member_is_the_fit_of_its_seed_on_the_same_draw(made, tmp_path):
    member = newest(made / "runs").members[1]
    config = FitConfig(made / "cache.zarr", labels=2, variant="no-text", epochs=2, seed=8, draw_seed=7)
    alone = load_file(fit(config, tmp_path) / "head.safetensors")
    assert all(torch.equal(value, alone[name]) for name, value in load_file(member.path / "head.safetensors").items())


def test_ensemble_predicts_the_mean_probability(made):
    run, cache = newest(made / "runs"), FeatureCache.open(made / "cache.zarr")
    network = run.load_network()
    (item,) = network.loader(cache, torch.device("cpu")).epoch([0])
    each = np.stack([predict_members(member.load_network(), item, "float32").mean(0) for member in run.members])
    assert (predict_members(network, item, "float32") == each).all()
    assert np.allclose(predict_members(network, item, "float32").mean(0), each.mean(0), atol=1e-6)
    with torch.inference_mode():
        assert np.allclose(network(*network.inputs([item])).softmax(1)[0], each.mean(0), atol=1e-6)


def test_stopped_ensemble_does_what_was_missing_and_comes_to_the_same_weights(made, tmp_path, monkeypatch):
    config = FitConfig(made / "cache.zarr", labels=2, variant="no-text", epochs=2, seed=7, ensemble=3)
    train_many = fit_module.train_many

    def stop_in_the_second(runs, *arguments):
        if runs[0][0].path.name == "1":
            raise KeyboardInterrupt
        train_many(runs, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "train_many", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path)
    cut = newest(tmp_path)
    assert [(member.path / "head.safetensors").is_file() for member in cut.members] == [True, False, False]
    done = (cut.members[0].path / "head.safetensors").stat().st_mtime_ns
    resume(cut)
    assert done == (cut.members[0].path / "head.safetensors").stat().st_mtime_ns
    for ours, theirs in zip(cut.members, newest(made / "runs").members, strict=True):
        left, right = (load_file(run.path / "head.safetensors") for run in (ours, theirs))
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_score_and_predict_take_the_mean_and_write_both_uncertainties(made, textdiff_once):
    result = textdiff_once(made, "score")
    assert "no-text, mean of 3" in result.stdout
    run = newest(made / "runs")
    report = (run.path / "report.md").read_text()
    assert "mean of 3 networks, seeds 7 to 9" in report
    assert "Means over 2 images" in report
    scores = {row["id"]: row for row in csv.DictReader((run.path / "scores.csv").open())}
    image = sorted((made / "data/Test_Folder/img").iterdir())[0]
    textdiff_once(made, "predict", str(image), "--out", "masks", "--entropy", "--disagreement", "--temperature", "1")

    def read(suffix: str = "") -> np.ndarray:
        with Image.open(made / f"masks/{image.stem}{suffix}.png") as picture:
            return np.asarray(picture)

    with Image.open(made / f"data/Test_Folder/labelcol/{image.stem}.png") as picture:
        truth = np.asarray(picture) > 127
    overlap = (truth & (read() > 0)).sum() / (truth | (read() > 0)).sum()
    assert overlap == pytest.approx(float(scores[image.stem]["iou_original"]), abs=1e-9)

    with Image.open(image) as picture:
        members = Predictor(run).members(np.asarray(picture.convert("RGB"))).astype(np.float64)
    mean = members.mean(0)
    for suffix, nats in (
        ("_entropy", -(mean * np.log(mean)).sum(0)),
        ("_disagreement", rel_entr(members, mean).sum(1).mean(0)),
    ):
        assert read(suffix).dtype == np.uint16
        assert np.abs(read(suffix) / 65535 - nats / np.log(2)).max() < 1e-4


def test_members_of_an_image_in_tiles_are_stitched_and_ranked_alike(made, tiny_backbone, textdiff_once, monkeypatch):
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--cache", "tiles.zarr", "--tile", "64")
    smallest = ("--text-encoder", "none", "--image-size", "64", "--blocks", "2", "--steps", "50")
    textdiff_once(made, *extract, "--backbone", str(tiny_backbone), *smallest)
    fit = ("fit", "--cache", "tiles.zarr", "--labels", "2", "--variant", "no-text", "--epochs", "1")
    textdiff_once(made, *fit, "--ensemble", "2", "--runs", "tiled")
    predictor = Predictor(newest(made / "tiled"))
    path = sorted((made / "data/Test_Folder/img").iterdir())[0]
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    members = predictor.members(image)
    assert members.shape == (2, 2, 96, 96)
    assert np.allclose(members.mean(0), predictor(image), atol=1e-6)
    assert not np.allclose(members[0], members[1], atol=1e-6)
    monkeypatch.setattr("textdiff.pipeline.predict.large_size", lambda path: (1, 1))
    textdiff_once(made, "predict", str(path), "--runs", "tiled", "--out", "large", "--disagreement")
    drawn = tifffile.imread(made / f"large/{path.stem}_disagreement.tif") / 65535
    assert np.abs(drawn - jensen_shannon(members) / np.log(2)).max() < 1e-4
    lines = json.loads(textdiff_once(made, "next", "--runs", "tiled", "--json").stdout)
    assert [line["rank"] for line in lines] == [1, 2, 3]


def test_next_ranks_the_images_without_a_mask(made, textdiff_once):
    run, cache = newest(made / "runs"), FeatureCache.open(made / "cache.zarr")
    covered = json.loads(textdiff_once(made, "next", "--json").stdout)
    lines = json.loads(textdiff_once(made, "next", "--by", "uncertainty", "--json").stdout)
    assert {line["id"] for line in lines} == {"train_002", "train_003", "train_004"}
    # Coverage alone says the same without the run, which adds its doubts.
    alone = json.loads(textdiff_once(made, "next", "--cache", "cache.zarr", "--json").stdout)
    assert [(line["id"], line["score"]) for line in covered] == [(line["id"], line["coverage"]) for line in alone]
    assert {line["id"]: line["entropy"] for line in covered} == {line["id"]: line["entropy"] for line in lines}
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)

    row = next(row for row, entry in enumerate(cache.rows) if entry.id == lines[0]["id"])
    network = run.load_network()
    (item,) = network.loader(cache, torch.device("cpu")).epoch([row])
    p = predict_members(network, item, "float32").astype(np.float64)
    divergence = rel_entr(p, p.mean(0)).sum(1).mean() / np.log(2)
    assert lines[0]["score"] == lines[0]["disagreement"] == pytest.approx(divergence, abs=1e-6)
    written = list(csv.DictReader((run.path / "next.csv").open()))
    assert [line["id"] for line in written] == [line["id"] for line in lines]

    table = textdiff_once(made, "next", "--by", "uncertainty", "--top", "1").stdout
    assert lines[0]["id"] in table
    assert len(table.splitlines()) == 3


def test_single_network_ranks_by_entropy_and_says_so(made, textdiff_once):
    result = textdiff_once(made, "next", "--runs", "single", "--by", "uncertainty", "--json")
    lines = json.loads(result.stdout)
    assert "single network" in result.stderr
    assert all(line["disagreement"] is None and line["score"] == line["entropy"] for line in lines)
    assert "disagreement" not in textdiff_once(made, "next", "--runs", "single").stdout


def test_single_network_cannot_disagree(made, textdiff_once):
    image = next((made / "data/Test_Folder/img").iterdir())
    arguments = ("predict", str(image), "--disagreement", "--runs", "single")
    result = textdiff_once(made, *arguments, status=2)
    assert "--ensemble" in result.stderr


def test_nothing_left_to_annotate_is_said(made, tmp_path, make_lvit, tiny_backbone, textdiff_once):
    make_lvit(n_train=2, n_val=0, n_test=1)
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--cache", "cache.zarr")
    smallest = ("--text-encoder", "none", "--image-size", "64", "--blocks", "6", "--steps", "50")
    textdiff_once(tmp_path, *extract, "--backbone", str(tiny_backbone), *smallest)
    textdiff_once(tmp_path, "fit", "--cache", "cache.zarr", "--labels", "1", "--variant", "no-text", "--epochs", "1")
    assert "no image is left to annotate" in textdiff_once(tmp_path, "next", status=2).stderr


def test_unfinished_member_is_named_with_the_way_to_finish(made, textdiff_once, tmp_path):
    run = newest(made / "runs")
    write_config(Run(tmp_path / "run"), run.config)
    result = textdiff_once(made, "score", "--run", str(tmp_path / "run"), status=2)
    assert "members/0" in result.stderr
    assert f"--resume --run {tmp_path / 'run'}" in result.stderr
