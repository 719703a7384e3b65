"""The three commands and `predict` on a small data set in the LViT layout, with a network of the real topology."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.tests.file_tools import files
from textdiff.tests.run_cases import assert_masks_are_those_scored, newest


def extract_arguments(data: Path, backbone: Path, cache: Path, *more: str) -> list[str]:
    return [
        *("extract", "--dataset", "monuseg", "--data", str(data), "--cache", str(cache)),
        *("--backbone", str(backbone), "--text-encoder", "none", "--image-size", "64", *more),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    """A directory with a data set, its cache and one finished run."""
    root = tmp_path_factory.mktemp("made")
    make_lvit_once(root / "data", n_train=4, n_val=1, n_test=3, size=96)
    textdiff_once(root, *extract_arguments(root / "data", tiny_backbone, root / "cache.zarr"))
    textdiff_once(root, "fit", "--cache", "cache.zarr", "--labels", "3", "--epochs", "2", "--variant", "no-text")
    textdiff_once(root, "score")
    return root


def test_score_writes_table_scores_and_overlay(made):
    run = newest(made / "runs").path
    scores = json.loads((run / "scores.json").read_text())
    rows = list(csv.DictReader((run / "scores.csv").open()))
    assert len(rows) == 3
    assert scores["labels"] == 3 == len(scores["train_ids"])
    for name in ("clean", "paper", "original"):
        mean = np.mean([float(row[f"dice_{name}"]) for row in rows])
        assert scores["scores"][name]["dice"]["mean"] == pytest.approx(mean)
        assert scores["scores"][name]["dice"]["low"] <= mean <= scores["scores"][name]["dice"]["high"]
    with Image.open(run / "overlay.png") as picture:
        assert picture.width > 500


def test_predict_gives_the_mask_that_score_measured(made, textdiff_once):
    test_images = sorted((made / "data/Test_Folder/img").iterdir())
    textdiff_once(made, "predict", *map(str, test_images), "--out", "masks", "--probabilities", "--entropy")
    assert_masks_are_those_scored(newest(made / "runs"), made / "data", made / "masks")
    for image in test_images:
        with Image.open(made / "masks" / f"{image.stem}.png") as picture:
            mask = np.asarray(picture)
        assert mask.shape == (96, 96)
        assert set(np.unique(mask)) <= {0, 255}
        with Image.open(made / "masks" / f"{image.stem}_probability.png") as picture:
            probability = np.asarray(picture).astype(float) / 65535
        assert ((probability > 0.501) <= (mask > 0)).all()
        with Image.open(made / "masks" / f"{image.stem}_entropy.png") as picture:
            entropy = np.asarray(picture).astype(float) / 65535
        p = np.clip(probability, 1e-9, 1 - 1e-9)
        expected = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        assert np.abs(entropy - expected).max() < 1e-3


def test_a_head_on_some_blocks_and_steps_predicts_what_score_measured(made, textdiff_once, tmp_path):
    narrow = ("--blocks", "8,12", "--steps", "150", "--epochs", "1", "--variant", "no-text")
    textdiff_once(made, "fit", "--cache", "cache.zarr", *narrow, "--runs", str(tmp_path))
    (run,) = tmp_path.glob("cache-*")
    textdiff_once(made, "score", "--run", str(run))
    row = next(csv.DictReader((run / "scores.csv").open()))
    image = next((made / "data/Test_Folder/img").glob(f"{row['id']}.*"))
    textdiff_once(made, "predict", str(image), "--run", str(run), "--out", str(tmp_path / "masks"))
    with Image.open(tmp_path / "masks" / f"{row['id']}.png") as picture:
        mask = np.asarray(picture) > 0
    with Image.open(next((made / "data/Test_Folder/labelcol").glob(f"{row['id']}.*"))) as picture:
        truth = np.asarray(picture.convert("L")) > 127
    overlap = (truth & mask).sum() / max(1, (truth | mask).sum())
    assert overlap == pytest.approx(float(row["iou_original"]), abs=1e-9)


def test_extract_of_all_blocks_says_its_size_and_makes_nothing(made, tiny_backbone, textdiff_once):
    arguments = extract_arguments(made / "data", tiny_backbone, made / "all.zarr", "--blocks", "all", "--dry-run")
    result = textdiff_once(made, *arguments)
    assert all(f"b{block:02d} " in result.stderr for block in range(18))
    assert "8 of 8 rows are to do" in result.stderr
    assert not (made / "all.zarr").exists()


def test_extract_again_does_nothing(made, tiny_backbone, textdiff_once):
    before = {path: path.stat().st_mtime_ns for path in (made / "cache.zarr").rglob("*") if path.is_file()}
    result = textdiff_once(made, *extract_arguments(made / "data", tiny_backbone, made / "cache.zarr"))
    assert "nothing to do" in result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (made / "cache.zarr").rglob("*") if path.is_file()}


def test_an_extract_that_the_disk_cannot_hold_leaves_nothing_behind(made, tiny_backbone, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    options = {"data": made / "data", "backbone": tiny_backbone, "text_encoder": "none", "image_size": 64}
    with pytest.raises(UserError, match="8 rows need"):
        textdiff.extract("monuseg", cache=made / "full/c.zarr", **options)
    assert not (made / "full").exists()


def test_a_dry_run_does_not_replace_a_cache(made, tiny_backbone, textdiff_once):
    before = files(made / "cache.zarr")
    arguments = extract_arguments(made / "data", tiny_backbone, made / "cache.zarr", "--dry-run", "--overwrite")
    assert "--dry-run" in textdiff_once(made, *arguments, status=2).stderr
    assert files(made / "cache.zarr") == before


def test_extract_twice_gives_the_same_bytes(made, tiny_backbone, textdiff_once):
    textdiff_once(made, *extract_arguments(made / "data", tiny_backbone, made / "again.zarr"))
    assert files(made / "again.zarr") == files(made / "cache.zarr")


def test_shards_make_the_cache_of_one_process(made, tiny_backbone, textdiff_once):
    for shard in ("0/2", "1/2"):
        textdiff_once(made, *extract_arguments(made / "data", tiny_backbone, made / "sharded.zarr", "--shard", shard))
    assert files(made / "sharded.zarr") == files(made / "cache.zarr")


@pytest.fixture(scope="module")
def extracted(made, tiny_backbone, textdiff_once) -> Callable[..., FeatureCache]:
    """A cache of few activations, for tests of its images: ``extracted(name, *options)``."""

    def extract(name: str, *options: str) -> FeatureCache:
        few = ("--blocks", "1", "--steps", "50", *options)
        textdiff_once(made, *extract_arguments(made / "data", tiny_backbone, made / name, *few))
        return FeatureCache.open(made / name)

    return extract


@pytest.fixture(scope="module")
def turned(extracted) -> FeatureCache:
    return extracted("turned.zarr", "--views", "8")


def test_eight_views_are_the_symmetries_of_training_images(made, turned):
    cache, plain = turned, FeatureCache.open(made / "cache.zarr")
    assert len(cache.rows) == 4 * 8 + 1 + 3
    rows = [row for row, entry in enumerate(cache.rows) if entry.id == cache.rows[0].id]
    pictures = {cache.image(row).tobytes() for row in rows}
    assert len(pictures) == 8
    assert (cache.image(rows[0]) == plain.image(0)).all()
    for row in rows:
        same = [
            (turned == cache.image(row)).all() and (mask == cache.mask(row)).all()
            for turns in range(4)
            for turned, mask in (
                (np.rot90(plain.image(0), turns), np.rot90(plain.mask(0), turns)),
                (np.rot90(plain.image(0), turns)[:, ::-1], np.rot90(plain.mask(0), turns)[:, ::-1]),
            )
        ]
        assert sum(same) == 1


def test_varied_colours_belong_to_an_image_and_a_view_and_leave_all_else(made, extracted, turned, textdiff_once):
    varied = extracted("varied.zarr", "--views", "16", "--jitter", "he")
    rows = {entry.key: row for row, entry in enumerate(turned.rows)}
    assert len(varied.rows) == 4 * 16 + 1 + 3
    info = textdiff_once(made, "cache", "info", "varied.zarr").stdout
    assert "16 views of each training image in varied colours (he)" in info
    for row, entry in enumerate(varied.rows):
        before = rows[replace(entry, view=entry.view % 8).key]
        assert (varied.mask(row) == turned.mask(before)).all() if entry.has_mask else varied.mask(row) is None
        assert (varied.image(row) == turned.image(before)).all() == (entry.view == 0)
    first = [row for row, entry in enumerate(varied.rows) if entry.id == varied.rows[0].id]
    assert len({varied.image(row).tobytes() for row in first}) == 16
    assert [varied.image(row).mean() < 255 for row in first] == [True] * 16
    # The draw goes with the image: fewer views, other neighbours, another order of the rows, and the same colours.
    fewer = extracted("fewer.zarr", "--views", "8", "--jitter", "he")
    wanted = {entry.key: varied.image(row).tobytes() for row, entry in enumerate(varied.rows)}
    assert all(fewer.image(row).tobytes() == wanted[entry.key] for row, entry in enumerate(fewer.rows))
    other = extracted("other.zarr", "--views", "8", "--jitter", "he", "--seed", "1")
    assert (other.image(0) == fewer.image(0)).all()
    assert not (other.image(1) == fewer.image(1)).all()


def test_killed_extract_resumes_to_the_same_bytes(made, tiny_backbone, textdiff_once):
    cache = made / "killed.zarr"
    arguments = extract_arguments(made / "data", tiny_backbone, cache)
    process = subprocess.Popen(
        [sys.executable, "-m", "textdiff.cli", *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(cache.glob("ledger/c.*"))) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = FeatureCache.open(cache).done()
    assert not done.all()
    textdiff_once(made, *arguments)
    assert done.sum() >= 2
    assert files(cache) == files(made / "cache.zarr")


def test_killed_fit_resumes_to_the_same_weights(made, textdiff_once, tmp_path):
    fit = ["fit", "--cache", str(made / "cache.zarr"), "--variant", "no-text", "--labels", "2", "--epochs", "5"]
    # It is killed with two epochs in its checkpoint and a third that is lost.
    code = """
import os, signal, sys
from textdiff import cli
from textdiff.pipeline.training import trainer

def killed(self, seconds):
    if self.state.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    close(self, seconds)

close, trainer.Trainer.close_epoch, trainer.CHECKPOINT_SHARE = trainer.Trainer.close_epoch, killed, float("inf")
sys.argv = ["textdiff", *sys.argv[1:]]
cli.main()"""
    textdiff_once(made, *fit, "--runs", str(tmp_path / "whole"))
    process = subprocess.run(
        [sys.executable, "-c", code, *fit, "--runs", str(tmp_path / "cut")], capture_output=True, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "cut").glob("*/last.pt"))
    (whole,) = (tmp_path / "whole").glob("cache-*")
    (cut,) = (tmp_path / "cut").glob("cache-*")
    assert not (cut / "head.safetensors").exists()
    textdiff_once(made, "fit", "--resume", "--runs", str(tmp_path / "cut"))
    left, right = load_file(whole / "head.safetensors"), load_file(cut / "head.safetensors")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    steps = [[row["epoch"], row["loss"]] for row in csv.DictReader((whole / "log.csv").open())]
    assert steps == [[row["epoch"], row["loss"]] for row in csv.DictReader((cut / "log.csv").open())]


def test_labels_draws_recorded_images_by_seed(made, textdiff_once, tmp_path):
    drawn = {}
    for seed in (0, 1, 0):
        runs = tmp_path / f"{seed}-{len(drawn)}"
        arguments = ("--cache", "cache.zarr", "--labels", "2", "--seed", str(seed), "--epochs", "1")
        textdiff_once(made, "fit", *arguments, "--variant", "no-text", "--runs", str(runs))
        (run,) = runs.glob("cache-*")
        drawn.setdefault(seed, []).append(json.loads((run / "config.json").read_text())["train_ids"])
    assert all(len(ids) == 2 for draws in drawn.values() for ids in draws)
    assert drawn[0][0] == drawn[0][1]
    assert drawn[0][0] != drawn[1][0]
