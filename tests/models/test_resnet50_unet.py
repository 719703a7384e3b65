"""The ResNet-50 U-Net against the published network's numbers, and the weights that it starts from."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from textdiff.errors import UserError
from textdiff.models.networks.resnet50_unet import ResNet50UNet
from textdiff.tests.rival_cases import assert_equals_the_oracle, read_oracle

SMALL = {"width": 8, "layers": (1, 2, 1, 1), "decoder": (16, 8, 8, 8, 4)}
PICKS = {f"encoder{level}": lambda features, level=level: features[level - 1] for level in range(1, 6)}


@pytest.fixture(scope="module")
def case(oracles, oracle_fill):
    return read_oracle(oracles / "baseline_resnet50_unet.npz", oracle_fill)


def test_evaluates_as_the_published_network(case):
    network = case.filled(ResNet50UNet, torch.float64)
    assert sum(p.numel() for p in network.parameters()) == case.config["parameters"] == 32_521_105
    assert_equals_the_oracle(case, network, "eval", picks=PICKS)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
def test_trains_as_the_published_network(case, dtype):
    network = case.filled(ResNet50UNet, dtype)
    assert_equals_the_oracle(case, network, "train", picks=PICKS)


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (3, 3)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (3, 224, 224), (1, 256, 256), (2, 32, 96)])
def test_scores_have_the_images_size(classes, channels, batch, height, width):
    network = ResNet50UNet(classes, **SMALL).eval()
    with torch.inference_mode():
        assert network.scores(torch.zeros(batch, 3, height, width)).shape == (batch, channels, height, width)


@pytest.mark.parametrize("shape", [(1, 3, 64, 48), (1, 3, 100, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="sides that are multiples of 32"):
        ResNet50UNet(**SMALL).scores(torch.zeros(shape))


def test_every_parameter_learns_and_config_rebuilds_the_network():
    torch.manual_seed(0)
    network = ResNet50UNet(classes=4, **SMALL)
    network.scores(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    again = ResNet50UNet(**json.loads(json.dumps(network.config)))
    assert again.config == network.config
    again.load_state_dict(network.state_dict())


def test_starts_from_the_published_deviations():
    torch.manual_seed(0)
    network = ResNet50UNet().requires_grad_(False)
    stem, wide = network.encoder.conv1.weight, network.encoder.layer3[1].conv2.weight
    assert float(stem.std()) == pytest.approx(math.sqrt(2 / (49 * 64)), rel=0.03)
    assert float(wide.std()) == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    first, head = network.decoder.blocks[0].conv1[0].weight, network.segmentation_head[0]
    assert float(first.abs().max()) == pytest.approx(math.sqrt(6 / (9 * 3072)), rel=0.01)
    assert float(head.weight.abs().max()) == pytest.approx(math.sqrt(6 / (9 * 17)), rel=0.05)
    assert not head.bias.any()


def torchvision_state(network):
    """What torchvision's file holds: random weights, the classifier among them."""
    generator = torch.Generator().manual_seed(3)
    state = {name: torch.rand(x.shape, generator=generator) for name, x in network.encoder.state_dict().items()}
    return state | {"fc.weight": torch.zeros(1000, 32 * network.config["width"]), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "data parallel", "no counts"])
def test_load_pretrained_reads_torchvisions_encoder(tmp_path, kind):
    network = ResNet50UNet(**SMALL)
    rest = {name: x.clone() for name, x in network.state_dict().items() if not name.startswith("encoder.")}
    state = torchvision_state(network)
    path = tmp_path / ("resnet50.safetensors" if kind == "safetensors" else "resnet50.pth")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "data parallel":
        torch.save({"state_dict": {f"module.{name}": x for name, x in state.items()}, "epoch": 3}, path)
    else:
        there = {name: x for name, x in state.items() if kind != "no counts" or "num_batches" not in name}
        torch.save(there, path, _use_new_zipfile_serialization=kind != "legacy")
    network.load_pretrained(path)
    for name, x in network.encoder.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(x, state[name]), name
    assert all(torch.equal(network.state_dict()[name], x) for name, x in rest.items())


def test_load_pretrained_reads_a_file_of_the_published_size(case, tmp_path):
    shapes = {name: shape for name, shape, _ in case.config["state_dict"] if name.startswith("encoder.")}
    state = {name.removeprefix("encoder."): torch.rand(shape) for name, shape in shapes.items()}
    torch.save(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet50.pth")
    network = ResNet50UNet()
    network.load_pretrained(tmp_path / "resnet50.pth")
    last = "layer4.2.conv3.weight"
    assert torch.equal(network.encoder.state_dict()[last], state[last])


def test_weights_that_do_not_fit_are_refused_in_one_line_and_change_nothing(tmp_path):
    network = ResNet50UNet(**SMALL)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    state = torchvision_state(network)
    del state["layer1.0.conv1.weight"]
    state |= {"layer9.0.bias": torch.zeros(1), "bn1.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:1000])
    with pytest.raises(UserError) as error:
        network.load_pretrained(tmp_path / "other.pth")
    for words in ("no layer1.0.conv1.weight", "unknown layer9.0.bias", "bn1.bias is (3,), not (8,)"):
        assert words in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'other.pth'}: ")
    assert "\n" not in str(error.value)
    for name, words in (("cut.pth", "not a readable checkpoint"), ("none.pth", "no such checkpoint file")):
        with pytest.raises(UserError, match=words):
            network.load_pretrained(tmp_path / name)
    with pytest.raises(UserError, match=r"do not fit this ResNet-50 U-Net: no encoder\.conv1\.weight"):
        network.load_reference({name: x for name, x in before.items() if name != "encoder.conv1.weight"})
    assert all(torch.equal(network.state_dict()[name], x) for name, x in before.items())
