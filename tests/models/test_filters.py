"""The backbone ``filters`` against scipy's and scikit-image's, and through the command line."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude
from skimage.color import rgb2gray, rgb2hed
from skimage.feature import hessian_matrix_eigvals

import textdiff
from textdiff.cache import FeatureCache
from textdiff.models.backbones.filters import CHANNELS, SIGMAS
from textdiff.models.backbones.load import load_backbone, resolve_backbone

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8).repeat(11, 0).repeat(9, 1)


@pytest.fixture(scope="module")
def filtered() -> np.ndarray:
    """(4, 12, H, W): the filters of ``PIXELS``."""
    network = load_backbone(resolve_backbone("filters"), 64, torch.device("cpu"))
    images = torch.from_numpy(PIXELS).permute(2, 0, 1)[None]
    with torch.autocast("cpu", torch.bfloat16):
        found = network.features(images, torch.tensor([0]), [""], [0])[0]
    assert found.dtype == torch.float32
    assert {0: found.shape[1:2]} == {block: shape[:1] for block, shape in network.levels(64).items()}
    return found.reshape(len(SIGMAS), len(CHANNELS), *PIXELS.shape[:2]).numpy()


@pytest.mark.parametrize("index", range(4))
def test_the_filters_are_those_of_scipy_and_scikit_image(filtered, index):
    sigma = SIGMAS[index]
    named = {name: PIXELS[..., band] / 127.5 - 1 for band, name in enumerate(("red", "green", "blue"))}
    named |= {"haematoxylin": 10 * rgb2hed(PIXELS)[..., 0], "grey": 2 * rgb2gray(PIXELS) - 1}
    options = {"sigma": sigma, "mode": "nearest", "truncate": 4}
    expected = {f"gaussian {name}": gaussian_filter(x, **options) for name, x in named.items()}
    for name, x in named.items():
        expected[f"gradient magnitude {name}"] = sigma * gaussian_gradient_magnitude(x, **options)
        hessian = [sigma**2 * gaussian_filter(x, order=order, **options) for order in ((2, 0), (1, 1), (0, 2))]
        for which, values in zip(("larger", "smaller"), hessian_matrix_eigvals(hessian), strict=True):
            expected[f"{which} Hessian eigenvalue {name}"] = values
    for found, channel in zip(filtered[index], CHANNELS, strict=True):
        assert np.ptp(expected[channel]) > 0.01
        np.testing.assert_allclose(found, expected[channel], rtol=0, atol=2e-5, err_msg=channel)


def test_no_image_comes_near_the_bounds_of_float16():
    network = load_backbone(resolve_backbone("filters"), 64, torch.device("cpu"))
    checks = np.indices((64, 64)).sum(0) // 8 % 2 * 255
    extremes = np.stack([np.zeros((64, 64)), np.full((64, 64), 255), checks]).astype(np.uint8)
    bands = torch.from_numpy(np.stack([extremes, extremes[::-1], np.zeros_like(extremes)]))
    found = network.features(bands, torch.zeros(3, dtype=torch.long), [""] * 3, [0])[0]
    assert found.abs().max() < 100


def test_extract_fit_score_and_predict_go_through_them(tmp_path, make_lvit, textdiff_once):
    make_lvit(n_train=3, n_val=0, n_test=2)
    # 48 is no multiple of 32, and needs to be none.
    command = ["extract", "--dataset", "monuseg", "--data", "data", "--preset", "filters", "--image-size", "48"]
    said = textdiff_once(tmp_path, *command, "--device", "cpu").stderr
    assert "backbone filters" in said
    assert "no text is embedded" in said
    cache = FeatureCache.open(tmp_path / "cache/monuseg.zarr")
    assert (cache.steps, cache.blocks, len(cache.rows)) == ((0,), {0: (48, 48, 48)}, 5)
    # The seed is of noise, of which there is none.
    assert "complete" in textdiff_once(tmp_path, *command, "--seed", "1", "--device", "cpu").stderr
    fit = ["fit", "--cache", "cache/monuseg.zarr", "--variant", "no-text", "--epochs", "15", "--device", "cpu"]
    textdiff_once(tmp_path, *fit, "--batch-size", "1")
    textdiff_once(tmp_path, "score")
    assert textdiff.open_run(tmp_path / "runs/latest").scores()["scores"]["clean"]["dice"]["mean"] > 0.7
    textdiff_once(tmp_path, "predict", "data/Test_Folder/img", "--out", "out", "--device", "cpu")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--steps", "50"), ("--steps 50", "filters", "knows no diffusion steps")),
        (("--blocks", "6"), ("--blocks 6", "filters", "0..0")),
    ],
)
def test_what_the_filters_do_not_have_is_refused(tmp_path, make_lvit, textdiff_once, options, words):
    make_lvit(n_train=1, n_val=0, n_test=0)
    command = ("extract", "--dataset", "monuseg", "--data", "data", "--preset", "filters", *options)
    said = textdiff_once(tmp_path, *command, status=2).stderr
    for word in words:
        assert word in said
