"""Steps on a part of the image: exact where they are, and their place in the recipe."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textdiff.errors import UserError
from textdiff.models.networks.head import VARIANTS, Head
from textdiff.models.networks.segmenter import Window
from textdiff.pipeline.fit import FitConfig, begin, fit, initial_network
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training import epochs, trainer
from textdiff.pipeline.training.train import train_many
from textdiff.tests import experiment_cases as cases
from textdiff.tests.run_cases import stopped_after

LEVELS = ((16, 8), (16, 16), (8, 32), (8, 64))
WINDOWS = (Window(0, 0, 32), Window(8, 16, 32), Window(32, 32, 32), Window(24, 8, 8), Window(0, 0, 64))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return cases.make_cache(tmp_path_factory.mktemp("windows") / "cache.zarr")


def example(variant, standardise, training=False):
    torch.manual_seed(0)
    head = Head([c for c, _ in LEVELS], 2, 24, 16, variant=variant, image_size=64, standardise=standardise).double()
    features = [torch.randn(2, 2 * c, s, s, dtype=torch.float64) for c, s in LEVELS]
    return head.train(training), features, torch.randn(2, 5, 24, dtype=torch.float64)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_window_has_the_scores_that_the_whole_has_there(variant, standardise, window):
    head, features, text = example(variant, standardise)
    with torch.inference_mode():
        whole = head(features, text)
        part = head(features, text, window=window)
    expected = whole[:, :, window.top : window.top + window.size, window.left : window.left + window.size]
    torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)  # standardised activations are float32


@pytest.mark.parametrize("window", WINDOWS[:4])
def test_a_windows_gradients_are_those_of_the_whole_with_a_loss_on_it(window):
    gradients = []
    for cut in (True, False):
        head, features, text = example("full", standardise=False)  # statistics of a batch would be the window's
        scores = head(features, text, window=window if cut else None)
        if not cut:
            scores = scores[:, :, window.top : window.top + window.size, window.left : window.left + window.size]
        scores.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in head.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_a_window_beside_the_grid_is_refused():
    head, features, text = example("full", standardise=True)
    for window in (Window(4, 0, 32), Window(0, 0, 20), Window(0, 0, 72), Window(0, 0, 0)):
        with pytest.raises(ValueError, match="grid of 8 pixels of 64"):
            head(features, text, window=window)


def test_windows_are_drawn_from_the_whole_image_evenly():
    places = np.random.default_rng(0)
    drawn = [epochs.random_window(places, 16, 32, 8) for _ in range(900)]
    counts = np.bincount([window.top // 8 * 3 + window.left // 8 for window in drawn], minlength=9)
    assert len(counts) == 9
    assert counts.min() > 60
    assert {window.size for window in drawn} == {16}


def test_a_window_of_the_whole_image_changes_nothing(cache, tmp_path):
    paths = [
        fit(FitConfig(cache.path, variant="no-text", epochs=2, window=window), tmp_path / str(window))
        for window in (0, 32)
    ]
    left, right = (load_file(path / "head.safetensors") for path in paths)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", ["textdiff", "unet"])
def test_a_fit_in_bfloat16_comes_close_to_one_in_float32(cache, tmp_path, model):
    losses = []
    for precision in ("float32", "bfloat16"):
        config = FitConfig(cache.path, model=model, width=8, epochs=3, precision=precision)
        losses.append([line["loss"] for line in Run(fit(config, tmp_path / precision)).log()])
    assert losses[0] != losses[1]
    assert np.allclose(*losses, atol=0.02)


def test_the_scores_of_a_step_are_the_windows(cache, tmp_path, monkeypatch):
    seen = []
    loss = trainer.segmentation_loss
    monkeypatch.setattr(
        trainer, "segmentation_loss", lambda s, y, **more: seen.append((s.shape[2:], y.shape[1:])) or loss(s, y, **more)
    )
    fit(FitConfig(cache.path, variant="no-text", epochs=1, window=16), tmp_path)
    # Two steps with a copy of the network come before the five: they estimate the time.
    assert seen == [((16, 16), (16, 16))] * 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window": 18}, "--window 18: must be a multiple of 4 up to 32"),
        ({"window": 64}, "--window 64: must be a multiple of 4 up to 32"),
        ({"window": -4}, "--window -4"),
        ({"window": 16, "model": "unet"}, "--window 16: unet is not trained on squares"),
        ({"window": 16, "model": "pixel-mlp", "variant": "full"}, "--window 16: pixel-mlp is not trained on squares"),
        ({"validate_every": 0}, "--validate-every 0: must be at least 1"),
    ],
)
def test_windows_that_cannot_be_are_refused_in_one_line(cache, tmp_path, options, expected):
    with pytest.raises(UserError, match=expected) as error:
        begin(FitConfig(cache.path, **{"variant": "full"} | options), lambda name: tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_recipes_window_is_left_out_where_it_does_not_fit(cache, tmp_path):
    run = begin(FitConfig(cache.path, recipe="fair"), lambda name: tmp_path / name)
    assert run.config["fit"]["window"] is None  # images of 32 pixels


def test_epochs_are_validated_as_often_as_said_and_the_last_always(cache, tmp_path):
    config = FitConfig(cache.path, variant="no-text", epochs=7, validate_every=3, recipe="fair")
    log = Run(fit(config, tmp_path)).log()
    assert [int(line["epoch"]) for line in log if "val_dice" in line] == [3, 6, 7]


def test_the_best_weights_are_chosen_among_the_validated_epochs(cache, tmp_path):
    config = FitConfig(cache.path, variant="no-text", epochs=6, validate_every=2, recipe="fair", select="best")
    run = Run(fit(config, tmp_path / "all"))
    scores = {int(line["epoch"]): line["val_dice"] for line in run.log() if "val_dice" in line}
    best = max(scores, key=scores.__getitem__)
    weights = load_file(run.path / "head.safetensors")
    # The same fit stopped there: its schedule is over the whole fit, so it is interrupted rather than shortened.
    again = begin(config, lambda name: tmp_path / name)
    with stopped_after(best), pytest.raises(KeyboardInterrupt):
        train_many([(again, initial_network(again))], cache, torch.device("cpu"))
    saved = torch.load(again.path / "last.pt", weights_only=True)["head"]
    torch.testing.assert_close(dict(saved), weights, rtol=0, atol=0)


def test_the_light_recipe_validates_every_epoch_where_the_best_are_chosen(cache, tmp_path):
    chosen = [
        begin(FitConfig(cache.path, recipe="fair", **more), lambda name, n=number: tmp_path / f"{name}{n}")
        for number, more in enumerate(({"select": "best"}, {"patience": 5}, {}))
    ]
    assert [run.config["fit"]["validate_every"] for run in chosen] == [1, 1, 5]
