"""Boosted trees on pixels: they say what scikit-learn says, and need it for training alone."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.ensemble import HistGradientBoostingClassifier
from torch.nn import functional as F

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.models.networks import trees
from textdiff.models.networks.pixels import all_pixels
from textdiff.models.networks.trees import Trees
from textdiff.pipeline.runs import Run
from textdiff.tests.run_cases import newest

SIZE = 24


def items(labels: tuple[int, ...]) -> list[Item]:
    """Two images of two levels, one of half their size, and masks of those labels that follow from them, and noise."""
    draw = np.random.default_rng(0)
    made = []
    for row in range(2):
        coarse, fine = (draw.normal(size=(1, 2, side, side)).astype(np.float16) for side in (SIZE // 2, SIZE))
        levels = [torch.from_numpy(level) for level in (coarse, fine)]
        sums = all_pixels(levels, SIZE)[:, ::2].sum(1).numpy().reshape(1, SIZE, SIZE)
        sums = sums + draw.normal(size=sums.shape)
        mask = np.asarray(labels)[np.digitize(sums, np.linspace(-1, 1, len(labels) + 1)[1:-1])]
        made.append(Item(row, levels, torch.from_numpy(mask), None, None))
    return made


def fitted(rows: list[Item], classes: int, seed: int = 0) -> tuple[Trees, torch.Tensor]:
    network = Trees(classes, SIZE, iterations=12)
    return network, network.learn(rows, seed, 0.1, F.cross_entropy)


@pytest.mark.parametrize(("classes", "labels"), [(2, (0, 1)), (3, (0, 1, 2)), (3, (0, 2)), (4, (0, 1, 3))])
def test_probabilities_are_those_of_scikit_learn_and_a_class_that_was_never_seen_has_none(classes, labels):
    rows = items(labels)
    network, loss = fitted(rows, classes)
    pixels = np.concatenate([all_pixels(row.features, SIZE).numpy() for row in rows])
    truth = np.concatenate([row.mask.flatten().numpy() for row in rows])
    theirs = HistGradientBoostingClassifier(learning_rate=0.1, max_iter=12, early_stopping=False, random_state=0)
    expected = np.zeros((len(pixels), classes))
    expected[:, labels] = theirs.fit(pixels, truth).predict_proba(pixels)
    found = network(*network.inputs(rows)).softmax(1)
    assert found.shape == (2, classes, SIZE, SIZE)
    found = found.movedim(1, -1).reshape(-1, classes).numpy()
    assert (found[np.arange(len(truth)), truth] > 1 / classes).mean() > 0.6
    np.testing.assert_allclose(found, expected, atol=1e-6)
    cost = -np.log(expected[np.arange(len(truth)), truth]).mean()
    assert float(loss) == pytest.approx(cost, rel=1e-5)


def test_all_pixels_are_trained_on_unless_they_are_more_than_memory_is_meant_to_hold(monkeypatch):
    assert len(Trees(2, SIZE).drawn(1000, 4, seed=0)) == 1000
    monkeypatch.setattr(trees, "MOST_VALUES", 400)
    drawn, other = (Trees(2, SIZE).drawn(1000, 4, seed) for seed in (0, 1))
    assert len(set(drawn.tolist())) == 100
    assert (drawn.diff() > 0).all()
    assert drawn.max() > 900
    assert not torch.equal(drawn, other)
    network, loss = fitted(items((0, 1)), 2)
    assert torch.isfinite(loss)
    assert len(network.value) < 12 * 2 * 20  # a hundred pixels make small trees


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, textdiff_once) -> Path:
    """A data set, its cache, and a finished run of the trees on it."""
    root = tmp_path_factory.mktemp("made")
    make_lvit_once(root / "data", n_train=2, n_val=0, n_test=1, size=48)
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--cache", "cache.zarr", "--preset", "rgb")
    textdiff_once(root, *extract, "--blocks", "8,16", "--views", "1", "--text-encoder", "none", "--image-size", "32")
    textdiff_once(root, "fit", "--cache", "cache.zarr", "--model", "trees", "--blocks", "16")
    return root


def test_a_run_keeps_them_as_arrays_and_is_used_without_scikit_learn(made, textdiff_once, monkeypatch):
    run = newest(made / "runs")
    stored, network = load_file(run.path / "head.safetensors"), run.load_network()
    assert {name: value.dtype for name, value in stored.items()} == trees.ARRAYS
    assert len(network.roots) == 100
    cache = FeatureCache.open(made / "cache.zarr")
    fit = Trees(2, 32, blocks=[16])
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "train"]
    fit.learn(fit.loader(cache, torch.device("cpu")).epoch(rows), 0, 0.1, F.cross_entropy)
    levels = [torch.randn(1, 3, 32, 32)]
    assert torch.equal(network(levels), fit(levels))
    for module in ("sklearn", "sklearn.ensemble"):
        monkeypatch.setitem(sys.modules, module, None)
    runpy.run_path(trees.__file__)
    textdiff_once(made, "predict", "data/Test_Folder/img", "--out", "out", "--device", "cpu")
    assert len(list((made / "out").glob("*.png"))) == 1


def test_training_without_scikit_learn_is_refused_in_one_line(made, textdiff_once, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    said = textdiff_once(made, "fit", "--cache", "cache.zarr", "--model", "trees", status=2).stderr
    assert said == "error: --model trees: needs scikit-learn; pip install 'textdiff[trees]'\n"


def test_trees_are_fitted_once_however_many_epochs_are_asked_for(made, textdiff_once):
    textdiff_once(made, "fit", "--cache", "cache.zarr", "--model", "trees", "--epochs", "5", "--runs", "again")
    (run,) = (Run(path) for path in (made / "again").iterdir() if path.name != "latest")
    assert len(run.log()) == 1


def test_pixels_of_one_class_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^--model trees: all training pixels are of class 1; label others too$"):
        fitted(items((1,)), 2)


def test_a_release_of_scikit_learn_that_keeps_trees_otherwise_is_noticed(monkeypatch):
    predict = HistGradientBoostingClassifier.predict_proba
    monkeypatch.setattr(HistGradientBoostingClassifier, "predict_proba", lambda self, x: predict(self, x) ** 2)
    with pytest.raises(UserError, match="this release of scikit-learn keeps trees otherwise"):
        fitted(items((0, 1)), 2)


@pytest.mark.parametrize("option", [("--variant", "no-text"), ("--width", "8"), ("--blocks", "9")])
def test_what_has_no_meaning_is_refused_in_one_line(made, textdiff_once, option):
    for model in ("trees", "pixel-mlp"):
        said = textdiff_once(made, "fit", "--cache", "cache.zarr", "--model", model, *option, status=2).stderr
        assert option[0] in said
        assert len(said.splitlines()) == 1


def test_they_stay_on_the_cpu_where_a_device_has_no_float64(monkeypatch):
    network, _ = fitted(items((0, 1)), 2)
    apple = type("T", (), {"device": torch.device("mps")})()
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **options: apple)
    assert network.to("mps") is network
    assert network.device.type == "cpu"
    assert network.threshold.dtype == torch.float64
