"""The plain U-Net: trained on images alone, with the same draws, selection and run directories as the head."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textdiff.cache import FeatureCache, Item, Loader
from textdiff.images.images import symmetry
from textdiff.models.networks.augment import turned
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.models.networks.recipes import FAIR
from textdiff.pipeline.fit import FitConfig, fit
from textdiff.pipeline.runs import Run
from textdiff.tests.run_cases import assert_masks_are_those_scored, newest

FIT = ("fit", "--cache", "cache.zarr", "--model", "unet", "--width", "16", "--labels", "3", "--seed", "4")


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    """A data set, its cache, and a finished run of the U-Net on it."""
    root = tmp_path_factory.mktemp("made")
    make_lvit_once(root / "data", n_train=4, n_val=1, n_test=2, size=96)
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--cache", "cache.zarr")
    smallest = ("--text-encoder", "none", "--image-size", "64", "--views", "8", "--blocks", "2", "--steps", "50")
    textdiff_once(root, *extract, "--backbone", str(tiny_backbone), *smallest)
    textdiff_once(root, *FIT, "--epochs", "12")
    return root


def test_has_the_layout_of_the_paper_with_padding_and_normalisation():
    # Figure 1 read from left to right: channels of every 3x3 convolution, then of every 2x2 transposed one.
    wide = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 1024)]
    wide += [(1024, 1024), (1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    network = PlainUNet(width=64)
    kinds = [type(module) for module in network.modules()]
    assert [m.weight.shape[1::-1] for m in network.modules() if getattr(m, "kernel_size", 0) == (3, 3)] == wide
    up = [m.weight.shape[:2] for m in network.enlarge]
    assert up == [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert kinds.count(torch.nn.BatchNorm2d) == kinds.count(torch.nn.ReLU) == len(wide)
    assert sum(p.numel() for p in PlainUNet().parameters()) == 7_763_074
    assert PlainUNet(width=4)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 2, 64, 64)


def test_a_standardising_one_does_not_see_brightness_and_contrast():
    torch.manual_seed(0)
    image = torch.randint(20, 80, (1, 3, 32, 32), dtype=torch.uint8)
    brighter = image * torch.tensor([2, 3, 2], dtype=torch.uint8)[:, None, None] + 7
    apart = {}
    for standardise in (True, False):
        torch.manual_seed(0)
        network = PlainUNet(width=4, standardise=standardise).eval()
        with torch.inference_mode():
            apart[standardise] = (network(image) - network(brighter)).abs().max()
    assert apart[True] < 0.02 * apart[False]


def test_used_by_its_own_statistics_it_has_the_plain_ones_weights_and_sees_one_image_at_a_time():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    trained = {}
    for norm in ("batch", "own"):
        torch.manual_seed(0)
        network = PlainUNet(width=4, norm=norm)
        optimizer = torch.optim.Adam(network.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
        trained[norm] = network
    weights = dict(trained["batch"].named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in trained["own"].named_parameters())
    with torch.inference_mode():
        together = trained["own"].eval()(images)
        for i in range(2):
            alone = trained["batch"].train()(images[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together, trained["batch"].eval()(images), atol=1e-2)


def test_every_pixel_and_every_level_takes_part():
    network = PlainUNet(width=4).eval()
    network(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_images_that_cannot_be_halved_so_often_are_made_larger(tmp_path):
    cache = SimpleNamespace(image_size=100, classes=["nucleus"])
    network = PlainUNet.build(cache, FitConfig(cache=tmp_path, model="unet", width=4), FAIR).eval()
    with torch.inference_mode():
        assert network(torch.randint(0, 256, (1, 3, 100, 100), dtype=torch.uint8)).shape == (1, 2, 100, 100)


@pytest.mark.parametrize("view", range(8))
def test_image_and_mask_are_turned_alike(view):
    mask = np.random.default_rng(0).integers(0, 2, (6, 6))
    image = np.stack([mask * 255, mask * 100, 255 - mask], axis=-1).astype(np.uint8)
    item = Item(0, [], torch.from_numpy(mask)[None], None, None, torch.from_numpy(image).permute(2, 0, 1)[None])
    result = turned(item, view)
    assert (result.image[0, 0] == result.mask[0] * 255).all()
    assert (result.image[0].permute(1, 2, 0).numpy() == symmetry(image, view)).all()
    assert (result.mask[0].numpy() == symmetry(mask, view)).all()


def test_training_images_come_in_all_eight_symmetries_repeatably():
    picture = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(1, 3, 4, 4)
    items = [Item(0, [], None, None, None, picture)] * 800
    network = PlainUNet(width=4)

    def pictures(epoch: int) -> list[bytes]:
        return [item.image.numpy().tobytes() for item in network.augment(items, seed=1, epoch=epoch)]

    seen = pictures(epoch=2)
    counts = [seen.count(kind) for kind in set(seen)]
    assert len(counts) == 8
    assert min(counts) > 60  # 100 are expected, with a standard deviation of 9.4
    assert seen == pictures(epoch=2)
    assert seen != pictures(epoch=3)


def test_loader_gives_the_stored_image_and_no_activations(made):
    cache = FeatureCache.open(made / "cache.zarr")
    (item,) = PlainUNet(width=4).loader(cache, torch.device("cpu")).epoch([3])
    assert item.features == []
    assert (item.image[0].permute(1, 2, 0).numpy() == cache.image(3)).all()
    assert (item.mask[0].numpy() == cache.mask(3)).all()
    assert Loader(cache, "cpu", blocks=()).epoch([3]).__next__().image is None


def test_learns_more_than_a_trivial_mask_scores_and_is_reported(made, textdiff_once):
    result = textdiff_once(made, "score")
    run = newest(made / "runs")
    scores = json.loads((run.path / "scores.json").read_text())
    cache = FeatureCache.open(made / "cache.zarr")
    truths = [cache.mask(row) > 0 for row, entry in enumerate(cache.rows) if entry.split == "test"]
    everything = np.mean([2 * truth.sum() / (truth.sum() + truth.size) for truth in truths])
    assert scores["scores"]["clean"]["dice"]["mean"] > everything + 0.3
    assert scores["model"] == run.config["model"] == "unet"
    assert "unet (mask by area)" in result.stdout
    report = (run.path / "report.md").read_text()
    assert "model unet" in report
    assert "seed 4" in report
    assert "Means over 2 images" in report
    assert (run.path / "overlay.png").is_file()


def test_defaults_are_resolved_and_the_draw_is_that_of_the_head(made, tmp_path):
    config = newest(made / "runs").config
    expected = {"model": "unet", "epochs": 12, "recipe": "default", "learning_rate": 1e-3, "batch_size": 2}
    assert {name: config["fit"][name] for name in expected} == expected
    head = fit(FitConfig(made / "cache.zarr", labels=3, seed=4, epochs=1, variant="no-text"), tmp_path)
    assert Run(head).config["train_ids"] == config["train_ids"]


def test_predict_needs_no_backbone_and_gives_the_mask_that_score_measured(made, textdiff_once):
    textdiff_once(made, "score")
    images = sorted((made / "data/Test_Folder/img").iterdir())
    textdiff_once(made, "predict", *map(str, images), "--out", "masks")
    assert_masks_are_those_scored(newest(made / "runs"), made / "data", made / "masks")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--variant", "no-text"), "--variant no-text"),
        (("--blocks", "2"), "--blocks, --steps"),
        (("--model", "unett"), "--model unett"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(made, textdiff_once, options, words):
    result = textdiff_once(made, "fit", "--cache", "cache.zarr", "--model", "unet", *options, status=2)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_backbone_is_refused_where_none_is_used(made, textdiff_once):
    image = next((made / "data/Test_Folder/img").iterdir())
    result = textdiff_once(made, "predict", str(image), "--backbone", "nano-he", status=2)
    assert "--backbone nano-he" in result.stderr
