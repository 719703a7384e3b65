"""Swin-Unet against the published network's numbers, and how weights come into it."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from textdiff.errors import UserError
from textdiff.models.networks.swin_unet import SwinUNet
from textdiff.tests.rival_cases import assert_equals_the_oracle, read_oracle

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"image_size": 64, "width": 8, "depths": (2, 2, 2, 2), "heads": (1, 2, 2, 4)}
ORACLES = {"baseline_swin_unet": 224, "baseline_swin_unet_256": 256}


@pytest.fixture(scope="module")
def oracle(oracles, oracle_fill):
    return lambda name: read_oracle(oracles / f"{name}.npz", oracle_fill)


@pytest.mark.parametrize(
    ("name", "mode", "dtype"),
    [
        pytest.param(name, mode, dtype, marks=[] if (mode, dtype) == ("eval", torch.float64) else pytest.mark.slow)
        for name in ORACLES
        for mode in ("eval", "train")
        for dtype in (torch.float64, torch.float32)
    ],
)
def test_output_activations_and_gradients_are_those_of_the_authors_network(oracle, name, mode, dtype):
    numbers = oracle(name)
    network = SwinUNet(image_size=ORACLES[name], drop=0).to(dtype)
    network.load_reference(numbers.state)
    places = {place: network.get_submodule(theirs) for place, theirs in numbers.config["activations"].items()}
    assert_equals_the_oracle(numbers, network, mode, places)


@pytest.mark.parametrize(
    ("image_size", "classes", "count"), [(224, 2, 27_168_228), (256, 2, 27_175_620), (256, 1, 27_175_524)]
)
def test_parameter_count(image_size, classes, count):
    with torch.device("meta"):
        network = SwinUNet(classes, image_size)
    assert sum(p.numel() for p in network.parameters()) == count
    assert classes == 1 or f"{count:,}" in SwinUNet.__doc__


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_images_of_a_batch_do_not_see_each_other_in_training_or_evaluation(classes):
    network = SwinUNet(classes, **SMALL, drop=0).double()
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    together = network.scores(x)
    assert together.shape == (3, classes, 64, 64)
    torch.testing.assert_close(network.scores(x[1:2]), together[1:2], rtol=1e-10, atol=1e-12)


def test_every_parameter_learns_with_stochastic_depth_and_only_training_is_random():
    torch.manual_seed(0)
    network = SwinUNet(**SMALL, drop=0.4)
    x = torch.randn(8, 3, 64, 64)
    first, second = network.scores(x), network.scores(x)
    assert not torch.equal(first, second)
    (first + second).square().mean().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []
    network.eval()
    assert torch.equal(network.scores(x), network.scores(x))


def test_stochastic_depth_rises_over_the_encoder_and_is_the_same_at_a_size_of_the_decoder():
    network = SwinUNet(**SMALL | {"depths": (2, 1, 3, 2)}, drop=0.7)
    down = [[block.drop for block in stage.blocks] for stage in network.layers]
    assert [rate for stage in down for rate in stage] == pytest.approx([0.1 * i for i in range(8)])
    assert [[block.drop for block in stage.blocks] for stage in network.layers_up[1:]] == down[2::-1]


def test_a_branch_is_skipped_or_made_up_for():
    torch.manual_seed(0)
    block = SwinUNet(**SMALL, drop=0.25).layers[3].blocks[1]
    kept = block.drop_branch(torch.ones(2000, 1, 1, 1)).flatten()
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)  # the deviation of the mean is 0.013


def test_begins_as_published():
    network = SwinUNet()
    attention = network.layers_up[1].blocks[0].attn
    for drawn in (attention.qkv.weight, attention.relative_position_bias_table, network.up.expand.weight):
        assert float(drawn.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not attention.qkv.bias.any()
    assert not network.concat_back_dim[1].bias.any()
    bound = 1 / math.sqrt(3 * 4 * 4)  # PyTorch's own for a convolution
    assert 0.9 * bound < float(network.patch_embed.proj.weight.detach().abs().max()) <= bound


def test_config_rebuilds_the_network():
    network = SwinUNet(3, **SMALL, drop=0.1)
    again = SwinUNet(**json.loads(json.dumps(network.config)))
    assert again.config == network.config
    again.load_state_dict(network.state_dict())


def test_mistakes_of_a_caller_are_refused():
    network = SwinUNet(**SMALL)
    for shape in ((1, 3, 96, 96), (1, 1, 64, 64), (3, 64, 64), (1, 3, 64, 32)):
        with pytest.raises(ValueError, match=r"takes \(B, 3, 64, 64\)"):
            network.scores(torch.zeros(shape))
    with pytest.raises(ValueError, match="image_size 100: must be a multiple of 32"):
        SwinUNet(image_size=100)
    with pytest.raises(ValueError, match="each needs a number per stage"):
        SwinUNet(**SMALL | {"heads": (1, 2)})


def test_load_reference_takes_the_authors_prefix_and_what_they_store_beside_the_weights():
    given, network = SwinUNet(**SMALL), SwinUNet(**SMALL)
    state = {f"module.swin_unet.{name}": value for name, value in given.state_dict().items()}
    stored = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 4, 4), "layers.0.blocks.0.attn.relative_position_index": 0}
    network.load_reference(state | {f"module.swin_unet.{name}": value for name, value in stored.items()})
    torch.testing.assert_close(dict(network.state_dict()), dict(given.state_dict()), rtol=0, atol=0)


def test_load_reference_says_in_one_line_what_does_not_fit_and_changes_nothing():
    network = SwinUNet(**SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value + 1 for name, value in before.items() if name != "norm_up.bias"}
    state |= {"extra": torch.zeros(1), "up.norm.bias": torch.zeros(9)}
    with pytest.raises(UserError) as error:
        network.load_reference(state)
    for part in ("this SwinUNet", "no norm_up.bias", "unknown extra", "up.norm.bias is (9,), not (8,)"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def classifier(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7, classes=1000):
    """A state dict with the names and shapes of Microsoft's Swin Transformer, by default Swin-T, and random weights."""
    shapes = {"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)}
    shapes |= {f"patch_embed.norm.{kind}": (width,) for kind in ("weight", "bias")}
    for stage, depth in enumerate(depths):
        c = width << stage
        for block in (f"layers.{stage}.blocks.{number}." for number in range(depth)):
            shapes[f"{block}attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads[stage])
            layers = {"attn.qkv": (3 * c, c), "attn.proj": (c, c), "mlp.fc1": (4 * c, c), "mlp.fc2": (c, 4 * c)}
            for layer, shape in layers.items():
                shapes |= {f"{block}{layer}.weight": shape, f"{block}{layer}.bias": shape[:1]}
            shapes |= {f"{block}norm{n}.{kind}": (c,) for n in (1, 2) for kind in ("weight", "bias")}
        if stage < len(depths) - 1:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * c, 4 * c)
            shapes |= {f"layers.{stage}.downsample.norm.{kind}": (4 * c,) for kind in ("weight", "bias")}
    shapes |= {"norm.weight": (c,), "norm.bias": (c,), "head.weight": (classes, c), "head.bias": (classes,)}
    torch.manual_seed(1)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def small_classifier(**options):
    small = {name: SMALL[name] for name in ("width", "heads")} | {"depths": (2, 2, 3, 2), "window": 2, "classes": 5}
    return classifier(**small | options)


def stored(state):
    """With what such files hold beside the weights, computed from the shapes."""
    return state | {
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 4, 4),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4, dtype=torch.int64),
    }


def test_swin_t_goes_into_the_encoder_and_into_the_decoder_stage_of_equal_width(tmp_path):
    state = classifier()
    assert sum(value.numel() for value in state.values()) == 28_288_354  # Swin-T's, classifier included
    torch.save({"model": stored(state), "epoch": 300}, tmp_path / "swin.pth")
    network = SwinUNet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_pretrained(tmp_path / "swin.pth")
    source = {name: name for name in before if name.startswith(("patch_embed.", "layers.", "norm."))}
    for up, down in ((1, 2), (2, 1), (3, 0)):
        start = f"layers_up.{up}.blocks."
        source |= {
            name: f"layers.{down}.blocks.{name.removeprefix(start)}" for name in before if name.startswith(start)
        }
    expected = {name: state[source[name]] if name in source else value for name, value in before.items()}
    torch.testing.assert_close(dict(network.state_dict()), expected, rtol=0, atol=0)
    assert sum(before[name].numel() for name in source) > 0.9 * sum(value.numel() for value in before.values())


def test_a_safetensors_file_does_as_well(tmp_path):
    state = small_classifier()
    save_file(stored(state), tmp_path / "swin.safetensors")
    network = SwinUNet(**SMALL)
    network.load_pretrained(tmp_path / "swin.safetensors")
    assert torch.equal(network.layers[2].blocks[1].mlp.fc1.weight, state["layers.2.blocks.1.mlp.fc1.weight"])


def test_tables_of_positions_are_interpolated_for_larger_windows(tmp_path):
    state = small_classifier(window=7)
    rising = torch.arange(13.0).repeat_interleave(13)  # by the row alone
    for name in state:
        if name.endswith("relative_position_bias_table"):
            state[name] = rising[:, None] * torch.arange(1, state[name].shape[1] + 1)
    torch.save(state, tmp_path / "swin.pth")
    network = SwinUNet(**SMALL | {"image_size": 256})
    network.load_pretrained(tmp_path / "swin.pth")
    stages = (*network.layers, network.layers_up[1])
    tables = [stage.blocks[1].attn.relative_position_bias_table.detach() for stage in stages]
    for table in tables:
        first, *others = table.t().unflatten(1, (15, 15))
        torch.testing.assert_close(first, first[:, :1].expand(15, 15))
        assert (first[:, 0].diff() > 0).all()
        assert float(first[7, 0]) == pytest.approx(6)  # no offset stays no offset
        for number, other in enumerate(others, 2):
            torch.testing.assert_close(other, number * first)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layers.2.downsample.norm.bias"), "no layers.2.downsample.norm.bias"),
        (lambda state: state.update({"absolute_pos_embed": torch.zeros(1)}), "unknown absolute_pos_embed"),
        (lambda state: state.update({"norm.bias": torch.zeros(2)}), "norm.bias is (2,), not (64,)"),
        (
            lambda state: state.update({"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(10, 1)}),
            "relative_position_bias_table is (10, 1), not (9, 1)",
        ),
        (
            lambda state: state.update({"layers.0.blocks.0.attn.relative_position_bias_table": torch.tensor(1.0)}),
            "relative_position_bias_table is (), not (9, 1)",
        ),
        (lambda state: state.clear(), "holds no tensors"),
    ],
)
def test_another_networks_file_is_refused_in_one_line_and_changes_nothing(tmp_path, change, words):
    state = small_classifier()
    change(state)
    torch.save(state, tmp_path / "other.pth")
    network = SwinUNet(**SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError) as error:
        network.load_pretrained(tmp_path / "other.pth")
    assert words in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "other.pth"))
    assert "\n" not in str(error.value)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("content", [None, b"PK nothing", b""])
@pytest.mark.parametrize("name", ["swin.pth", "swin.safetensors"])
def test_a_missing_or_damaged_file_is_refused_in_one_line(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        SwinUNet(**SMALL).load_pretrained(tmp_path / name)
    assert ("no such checkpoint file" if content is None else "not a readable checkpoint") in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
