"""Fits side by side: each has the weights that it has alone, and what they share is read or trained once."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from textdiff.cache import FeatureCache, Loader
from textdiff.errors import UserError
from textdiff.experiments.experiment import open_experiment
from textdiff.experiments.job_runner import trained_alike
from textdiff.pipeline.fit import FitConfig, begin, fit, initial_network
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training import train, trainer
from textdiff.pipeline.training.train import train_many
from textdiff.tests import experiment_cases as cases


@pytest.mark.parametrize("resident", ["auto", "never"])
def test_side_by_side_each_fit_is_the_one_it_is_alone(cache, tmp_path, resident):
    base = FitConfig(cache=cache.path, labels=3, epochs=2, learning_rate=1e-3, width=8, seed=5, draw_seed=1)
    configs = {
        "full": base,
        "shuffled": replace(base, variant="shuffled-text"),
        "concat": replace(base, variant="concat", batch_size=2),
        "one level": replace(base, blocks=(8,), steps=(150,)),
        "short": replace(base, variant="no-text", epochs=1),
    }
    runs = [begin(config, lambda _, name=name: tmp_path / name) for name, config in configs.items()]
    loader = Loader(cache, "cpu", resident=resident)
    train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"), loader)
    for name, config in configs.items():
        alone = fit(config, tmp_path / f"alone {name}")
        cases.assert_equal_runs(alone, tmp_path / name)
        logs = [[line.split(",")[:4] for line in (p / "log.csv").open()] for p in (alone, tmp_path / name)]
        assert logs[0] == logs[1]


def test_side_by_side_reads_a_row_once_for_all(cache, tmp_path, monkeypatch):
    read, stored = [], FeatureCache.stored
    monkeypatch.setattr(FeatureCache, "stored", lambda self, row, *a: read.append(row) or stored(self, row, *a))
    base = FitConfig(cache=cache.path, epochs=2, width=8, validate_every=1)
    runs = [
        begin(replace(base, variant=name), lambda _, name=name: tmp_path / name)
        for name in ("full", "no-text", "concat")
    ]
    pairs = [(run, initial_network(run)) for run in runs]
    read.clear()  # of the training images before the first step, each run by itself
    train_many(pairs, cache, torch.device("cpu"), Loader(cache, "cpu", resident="never"))
    assert len(read) == 2 * 6 * len(cases.BLOCKS)  # epochs, images: as many as one fit alone


def test_the_seconds_of_fits_side_by_side_add_up_to_those_that_passed(cache, tmp_path, monkeypatch):
    base = FitConfig(cache=cache.path, epochs=2, width=8, validate_every=1)
    names = ("full", "no-text", "concat")
    runs = [begin(replace(base, variant=name), lambda _, name=name: tmp_path / name) for name in names]
    pairs = [(run, initial_network(run)) for run in runs]
    ticks = count()
    monkeypatch.setattr(train.time, "perf_counter", lambda: 3.0 * next(ticks))  # one at the start, one at the end
    train_many(pairs, cache, torch.device("cpu"), Loader(cache, "cpu"))
    monkeypatch.undo()
    logs = [run.log() for run in runs]
    assert [[line["seconds"] for line in log] for log in logs] == [[1.0, 1.0]] * 3


def test_networks_that_see_other_images_cannot_be_side_by_side(cache, tmp_path):
    runs = [
        begin(FitConfig(cache=cache.path, seed=seed, width=8), lambda _, seed=seed: tmp_path / str(seed))
        for seed in (0, 1)
    ]
    with pytest.raises(ValueError, match="the same seed"):
        train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"))


def test_one_that_diverges_does_not_stop_the_others(cache, tmp_path):
    base = FitConfig(cache=cache.path, labels=2, epochs=3, width=8)
    runs = [begin(base, lambda _: tmp_path / "good"), begin(base, lambda _: tmp_path / "bad")]
    pairs = [(run, initial_network(run)) for run in runs]
    with torch.no_grad():
        pairs[1][1].conv1.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"bad: the loss is nan in epoch 1"):
        train_many(pairs, cache, torch.device("cpu"))
    assert runs[0].finished
    assert not runs[1].finished


def test_stopped_side_by_side_they_resume_to_the_same_weights(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", float("inf"))
    base = FitConfig(cache=cache.path, labels=3, epochs=4, learning_rate=1e-3, width=8)
    names = ("full", "constant-text")

    def trained(root: Path, stop: int | None) -> None:
        runs = [Run(root / name) for name in names]
        for run in runs:
            if not run.path.exists():
                begin(replace(base, variant=run.path.name), lambda _, run=run: run.path)
        close, closed = trainer.Trainer.close_epoch, []

        def closing(self, seconds):
            close(self, seconds)
            closed.append(self)
            if len(closed) == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(trainer.Trainer, "close_epoch", closing)
            train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"))

    trained(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", 5)  # one of the two has closed its third epoch, the other has not
    trained(tmp_path / "cut", None)
    for name in names:
        cases.assert_equal_runs(tmp_path / "whole" / name, tmp_path / "cut" / name)


def test_the_same_weights_used_in_two_ways_are_trained_once(cache, tmp_path, textdiff_once):
    options = ["--labels", "2", "--draws", "1", "--seeds", "1", "--no-unet", "--rival-epochs", "2", "--jobs", "1"]
    command = ["ablate", "--cache", str(cache.path), *options, "--set", "width=8", "--device", "cpu"]
    textdiff_once(tmp_path, *command, "--variants", "unet")
    result = textdiff_once(tmp_path, *command, "--variants", "unet,unet-fair,unet-instance-norm")
    assert "unet-fair-d0-s0: trained like unet-d0-s0, so it has its weights" in result.stderr
    place = tmp_path / "runs/ablate-tiny"
    jobs = {job.name: job for job in open_experiment(place).plan.jobs}
    own = Run(place / "unet-fair-d0-s0")
    assert own.config["weights_of"] == "unet-d0-s0"
    assert own.label == "unet-fair"
    assert "weights_of" not in Run(place / "unet-instance-norm-d0-s0").config
    cases.assert_equal_runs(fit(jobs[own.path.name].config, tmp_path / "alone"), own.path)
    assert [line.keys() for line in own.log()] == [{"epoch", "lr", "loss", "seconds"}] * 2
    scores = {json.loads((place / name / "images-test.json").read_text())["scores"]["dice_clean"][0] for name in jobs}
    assert len(scores) == 3


@pytest.mark.parametrize(
    "changed", [{"select": "best"}, {"epochs": 4}, {"seed": 1, "draw_seed": 0}, {"recipe": "instance-norm"}]
)
def test_runs_that_are_trained_otherwise_do_not_share_weights(cache, tmp_path, changed):
    config = FitConfig(cache=cache.path, model="unet", labels=2, epochs=3, recipe="fair", device="cpu")
    plain = begin(replace(config, recipe="default"), lambda _: tmp_path / "plain")
    assert trained_alike(begin(config, lambda _: tmp_path / "own"), [plain]) is plain
    assert trained_alike(begin(replace(config, **changed), lambda _: tmp_path / "other"), [plain]) is None
    if "select" in changed:
        both = begin(replace(config, recipe="default", **changed), lambda _: tmp_path / "plain-best")
        assert trained_alike(Run(tmp_path / "other"), [both]) is None


@pytest.fixture(scope="module")
def unet(cache, tmp_path_factory) -> Path:
    config = FitConfig(cache=cache.path, model="unet", width=8, labels=2, epochs=1, device="cpu")
    return fit(config, tmp_path_factory.mktemp("unet"))
