"""The cache's backbone, trained whole: what it begins with, what it learns, where it cannot be."""

from pathlib import Path

import pytest
import torch
from torch import nn

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet, save_unet
from textdiff.models.backbones.unet import fresh_unet
from textdiff.models.networks.recipes import FAIR
from textdiff.models.networks.tuned import Tuned
from textdiff.options.experiments import Table1
from textdiff.options.fit import FitConfig
from textdiff.pipeline import fit
from textdiff.tests.run_cases import assert_masks_are_those_scored, newest, stopped_after

SMALL = {
    "image_size": 32, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 1], "num_heads": 1, "num_head_channels": 32,
    "use_scale_shift_norm": True, "resblock_updown": True,
}  # fmt: skip
FIT = ("fit", "--cache", "cache.zarr", "--model", "tuned", "--epochs", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, textdiff_once) -> Path:
    """A cache of a small pretrained network, and a run of it."""
    root = tmp_path_factory.mktemp("made")
    unet = fresh_unet(SMALL, 4)
    for weight in unet.parameters():
        nn.init.normal_(weight, std=0.1)  # none is zero, as after training
    save_unet(unet, root / "net.safetensors")
    save_unet(fresh_unet(SMALL | {"channel_mult": [1, 2]}, 4), root / "other.safetensors")
    make_lvit_once(root / "data", n_train=2, n_val=1, n_test=1, size=(32, 32))
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--text-encoder", "none", "--image-size", "32")
    backbone = ("--backbone", "net.safetensors", "--blocks", "3", "--steps", "0")
    textdiff_once(root, *extract, *backbone, "--cache", "cache.zarr")
    textdiff_once(root, *FIT)
    return root


@pytest.fixture(autouse=True)
def here(made, monkeypatch):
    monkeypatch.chdir(made)


def made_by(backbone: str, **fingerprint) -> FeatureCache:
    """The cache as if it were of another backbone."""
    cache = FeatureCache.open("cache.zarr")
    cache.about = cache.about | {"backbone": backbone}
    cache.fingerprint = cache.fingerprint | fingerprint
    return cache


def built(cache: FeatureCache) -> Tuned:
    return Tuned.build(cache, FitConfig(cache=cache.path, model="tuned"), FAIR)


def test_it_begins_as_the_backbone_with_a_convolution_of_its_last_block():
    cache = FeatureCache.open("cache.zarr")
    network, path = built(cache), Tuned.own_weights(cache)
    assert path == Path("net.safetensors").resolve()
    network.load_pretrained(path)
    image = torch.from_numpy(cache.image(0)).permute(2, 0, 1)[None]
    backbone = load_unet(path)
    last = backbone.features(image / 127.5 - 1, torch.tensor([0]), [3])[3]
    expected = network.unet.out[-1](backbone.out[:-1](last))
    torch.testing.assert_close(network.eval()(image), expected, rtol=1e-4, atol=1e-4)
    twin = made_by("untrained:net.safetensors")
    assert Tuned.own_weights(twin) is None
    fresh = fresh_unet(SMALL, 0).state_dict()
    for name, value in built(twin).unet.state_dict().items():
        assert name.startswith("out.2") or torch.equal(value, fresh[name]), name


def test_all_its_weights_are_trained_and_a_stopped_fit_resumes_to_the_same_bits(made, textdiff_once):
    whole = newest(made / "runs")
    first, after = fit.initial_network(whole).state_dict(), whole.load_network().state_dict()
    assert [name for name, value in after.items() if torch.equal(value, first[name])] == []
    with stopped_after(1):
        textdiff_once(made, *FIT, "--runs", "cut", status=130)
    cut = newest(made / "cut")
    textdiff_once(made, "fit", "--resume", "--run", str(cut.path))
    for name, value in newest(made / "cut").load_network().state_dict().items():
        assert torch.equal(value, after[name]), name


def test_a_run_predicts_what_it_scored_without_its_backbone(made, textdiff_once):
    run = newest(made / "runs")
    (made / "net.safetensors").rename(made / "away.safetensors")
    try:
        textdiff_once(made, "score", "--run", str(run.path), "--device", "cpu")
        textdiff_once(
            made, "predict", "data/Test_Folder/img", "--run", str(run.path), "--out", "out", "--device", "cpu"
        )
    finally:
        (made / "away.safetensors").rename(made / "net.safetensors")
    assert_masks_are_those_scored(run, made / "data", made / "out")


def test_what_is_no_such_network_stays_frozen_and_says_so(textdiff_once):
    with pytest.raises(UserError, match="rgb, which is no ADM UNet, so it stays frozen"):
        built(made_by("rgb", unet={"levels": "RGB and Gaussian blurs"}))
    with pytest.raises(UserError, match="differs from the cache's backbone in channel_mult"):
        built(FeatureCache.open("cache.zarr")).load_pretrained(Path("other.safetensors"))


def test_tables_have_it_where_it_is_named_alone():
    from textdiff.experiments.table1 import _by_default

    assert not _by_default("tuned", Table1(cache="cache.zarr"))
    assert _by_default("trees", Table1(cache="cache.zarr"))
