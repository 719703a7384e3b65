"""What ``fit`` says before it begins and after it has ended: how, on what, where, for how long, and what is kept."""

import csv
import re

import pytest


@pytest.fixture(scope="module")
def lab(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once):
    root = tmp_path_factory.mktemp("lab")
    make_lvit_once(root / "data", n_train=3, n_val=1, n_test=1)
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--cache", "c.zarr", "--views", "8")
    smallest = ("--text-encoder", "none", "--image-size", "64", "--blocks", "6", "--steps", "50")
    textdiff_once(root, *extract, "--backbone", str(tiny_backbone), *smallest)
    return root


FIT = ("fit", "--cache", "c.zarr", "--variant", "no-text", "--labels", "2", "--device", "cpu", "--validate-every", "1")


def test_the_plan_names_recipe_images_device_and_time(lab, textdiff_once):
    result = textdiff_once(lab, *FIT, "--epochs", "4", "--seed", "3")
    before, after = result.stderr.split("fit: 1/4 epochs")
    for part in (
        "recipe fair",
        "4 epochs",
        "2 training images",
        "8 views",
        "1 validation image",
        "cpu",
        "estimated time",
    ):
        assert part in before
    assert "choose nothing" in before
    assert "fitted on 2 images" in after
    assert after.rstrip().endswith(f"next: textdiff score --run {result.stdout.strip()}")


def test_the_next_command_finds_a_cache_that_is_elsewhere_by_now(lab, textdiff_once):
    run = textdiff_once(lab, *FIT, "--epochs", "1", "--seed", "5").stdout.strip()
    (lab / run / "head.safetensors").unlink()
    (lab / "c.zarr").rename(lab / "moved.zarr")
    try:
        said = textdiff_once(lab, "fit", "--resume", "--run", run, "--cache", "moved.zarr").stderr
        command = said.splitlines()[-1].removeprefix("next: textdiff ")
        assert command.split()[0] == "score"
        textdiff_once(lab, *command.split())
    finally:
        (lab / "moved.zarr").rename(lab / "c.zarr")


def test_a_better_epoch_than_the_one_kept_is_named(lab, textdiff_once):
    # A rate that cannot settle: some epoch is better on the validation image than the last one.
    said = textdiff_once(lab, *FIT, "--epochs", "8", "--learning-rate", "0.03").stderr
    with (lab / "runs/latest/log.csv").open() as file:
        scores = [float(line["val_dice"]) for line in csv.DictReader(file)]
    assert max(scores) > scores[-1], "choose another rate or seed for this test"
    best = scores.index(max(scores)) + 1
    assert re.search(rf"epoch {best} had {100 * max(scores):.2f}, and --select best", said)


def test_the_plan_changes_no_weights(lab, textdiff_once, monkeypatch):
    from textdiff.pipeline.training import train

    weights = []
    for _ in range(2):
        textdiff_once(lab, *FIT, "--epochs", "1")
        weights.append((lab / "runs/latest/head.safetensors").read_bytes())
        monkeypatch.setattr(train, "say_plan", lambda *_: None)
    assert weights[0] == weights[1]


def test_one_is_not_many(lab, textdiff_once, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    said = textdiff_once(lab, *FIT, "--epochs", "1", "--labels", "1").stderr
    some = ("1 training image, ", "; 1 validation image, ", "fitted on 1 image;")
    for words in ("cpu, 1 thread of ", "recipe fair: 1 epoch, ", ", epoch 1\n", *some):
        assert words in said


def test_patience_waits_for_a_validation(lab, textdiff_once):
    said = textdiff_once(lab, *FIT[:-1], "3", "--epochs", "9", "--patience", "1", "--learning-rate", "0.3").stderr
    with (lab / "runs/latest/log.csv").open() as file:
        *_, last = csv.DictReader(file)
    assert int(last["epoch"]) in (6, 9)
    assert last["val_dice"]
    assert re.search(r"the weights of epoch [369] ", said)
