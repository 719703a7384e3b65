"""The mean teacher: what its loss and its average are, that it never sees a mask, and that it resumes."""

import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.images.labels import UNSAID
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training import mean_teacher
from textdiff.pipeline.training.average import RunningAverage
from textdiff.pipeline.training.begin import draw_images
from textdiff.pipeline.training.losses import segmentation_loss
from textdiff.pipeline.training.mean_teacher import MeanTeacher
from textdiff.tests.run_cases import interrupted_at, newest, same, weights

FIT = ("fit", "--labels", "3", "--epochs", "2", "--device", "cpu")
UNET = ("--model", "unet", "--width", "2")
TEACHER = ("--unlabelled", "mean-teacher")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, make_lvit_once, textdiff_once) -> Path:
    """Caches of a data set, ``one``, and of others in which undrawn images differ: ``masks``, and ``images``."""
    root = tmp_path_factory.mktemp("lab")
    make_lvit_once(root / "one", n_train=5, n_val=1, n_test=1, size=40)
    extract = ("extract", "--dataset", "monuseg", "--preset", "rgb", "--image-size", "32", "--views", "8")
    for name, folder in (("one", ""), ("masks", "labelcol"), ("images", "img")):
        if folder:
            shutil.copytree(root / "one", root / name)
            drawn, _ = draw_images(FeatureCache.open(root / "one.zarr"), 3, 0)
            for file in (root / name / "Train_Folder" / folder).iterdir():
                if not any(Path(one).stem == file.stem for one in drawn):
                    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
        textdiff_once(root, *extract, "--text-encoder", "none", "--data", name, "--cache", f"{name}.zarr")
    return root


@pytest.fixture(scope="module")
def said(lab, textdiff_once) -> str:
    """What is said of the fit of ``run``."""
    return " ".join(textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", "one.zarr", "--runs", "one").stderr.split())


@pytest.fixture(scope="module")
def run(lab, said) -> Run:
    """A run of a small U-Net on three labelled images and two without labels."""
    return newest(lab / "one")


@pytest.mark.parametrize(("changed", "expected"), [("masks", True), ("images", False)])
def test_it_learns_from_undrawn_images_and_from_no_mask_of_theirs(lab, run, textdiff_once, changed, expected):
    textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", f"{changed}.zarr", "--runs", changed)
    assert same(run, newest(lab / changed)) is expected


def test_the_run_says_what_it_learned_from_and_is_used_like_any(lab, run, textdiff_once):
    record = run.config["unlabelled"]
    assert record["count"] == len(record["images"]) == 2
    assert record["mean_teacher"] == {"weight": mean_teacher.WEIGHT, "ramp": mean_teacher.RAMP}
    assert run.teacher is None
    assert run.label == "unet-mean-teacher"
    textdiff_once(lab, "score", "--runs", "one")
    textdiff_once(lab, "predict", "one/Test_Folder/img", "--runs", "one", "--out", "predicted")
    assert list((lab / "predicted").rglob("*.png"))


def test_what_is_kept_is_said_and_that_too_few_images_are_drawn_with_repeats(said):
    assert "batches of 2; the running average of the weights is kept" in said
    assert "fitted on 3 images; the running average of the weights (validation Dice" in said
    assert "in each epoch there are 3 draws of the 2 images without labels, on which the network learns" in said


def test_each_step_has_as_many_images_without_labels_as_labelled_ones(lab, textdiff_once, monkeypatch):
    shown = []
    loss = MeanTeacher.loss

    def watched(self: MeanTeacher, network: PlainUNet, inputs: object, labels: torch.Tensor, *more: object) -> object:
        shown.append([bool((one == UNSAID).all()) for one in labels])
        return loss(self, network, inputs, labels, *more)

    monkeypatch.setattr(MeanTeacher, "loss", watched)
    textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", "one.zarr", "--batch-size", "2", "--runs", "watched")
    assert shown == [[False, False, True, True], [False, True]] * 2


def test_no_pixels_are_drawn_of_images_without_labels(lab, run, textdiff_once, monkeypatch):
    """A row is read with its mask, whole; once, as rows stay in memory. Pixels are drawn from masks read once more."""
    read, mask = Counter(), FeatureCache.mask

    def watched(self: FeatureCache, row: int) -> np.ndarray | None:
        read[self.rows[row].id, row] += 1
        return mask(self, row)

    monkeypatch.setattr(FeatureCache, "mask", watched)
    textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", "one.zarr", "--label-pixels", "90", "--runs", "pixels")
    undrawn = run.config["unlabelled"]["images"]
    assert {count for (name, _), count in read.items() if name in undrawn} == {1}
    assert all(max(count for (one, _), count in read.items() if one == name) > 1 for name in run.config["train_ids"])


def test_the_running_average_is_kept_though_the_recipe_keeps_the_last_weights(lab, run, textdiff_once, monkeypatch):
    steps: list[dict[str, torch.Tensor]] = []
    follow = RunningAverage.follow

    def watched(self: RunningAverage, network: PlainUNet, step: int) -> None:
        steps.append({name: value.clone() for name, value in network.named_parameters()})
        follow(self, network, step)

    monkeypatch.setattr(RunningAverage, "follow", watched)
    textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", "one.zarr", "--epochs", "1", "--runs", "averaged")
    averaged = newest(lab / "averaged")
    assert averaged.config["recipe"]["select"] == "last"
    assert averaged.config["fit"]["select"] == "average"
    kept, (first, second) = weights(averaged), steps
    assert all(torch.allclose(kept[name], (first[name] + second[name]) / 2, atol=1e-6) for name in first)


@pytest.mark.parametrize("step", [0, 11, 30, 99])
def test_the_loss_is_that_of_the_labelled_half_and_the_squared_difference_on_the_other(monkeypatch, step):
    monkeypatch.setattr(mean_teacher, "recoloured", lambda images: 255 - images)
    torch.manual_seed(0)
    network, other = (PlainUNet(width=2, norm="image", augment="none") for _ in range(2))
    teacher = MeanTeacher(other.requires_grad_(False), 100, "float32")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 2, (4, 32, 32))
    labels[2:] = UNSAID
    found = teacher.loss(network, (images,), labels, segmentation_loss, step)
    found.backward()
    with torch.inference_mode():
        # Each image is normalised by itself, so the halves can be asked apart.
        labelled = segmentation_loss(network(images[:2]), labels[:2])
        apart = (network(255 - images[2:]).softmax(1) - other(images[2:]).softmax(1)).pow(2).mean()
    rise = math.exp(-5 * (1 - step / 30) ** 2) if step < 30 else 1
    assert math.isclose(found.item(), (labelled + mean_teacher.WEIGHT * rise * apart).item(), rel_tol=1e-5)
    assert all(parameter.grad is None for parameter in other.parameters())


def test_changed_images_keep_what_they_show():
    torch.manual_seed(0)
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(200, 3, 16, 16)
    changed = mean_teacher.recoloured(image)
    assert changed.dtype == torch.uint8
    assert changed.shape == image.shape
    order = [np.corrcoef(one.flatten(), image[0].flatten())[0, 1] for one in changed.numpy()]
    assert min(order) > 0.9
    brightness = changed.float().mean((1, 2, 3)) - 127.5
    assert brightness.std() > 15
    assert len(torch.unique(changed, dim=0)) == 200


@pytest.mark.parametrize("stop", [1, 2])
def test_a_fit_that_is_stopped_goes_on_to_the_same_weights(lab, run, textdiff_once, monkeypatch, stop):
    cut = f"cut-{stop}"
    with interrupted_at(monkeypatch, stop):
        textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", "one.zarr", "--runs", cut, status=130)
    textdiff_once(lab, "fit", "--resume", "--runs", cut)
    assert same(newest(lab / cut), run)


def test_members_of_an_ensemble_are_fits_with_seeds_of_their_own(lab, run, textdiff_once):
    textdiff_once(lab, *FIT, *UNET, *TEACHER, "--cache", "one.zarr", "--ensemble", "2", "--runs", "mean")
    first, second = newest(lab / "mean").members
    assert same(first, run)
    assert not same(second, run)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--variant", "no-text"), "--unlabelled mean-teacher: takes a network that reads images, not "),
        (("--model", "trees"), "not boosted trees; use --unlabelled 1"),
        ((*UNET, "--select", "last"), "--select last: the running average of the weights is kept with --unl"),
        ((*UNET, "--labels", "5"), "--unlabelled mean-teacher: every training image of"),
        ((*UNET, "--unlabelled", "teacher"), "--unlabelled teacher: must be a whole number or mean-teacher"),
    ],
)
def test_what_cannot_have_one_is_refused(lab, textdiff_once, options, said):
    refused = textdiff_once(lab, *FIT, *TEACHER, "--cache", "one.zarr", *options, "--runs", "none", status=2)
    assert said in refused.stderr
    assert not (lab / "none").exists()
