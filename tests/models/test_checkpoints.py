"""Checkpoints as people have them: OpenAI's, wrapped, prefixed, halved, damaged, of another architecture."""

import argparse
import collections
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint, save_unet
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.backbones.recognise import recognise
from textdiff.models.backbones.unet import UNet

NEW = {
    "image_size": 64,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 2,
    "attention_resolutions": [2, 4],
    "channel_mult": [1, 2, 2],
    "num_heads": 4,
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_new_attention_order": False,
}
OLD = NEW | {
    "num_head_channels": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "out_channels": 3,
    "num_res_blocks": 1,
}


def build(config):
    torch.manual_seed(0)
    unet = UNet(**config)
    for p in unet.parameters():
        torch.nn.init.normal_(p, std=0.05)
    return unet.eval()


@pytest.fixture(scope="module")
def unet():
    return build(NEW)


@pytest.fixture(scope="module")
def state(unet):
    return {name: entry.detach() for name, entry in unet.state_dict().items()}


def shapes(state):
    return {name: tuple(entry.shape) for name, entry in state.items()}


def assert_same(loaded, state):
    assert list(loaded) == list(state)
    assert [name for name in state if not torch.equal(loaded[name], state[name])] == []


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


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


def under(prefix):
    return lambda state: {prefix + name: entry for name, entry in state.items()}


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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pt: no such checkpoint") as caught:
        load_unet(tmp_path / "absent.pt")
    one_line(caught)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "text", "truncated", "html"])
def test_damaged_files_are_called_damaged(tmp_path, unet, state, name, damage):
    path = tmp_path / name
    if damage == "truncated":
        save_unet(unet, path) if name.endswith("safetensors") else torch.save(state, path)
        os.truncate(path, path.stat().st_size // 2)
    else:
        content = {"empty": b"", "garbage": np.random.default_rng(0).bytes(5000), "text": b"hello world\n" * 99}
        path.write_bytes(content.get(damage, b"<!DOCTYPE html><html>404 Not Found</html>"))
    with pytest.raises(UserError, match="not a readable checkpoint") as caught:
        load_unet(path)
    assert str(path) in one_line(caught)
    assert "weights_only" not in str(caught.value)  # torch's advice would have it read unsafely


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_flipped_bit_is_found_or_harmless(tmp_path, unet, state, name):
    path = tmp_path / name
    save_unet(unet, path) if name.endswith("safetensors") else torch.save(state, path)
    sound, config = path.read_bytes(), read_checkpoint(path, 64)[1]
    draw, found = np.random.default_rng(3), []
    # Anywhere, in the header of the one format, and in the directory of the other.
    for place in np.concatenate([draw.integers(*span, size=15) for span in ((0, len(sound)), (0, 3000), (-3000, 0))]):
        data = bytearray(sound)
        data[place] ^= 1 << draw.integers(8)
        path.write_bytes(data)
        try:
            loaded, said = read_checkpoint(path, 64)
        except UserError as error:
            found.append(str(error))
        else:
            assert_same(loaded, state)
            assert said == config
    assert len(found) >= 25
    assert all(str(path) in message for message in found)


class Payload:
    """Runs code when unpickled the unsafe way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_and_never_run(tmp_path, state):
    torch.save({"state_dict": state, "hook": Payload(tmp_path / "owned")}, tmp_path / "a.pt")
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, tmp_path / "b.pt")
    for name, what in (("a.pt", "mkdir"), ("b.pt", r"argparse\.Namespace")):
        with pytest.raises(UserError, match=f"{what}.*save the state dict alone") as caught:
            load_unet(tmp_path / name)
        one_line(caught)
    assert not (tmp_path / "owned").exists()


def resnet():
    return {"conv1.weight": torch.zeros(8, 3, 7, 7), "bn1.weight": torch.zeros(8), "fc.weight": torch.zeros(10, 8)}


def stable_diffusion(state):
    """Same family of names, but transformers where ADM has attention."""
    changed = {name: entry for name, entry in state.items() if ".qkv." not in name}
    changed["middle_block.1.transformer_blocks.0.attn1.to_q.weight"] = torch.zeros(64, 64)
    changed["input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(64, 768)
    return changed


OTHERS = {
    "resnet": (lambda s: resnet(), r"3 entries \(conv1.weight, bn1.weight, fc.weight\)"),
    "stable diffusion": (stable_diffusion, r"missing \(middle_block\.1\.qkv\.weight.* unknown"),
    "one missing": (
        lambda s: {name: s[name] for name in s if name != "out.0.bias"},
        r"1 missing \(out\.0\.bias\)$",
    ),
    "one more": (lambda s: s | {"extra": torch.zeros(1)}, r"1 unknown \(extra\)$"),
    "one more beside a prefix": (lambda s: under("module.")(s) | {"extra": torch.zeros(1)}, r"1 unknown \(extra\)$"),
    "one of another shape": (
        lambda s: s | {"time_embed.2.bias": torch.zeros(5)},
        r"1 of another shape \(time_embed\.2\.bias \(5,\) instead of \(128,\)\)$",
    ),
    "class-conditional": (lambda s: s | {"label_emb.weight": torch.zeros(1000, 128)}, r"class-conditional.*1000"),
    "upsampler": (
        lambda s: s | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)},
        r"6 input channels",
    ),
    "classifier": (
        lambda s: {name: s[name] for name in s if not name.startswith("output_blocks")},
        r"output_blocks",
    ),
    "list": (lambda s: list(s.values()), "a list, not a state dict"),
    "numbers": (lambda s: {"epoch": 3}, r"no tensors, only epoch"),
    "nothing": (lambda s: {}, r"no tensors"),
    "odd ranks": (lambda s: {name: torch.zeros(3) for name in s}, "not an ADM UNet"),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_other_architectures_are_refused_with_what_differs(tmp_path, state, change, message):
    torch.save(change(state), tmp_path / "a.pt")
    with pytest.raises(UserError, match=message) as caught:
        load_unet(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in one_line(caught)


@pytest.mark.parametrize("metadata", ["not json", "[1]", '{"model_channels": 32}', '{"surprise": 1}'])
def test_a_configuration_that_makes_no_network_is_refused(tmp_path, state, metadata):
    save_file(state, tmp_path / "a.safetensors", {"textdiff.unet": metadata})
    with pytest.raises(UserError) as caught:
        load_unet(tmp_path / "a.safetensors")
    one_line(caught)


IMPOSSIBLE = {
    "ten million blocks": {"num_res_blocks": 10**7},
    "a million levels": {"channel_mult": [1] * 10**6},
    "as many in exponents": {"num_res_blocks": 10**400},
    "channels beyond any memory": {"model_channels": 10**9},
    "channels beyond any number": {"model_channels": 10**30},
    "a negative width": {"model_channels": -32},
    "no width": {"model_channels": 0},
    "a negative depth": {"num_res_blocks": -2},
    "no heads": {"num_head_channels": 0},
    "a fraction": {"num_res_blocks": 1.5},
    "no number": {"model_channels": float("nan")},
    "a word": {"channel_mult": "112244"},
    "nothing": {"channel_mult": None},
}


@pytest.mark.parametrize("wrong", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("untrained", ["", "untrained:"])
def test_what_a_configuration_asks_for_is_bounded_by_the_file(tmp_path, state, wrong, untrained):
    save_file(state, tmp_path / "a.safetensors", {"textdiff.unet": json.dumps(NEW | wrong)})
    with pytest.raises(UserError) as caught:
        load_backbone(resolve_backbone(f"{untrained}{tmp_path / 'a.safetensors'}"), 64, torch.device("cpu"))
    assert "a.safetensors" in one_line(caught)


def test_a_configuration_that_does_not_fit_the_weights_is_refused(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors", {"textdiff.unet": json.dumps(NEW | {"num_res_blocks": 1})})
    with pytest.raises(UserError, match="unknown"):
        load_unet(tmp_path / "a.safetensors")


def test_safetensors_without_a_configuration_are_recognised(tmp_path, state):
    save_file(under("module.")(state), tmp_path / "a.safetensors")
    loaded = load_unet(tmp_path / "a.safetensors", image_size=64)
    assert loaded.config == NEW
    assert_same(loaded.state_dict(), state)
