"""The running average of the weights: what it is, that a fit with it resumes, and what cannot have one."""

from pathlib import Path

import pytest
import torch

from textdiff.models.networks.segmenter import Segmenter
from textdiff.pipeline.training.average import RunningAverage
from textdiff.tests.report_cases import Parsed
from textdiff.tests.run_cases import interrupted_at, newest, same, weights

FIT = ("fit", "--cache", "cache.zarr", "--epochs", "2", "--device", "cpu", "--select", "average")
UNET, HEAD = ("--model", "unet", "--width", "2"), ("--variant", "no-text", "--width", "8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, make_lvit_once, textdiff_once) -> Path:
    """A small cache."""
    root = tmp_path_factory.mktemp("lab")
    make_lvit_once(root / "data", n_train=3, n_val=1, n_test=1, size=40)
    extract = ("extract", "--dataset", "monuseg", "--preset", "rgb", "--image-size", "32", "--text-encoder", "none")
    textdiff_once(root, *extract, "--data", "data", "--cache", "cache.zarr")
    return root


@pytest.mark.parametrize("network", [UNET, HEAD], ids=["unet", "head"])
def test_the_weights_kept_are_the_running_average_of_those_after_each_step(lab, textdiff_once, monkeypatch, network):
    steps: list[dict[str, torch.Tensor]] = []
    follow = RunningAverage.follow

    def watched(self: RunningAverage, network: Segmenter, step: int) -> None:
        steps.append({name: value.clone() for name, value in network.state_dict().items()})
        follow(self, network, step)

    monkeypatch.setattr(RunningAverage, "follow", watched)
    said = textdiff_once(lab, *FIT, *network, "--epochs", "40", "--batch-size", "1", "--runs", "steps").stderr
    assert "the running average of the weights (validation Dice" in said
    assert len(steps) > 100
    average = steps[0]
    for number, now in enumerate(steps[1:], 2):
        share = max(1 / number, 0.01)
        average = {name: (1 - share) * value + share * now[name] for name, value in average.items()}
    kept = weights(newest(lab / "steps"))
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    assert all(torch.allclose(kept[name], average[name], atol=1e-4, rtol=1e-4) for name in floats)
    assert not all(torch.allclose(kept[name], steps[-1][name], atol=1e-3, rtol=1e-3) for name in floats)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_fit_that_is_stopped_goes_on_to_the_same_weights(lab, textdiff_once, monkeypatch, stop):
    whole, cut = f"whole-{stop}", f"cut-{stop}"
    textdiff_once(lab, *FIT, *UNET, "--runs", whole)
    with interrupted_at(monkeypatch, stop):
        textdiff_once(lab, *FIT, *UNET, "--runs", cut, status=130)
    textdiff_once(lab, "fit", "--resume", "--runs", cut)
    assert same(newest(lab / cut), newest(lab / whole))


@pytest.mark.parametrize(("select", "marked"), [("average", None), ("last", 2)])
def test_a_report_marks_no_epoch_as_that_of_an_average(lab, textdiff_once, select, marked):
    run = ("--runs", f"report-{select}")
    textdiff_once(lab, *FIT, *HEAD, "--select", select, *run)
    textdiff_once(lab, "score", *run)
    textdiff_once(lab, "report", *run)
    page = Parsed(next((lab / run[1]).rglob("report.html")).read_text())
    assert page.data()["keptEpoch"] == marked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "trees"), "--select average: boosted trees have no weights to average; leave it out"),
        ((*UNET, "--patience", "3"), "--patience 3: keeps the best weights, so it does not go with --select average"),
    ],
)
def test_what_cannot_have_one_is_refused(lab, textdiff_once, options, said):
    refused = textdiff_once(lab, *FIT, *options, "--runs", "none", status=2)
    assert said in refused.stderr
    assert not (lab / "none").exists()
