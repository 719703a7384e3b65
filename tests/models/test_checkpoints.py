"""Checkpoints that are saved and loaded: the same bits, however they are wrapped."""

import collections
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint, save_unet
from textdiff.tests.checkpoint_cases import NEW, assert_same, build, under


def test_safetensors_round_trip_is_bit_equal_and_keeps_the_configuration(tmp_path, unet, state):
    save_unet(unet, tmp_path / "a.safetensors", {"trained on": "nothing"})
    loaded = load_unet(tmp_path / "a.safetensors")
    assert loaded.config == unet.config
    assert_same(loaded.state_dict(), state)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as f:
        metadata = f.metadata()
    assert metadata["trained on"] == "nothing"
    assert json.loads(metadata["textdiff.unet"]) == unet.config


def test_saving_twice_gives_the_same_bytes(tmp_path, unet):
    metadata = {str(i): "ü" * i for i in range(8)}
    for name in "ab":
        save_unet(unet, tmp_path / f"{name}.safetensors", metadata)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", framework="pt") as f:
        assert {key: value for key, value in f.metadata().items() if not key.startswith("textdiff.")} == metadata


def test_options_that_shapes_do_not_tell_come_back_from_the_metadata(tmp_path):
    config = NEW | {"num_head_channels": 16, "use_new_attention_order": True, "image_size": 128}
    unet = build(config)
    save_unet(unet, tmp_path / "a.safetensors")
    assert load_unet(tmp_path / "a.safetensors", image_size=256).config == config


def test_float16_files_load_as_float32_with_the_rounded_values(tmp_path, unet, state):
    save_unet(unet, tmp_path / "half.safetensors", dtype=torch.float16)
    torch.save({name: entry.half() for name, entry in state.items()}, tmp_path / "half.pt")
    for name in ("half.safetensors", "half.pt"):
        assert (tmp_path / name).stat().st_size < 0.6 * 4 * sum(entry.numel() for entry in state.values())
        loaded = load_unet(tmp_path / name).state_dict()
        assert {entry.dtype for entry in loaded.values()} == {torch.float32}
        assert_same(loaded, {name: entry.half().float() for name, entry in state.items()})


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    unet = build(NEW)
    with torch.no_grad():
        unet.out[2].bias[0] = 1e6
    with pytest.raises(UserError, match=r"out\.2\.bias"):
        save_unet(unet, tmp_path / "a.safetensors", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


WRAPPINGS = {
    "bare": lambda s: s,
    "ordered": collections.OrderedDict,
    "ema": lambda s: {"ema": s, "model": {name: entry + 1 for name, entry in s.items()}, "step": 7},
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {}, "param_groups": []}},
    "model": lambda s: {"model": s},
    "nested": lambda s: {"model": {"state_dict": under("module.")(s)}},
    "module.": under("module."),
    "model.": under("model."),
    "module.model.": under("module.model."),
    "ema copy": lambda s: under("model.")({name: entry + 1 for name, entry in s.items()}) | under("ema_model.")(s),
    "bare and ema copy": lambda s: {name: entry + 1 for name, entry in s.items()} | under("ema.")(s),
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_wrappers_and_prefixes_are_understood(tmp_path, state, wrap, zipped):
    torch.save(wrap(state), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    loaded = load_unet(tmp_path / "a.pt", image_size=64)
    assert loaded.config == NEW
    assert_same(loaded.state_dict(), state)


def test_a_loaded_network_is_frozen_and_computes_what_the_saved_one_did(tmp_path, unet, state):
    torch.save(state, tmp_path / "a.pt")
    loaded = load_unet(tmp_path / "a.pt", image_size=64)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not any(p.is_meta for p in loaded.parameters())
    x, t = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([150])
    with torch.no_grad():
        assert torch.equal(loaded(x, t), unet(x, t))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_float32_weights_stay_where_they_lie_in_the_file(tmp_path, unet, state):
    """No copy: every parameter is a view of one mapping as large as the file."""
    torch.save(under("module.")(state), tmp_path / "a.pt")
    save_unet(unet, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        raw, _ = read_checkpoint(tmp_path / name)
        loaded = load_unet(tmp_path / name)
        lines = Path("/proc/self/maps").read_text().splitlines()
        maps = [line.split() for line in lines if line.endswith(str(tmp_path / name))]
        spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
        assert spans
        for p in [*raw.values(), *loaded.parameters()]:
            assert any(low <= p.data_ptr() < high for low, high in spans)
