"""Checkpoints that are missing, damaged, dangerous or of another architecture are refused in one line."""

import argparse
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint, save_unet
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.tests.checkpoint_cases import NEW, assert_same, under


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


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


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_weights_that_are_whole_numbers_are_refused(tmp_path, state, dtype):
    name = list(state)[5]
    torch.save(state | {name: state[name].to(dtype)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"a.pt: holds whole numbers .{name}, {dtype}.".replace("torch.", "")) as caught:
        load_unet(tmp_path / "a.pt")
    one_line(caught)


def test_another_network_with_whole_numbers_is_told_to_be_another_and_not_quantised(tmp_path):
    torch.save({"bn1.num_batches_tracked": torch.tensor(3), "bn1.weight": torch.ones(8)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: not an ADM UNet") as caught:
        load_unet(tmp_path / "a.pt")
    one_line(caught)


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
