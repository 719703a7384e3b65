"""What a backbone is compared with: the image and blurs of it, and its untrained twin."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.blurs import Blurs
from textdiff.models.backbones.corruption import Noise
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.backbones.unet import fresh_unet
from textdiff.options.extract import Extract
from textdiff.options.tools import Download
from textdiff.pipeline.extraction.config import resolve
from textdiff.pipeline.fetch import download


@pytest.fixture(scope="module")
def blurs() -> Blurs:
    """No test changes it."""
    loaded = load_backbone(resolve_backbone("rgb"), 256, torch.device("cpu"))
    assert isinstance(loaded, Blurs)
    return loaded


@pytest.mark.parametrize("block", [0, 5, 8, 12, 16])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_level_is_the_image_blurred_by_half_its_factor_and_averaged(blurs, block, precision):
    image = np.random.default_rng(0).uniform(-1, 1, (64, 128, 3)).astype(np.float32)
    factor = 64 // blurs.levels(64)[block][1]
    expected = image
    if factor > 1:
        expected = gaussian_filter(image.astype(np.float64), (factor / 2, factor / 2, 0), mode="nearest", truncate=4)
        expected = expected.reshape(64 // factor, factor, 128 // factor, factor, 3).mean((1, 3))
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        level = blurs.activations(x, torch.tensor([0]), [block])[block]
    assert level.dtype == torch.float32
    np.testing.assert_allclose(level[0].permute(1, 2, 0), expected, rtol=0, atol=2e-6)


def test_its_levels_have_the_sizes_of_the_network_that_it_stands_in_for(blurs):
    resolved = resolve_backbone("nano-he")
    network = load_backbone(resolved, 256, torch.device("cpu"))
    for size in (256, 64):
        sizes = {block: shape[1:] for block, shape in network.levels(size).items()}
        assert {block: shape[1:] for block, shape in blurs.levels(size).items()} == sizes
    found = blurs.activations(torch.zeros(2, 3, 64, 64), torch.tensor([0, 0]), range(18))
    assert {block: tuple(level.shape[1:]) for block, level in found.items()} == blurs.levels(64)


def test_an_image_that_cannot_be_halved_so_often_is_refused(blurs):
    with pytest.raises(ValueError, match="multiples of 32"):
        blurs.activations(torch.zeros(1, 3, 48, 64), torch.tensor([0]), [16])


def test_extract_fit_and_predict_go_through_it(tmp_path, textdiff_once):
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "lab" / folder).mkdir(parents=True)
    for number in range(5):
        mask = np.kron(rng.random((8, 8)) < 0.4, np.ones((8, 8))).astype(bool)
        picture = np.where(mask[..., None], (90, 40, 120), (230, 200, 220)) + rng.integers(-20, 20, (64, 64, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / f"lab/images/{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"lab/masks/{number}.png")
    (tmp_path / "lab/texts.csv").write_text("image,text\n" + "".join(f"{number}.png,\n" for number in range(5)))
    command = ["extract", "--dataset", "folder", "--data", "lab", "--preset", "rgb", "--text-encoder", "none"]
    said = textdiff_once(tmp_path, *command, "--image-size", "64", "--test", "0.4", "--device", "cpu").stderr
    assert "backbone rgb" in said
    cache = FeatureCache.open(tmp_path / "cache/lab.zarr")
    assert (cache.steps, cache.blocks[16], len(cache.rows)) == ((0,), (3, 64, 64), 2 + 8 * 3)
    # The finest level is the image itself, with the noise of step 0 as every backbone sees it.
    image = torch.from_numpy(cache.image(0)).permute(2, 0, 1)[None] / 127.5 - 1
    noised = Noise().apply(image, torch.tensor([0]), Noise().shared(64, 0))
    np.testing.assert_allclose(cache.features(0, 16)[0], noised[0], atol=1e-3)
    fit = ["fit", "--cache", "cache/lab.zarr", "--variant", "no-text", "--epochs", "12", "--device", "cpu"]
    textdiff_once(tmp_path, *fit)
    textdiff_once(tmp_path, "score")
    assert textdiff.open_run(tmp_path / "runs/latest").scores()["scores"]["clean"]["dice"]["mean"] > 0.9
    textdiff_once(tmp_path, "predict", "lab/images", "--out", "out", "--device", "cpu")
    assert len(list((tmp_path / "out").glob("*.png"))) == 5


def test_an_untrained_twin_has_the_architecture_and_other_weights():
    trained, twin = (
        load_backbone(resolve_backbone(name), 256, torch.device("cpu")) for name in ("nano-he", "untrained:nano-he")
    )
    assert twin.config == trained.config
    drawn = fresh_unet(trained.config, 0).state_dict()
    assert all(torch.equal(drawn[name], value) for name, value in twin.unet.state_dict().items())
    weights = trained.unet.state_dict()
    assert not any(torch.equal(weights[name], drawn[name]) for name in drawn if drawn[name].dim() == 4)
    assert not twin.training
    shas = {resolve_backbone(name).sha256 for name in ("nano-he", "untrained:nano-he", "rgb")}
    assert len(shas) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("untrained:rgb", "nothing to train"),
        ("untrained:gone.pt", r"gone\.pt: no such checkpoint file"),
        ("untrained:", "untrained: names no checkpoint"),
    ],
)
def test_what_has_no_untrained_twin_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        resolve_backbone(name)


def test_it_has_nothing_to_download():
    with pytest.raises(UserError, match="rgb: nothing to download"):
        download(Download("rgb"))


def test_preset_rgb_is_that_of_the_small_backbone_but_for_network_and_steps():
    nano, rgb = (resolve(Extract("monuseg", preset=kind, data=".")) for kind in ("nano", "rgb"))
    assert (rgb.backbone, rgb.steps) == ("rgb", (0,))
    assert (rgb.blocks, rgb.views, rgb.jitter) == (nano.blocks, nano.views, nano.jitter)
