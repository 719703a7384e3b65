"""LViT against the published network's numbers."""

import json

import pytest
import torch

from textdiff.errors import UserError
from textdiff.models.networks.lvit import DEAD, LViT, to_reference
from textdiff.tests.rival_cases import assert_equals_the_oracle, read_oracle

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"image_size": 32, "width": 16, "heads": 2, "text_dim": 12}
PLACES = {"conv1": "stem", "text_tokens": "down_tokens.0.text", "patch_tokens": "down_tokens.0.patches"}
PLACES["logits"] = "head"
for _level in range(4):
    PLACES |= {
        f"conv{_level + 2}": f"down.{_level}",
        f"text{_level + 1}": f"text.{_level}",
        f"down_vit{_level + 1}": f"down_tokens.{_level}",
        f"up_vit{_level + 1}": f"up_tokens.{_level}",
        f"rebuilt{_level + 1}": f"rebuild.{_level}",
        f"skip{_level + 1}": f"up.{_level}.gate",
        f"decoder{_level + 1}": f"up.{_level}",
    }


@pytest.fixture(scope="module")
def oracle(oracles, oracle_fill):
    return read_oracle(oracles / "baseline_lvit.npz", oracle_fill)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [
        ("eval", torch.float64),
        pytest.param("eval", torch.float32, marks=pytest.mark.slow),
        pytest.param("train", torch.float64, marks=pytest.mark.slow),
        pytest.param("train", torch.float32, marks=pytest.mark.slow),
    ],
)
def test_output_activations_and_gradients_are_those_of_the_authors_network(oracle, mode, dtype):
    network = LViT(dropout=0).to(dtype)
    network.load_reference(oracle.state)
    places = {name: network.get_submodule(ours) for name, ours in PLACES.items()}
    # In float32 the smallest gradients change by 7% with the number of threads, as ReLUs near zero change sides.
    exact = dtype == torch.float64
    assert_equals_the_oracle(oracle, network, mode, places, torch.nn.Sigmoid(), to_reference, gradients=exact)


def test_what_the_authors_network_never_uses_is_passed_by_and_nothing_else(oracle):
    with torch.device("meta"):
        network = LViT()
    count = sum(p.numel() for p in network.parameters())
    assert f"{count:,}" == "29,908,033"
    assert f"{count:,}" in LViT.__doc__
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    dead = {name for name in oracle.state if DEAD.match(name) and not name.endswith(buffers)}
    assert dead == set(oracle.config["without_gradient"])
    assert count + sum(oracle.state[name].numel() for name in dead) == oracle.config["parameters"]
    alive = {name: tensor.shape for name, tensor in oracle.state.items() if not DEAD.match(name)}
    assert {name: tensor.shape for name, tensor in network.reference_state_dict().items()} == alive


@pytest.mark.parametrize(("classes", "channels"), [(1, 1), (2, 1), (3, 3)])
def test_two_classes_have_one_score_and_images_of_a_batch_do_not_see_each_other(classes, channels):
    network = LViT(classes, **SMALL).double().eval()
    x, text = torch.randn(3, 3, 32, 32).double(), torch.randn(3, 10, 12).double()
    together = network.scores(x, text)
    assert together.shape == (3, channels, 32, 32)
    torch.testing.assert_close(network.scores(x[1:2], text[1:2]), together[1:2], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(network.scores(x, text.flip(1)), together)


def test_every_parameter_learns_with_dropout_and_only_training_is_random():
    torch.manual_seed(0)
    network = LViT(**SMALL | {"image_size": 64})
    x, text = torch.randn(4, 3, 64, 64), torch.randn(4, 10, 12)
    first, second = network.scores(x, text), network.scores(x, text)
    assert not torch.equal(first, second)
    (first + second).square().mean().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []
    network.eval()
    assert torch.equal(network.scores(x, text), network.scores(x, text))


def test_dropout_is_that_of_patches_and_of_both_layers_of_the_perceptrons():
    kinds = [name for name, module in LViT(**SMALL).named_modules() if getattr(module, "p", None) == 0.1]
    down = [[f"down_tokens.{k}.patches.dropout", *_in_block(f"down_tokens.{k}")] for k in range(4)]
    assert kinds == [name for level in down for name in level] + [
        x for k in range(4) for x in _in_block(f"up_tokens.{k}")
    ]
    silent = LViT(**SMALL, dropout=0)
    x, text = torch.randn(2, 3, 32, 32), torch.randn(2, 10, 12)
    assert torch.equal(silent.scores(x, text), silent.scores(x, text))


def _in_block(tokens):
    return [f"{tokens}.block.mlp.dropout{number}" for number in (1, 2)]


def test_config_rebuilds_the_network():
    network = LViT(3, **SMALL, text_tokens=7, dropout=0.2)
    again = LViT(**json.loads(json.dumps(network.config)))
    assert again.config == network.config
    again.load_state_dict(network.state_dict())


def test_places_begin_at_zero():
    assert not any(level.patches.places.any() for level in LViT(**SMALL).down_tokens)


def test_mistakes_of_a_caller_are_refused():
    network = LViT(**SMALL)
    text = torch.zeros(1, 10, 12)
    for shape in ((1, 3, 48, 48), (1, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match=r"this network takes \(\d, 3, 32, 32\); resize them"):
            network.scores(torch.zeros(shape), text)
    for shape in ((1, 9, 12), (1, 10, 13), (2, 10, 12), (10, 12)):
        with pytest.raises(ValueError, match=r"this network takes \(1, 10, 12\); cut or pad"):
            network.scores(torch.zeros(1, 3, 32, 32), torch.zeros(shape))
    with pytest.raises(ValueError, match="image_size 100: must be a multiple of 16"):
        LViT(image_size=100)


def test_load_reference_says_in_one_line_what_does_not_fit_and_changes_nothing():
    network = LViT(**SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {f"module.{name}": value + 1 for name, value in network.reference_state_dict().items()}
    del state["module.inc.conv.bias"]
    state["module.outc.bias"] = torch.zeros(2)
    # The first is one of those that are never used, the second has no meaning.
    state |= {"module.downVit1.CTBN3.conv.bias": torch.zeros(4), "upVit1.CTBN4.conv.bias": torch.zeros(4)}
    with pytest.raises(UserError) as error:
        network.load_reference(state)
    for part in ("this LViT", "no inc.conv.bias", "unknown upVit1.CTBN4.conv.bias", "outc.bias is (2,), not (1,)"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
