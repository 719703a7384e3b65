"""The architecture of a checkpoint is told by its shapes."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet, save_unet
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.backbones.recognise import recognise
from textdiff.models.backbones.unet import UNet
from textdiff.tests.checkpoint_cases import NEW, OLD, assert_same, build, under


def shapes(state):
    return {name: tuple(entry.shape) for name, entry in state.items()}


# What the recogniser is to get right, as the oracles' and other shapes.
RECOGNISED = {
    "new": NEW,
    "old": OLD,
    "deep": NEW | {"channel_mult": [1, 1, 2, 2, 4, 4], "attention_resolutions": [8, 16, 32], "out_channels": 3},
    "no attention in the levels": NEW | {"attention_resolutions": []},
    "shift only": NEW | {"use_scale_shift_norm": False},
    "one residual block": NEW | {"num_res_blocks": 1},
    "three residual blocks": OLD | {"num_res_blocks": 3, "use_scale_shift_norm": True},
    "attention at full size": NEW | {"attention_resolutions": [1, 4], "num_head_channels": 32},
    "first level widened": NEW | {"channel_mult": [2, 2, 4]},
    "narrow heads": NEW | {"model_channels": 32, "channel_mult": [1, 1, 1], "num_head_channels": 32},
    "one level": OLD | {"channel_mult": [2], "attention_resolutions": []},
}


@pytest.mark.parametrize("config", RECOGNISED.values(), ids=RECOGNISED)
def test_the_architecture_is_recognised_from_the_shapes(config):
    with torch.device("meta"):
        unet = UNet(**config)
    assert recognise(shapes(unet.state_dict()), config["image_size"], "it") == config


def test_openais_checkpoint_is_recognised(oracles):
    listed = json.loads((oracles / "adm_256_uncond_state_dict_shapes.json").read_text())
    config = json.loads(str(np.load(oracles / "adm_256_uncond.npz")["config"]))
    found = recognise({name: tuple(shape) for name, shape in listed.items()}, 256, "it")
    assert {key: config[key] for key in config if key in found} == {key: found[key] for key in config if key in found}
    assert set(found) - set(config) == {"in_channels", "use_new_attention_order"}
    with torch.device("meta"):
        assert UNet(**found).config == found


@pytest.mark.parametrize(("name", "untold"), [("adm_mini_64", []), ("adm_variant_32", ["use_new_attention_order"])])
def test_the_oracles_networks_are_recognised(oracles, name, untold):
    config = json.loads(str(np.load(oracles / f"{name}.npz")["config"]))
    for key in ("seed", "steps", "params"):
        del config[key]
    with torch.device("meta"):
        unet = UNet(in_channels=3, **config)
    found = recognise(shapes(unet.state_dict()), config["image_size"], "it")
    assert [key for key in found if found[key] != unet.config[key]] == untold


def test_options_can_be_overridden(tmp_path, state):
    torch.save(state, tmp_path / "a.pt")
    options = {"num_head_channels": 16, "use_new_attention_order": True}
    loaded = load_unet(tmp_path / "a.pt", image_size=64, config=options)
    assert loaded.config == NEW | options
    with pytest.raises(UserError, match="heads"):
        load_unet(tmp_path / "a.pt", config={"num_head_channels": 48})
    with pytest.raises(UserError, match="dropout"):
        load_unet(tmp_path / "a.pt", config={"dropout": 0.1})


def test_safetensors_without_a_configuration_are_recognised(tmp_path, state):
    save_file(under("module.")(state), tmp_path / "a.safetensors")
    loaded = load_unet(tmp_path / "a.safetensors", image_size=64)
    assert loaded.config == NEW
    assert_same(loaded.state_dict(), state)


@pytest.mark.parametrize("config", [NEW, OLD], ids=["heads of 64 channels", "4 heads"])
@pytest.mark.parametrize("says", ["nothing", "its configuration"])
def test_heads_that_a_checkpoint_does_not_say_are_told(tmp_path, capsys, request, config, says):
    unet, path = build(config), tmp_path / "a.safetensors"
    if says == "nothing":
        torch.save(unet.state_dict(), path := tmp_path / "a.pt")
    else:
        save_unet(unet, path)
    load_backbone(resolve_backbone(path), 64, torch.device("cpu"))
    taken = request.node.callspec.id.split("-")[-1]
    told = f"warning: {path}: does not say how its attention divides into heads: {taken} are taken"
    assert (told in capsys.readouterr().err) == (says == "nothing")
