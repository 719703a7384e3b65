"""TransUNet against the published network's numbers, and Google's file of weights that it starts from."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from textdiff.errors import UserError
from textdiff.models.networks.transunet import TransUNet
from textdiff.tests.rival_cases import assert_equals_the_oracle, read_oracle

SMALL = {"width": 32, "units": (2, 1, 1), "dim": 24, "depth": 2, "heads": 3, "mlp": 48, "decoder": (16, 8, 8, 8, 4)}
PICKS = {
    "embedded_tokens": lambda result: result[0],
    "skip32": lambda result: result[1][0],
    "skip64": lambda result: result[1][1],
    "skip128": lambda result: result[1][2],
}


@pytest.fixture(scope="module")
def case(oracles, oracle_fill):
    return read_oracle(oracles / "baseline_transunet.npz", oracle_fill)


def test_evaluates_as_the_published_network(case):
    network = case.filled(TransUNet, torch.float64)
    assert_equals_the_oracle(case, network, "eval", picks=PICKS)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trains_as_the_published_network(case, dtype):
    network = case.filled(lambda: TransUNet(dropout=0), dtype)
    assert_equals_the_oracle(case, network, "train", picks=PICKS)


@pytest.mark.parametrize(("image_size", "count"), [(256, 105_322_146), (224, 105_276_066)])
def test_documented_parameter_counts(image_size, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in TransUNet(image_size=image_size).parameters()) == count
    assert f"{count:,}" in TransUNet.__doc__


@pytest.mark.parametrize(("batch", "image_size", "classes"), [(1, 256, 2), (3, 224, 3), (3, 32, 2), (1, 48, 4)])
def test_scores_have_the_images_size(batch, image_size, classes):
    network = TransUNet(classes, image_size, **SMALL).eval()
    with torch.inference_mode():
        scores = network.scores(torch.zeros(batch, 3, image_size, image_size))
    assert scores.shape == (batch, classes, image_size, image_size)


@pytest.mark.parametrize("shape", [(1, 3, 48, 48), (1, 3, 64, 32), (1, 1, 64, 64), (3, 64, 64)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"of image_size 64 reads \(B, 3, 64, 64\)"):
        TransUNet(image_size=64, **SMALL).scores(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 100}, "image_size 100: use a multiple of 16"),
        ({"image_size": 16}, "image_size 16: use a multiple of 16 from 32 on"),
        ({"width": 48}, "width 48: use a multiple of 32"),
        ({"heads": 5}, "dim 24: use a multiple of the 5 heads"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TransUNet(**SMALL | options)


def test_every_parameter_but_key_biases_learns_and_config_rebuilds_the_network():
    torch.manual_seed(0)
    network = TransUNet(classes=3, image_size=64, **SMALL).double()
    network.scores(torch.randn(2, 3, 64, 64, dtype=torch.float64)).square().mean().backward()
    silent = {name for name, p in network.named_parameters() if not float(p.grad.abs().max()) > 1e-15}
    assert silent <= {f"transformer.encoder.layer.{layer}.attn.key.bias" for layer in range(2)}
    again = TransUNet(**json.loads(json.dumps(network.config)))
    assert again.config == network.config
    again.load_state_dict(network.state_dict())


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    network = TransUNet(image_size=64, **SMALL | {"dropout": 0.5})
    assert not torch.equal(network.scores(x), network.scores(x))
    network.eval()
    assert torch.equal(network.scores(x), network.scores(x))


def test_starts_from_the_published_deviations():
    torch.manual_seed(0)
    network = TransUNet(**SMALL | {"dim": 192, "mlp": 384}).requires_grad_(False)
    feed = network.transformer.encoder.layer[0].ffn
    for layer in (feed.fc1, feed.fc2):
        assert float(layer.weight.abs().max()) == pytest.approx(math.sqrt(6 / (192 + 384)), rel=0.01)
        assert 0.5e-6 < float(layer.bias.std()) < 1.5e-6
    assert not network.transformer.embeddings.position_embeddings.any()


def google_file(width, units, dim, depth, heads, mlp, grid, **others):
    """The arrays of Google's R50+ViT file at these sizes, random: every name and shape, the classifier's too."""
    shapes = {
        "cls": (1, 1, dim),
        "head/kernel": (dim, 7),
        "head/bias": (7,),
        "conv_root/kernel": (7, 7, 3, width),
        "gn_root/scale": (1, 1, 1, width),
        "gn_root/bias": (1, 1, 1, width),
        "embedding/kernel": (1, 1, 4 * width << (len(units) - 1), dim),
        "embedding/bias": (dim,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + grid * grid, dim),
        "Transformer/encoder_norm/scale": (dim,),
        "Transformer/encoder_norm/bias": (dim,),
    }
    before = width
    for block, count in enumerate(units):
        after = 4 * width << block
        inner = after // 4
        for unit in range(count):
            kernels = {"1": (1, 1, before, inner), "2": (3, 3, inner, inner), "3": (1, 1, inner, after)}
            kernels |= {} if unit else {"_proj": (1, 1, before, after)}
            for end, kernel in kernels.items():
                place = f"block{block + 1}/unit{unit + 1}"
                shapes[f"{place}/conv{end}/kernel"] = kernel
                shapes |= {f"{place}/gn{end}/{kind}": (1, 1, 1, kernel[3]) for kind in ("scale", "bias")}
            before = after
    each = dim // heads
    for layer in range(depth):
        place = f"Transformer/encoderblock_{layer}"
        attention = f"{place}/MultiHeadDotProductAttention_1"
        for kind in ("query", "key", "value"):
            shapes |= {f"{attention}/{kind}/kernel": (dim, heads, each), f"{attention}/{kind}/bias": (heads, each)}
        shapes |= {f"{attention}/out/kernel": (heads, each, dim), f"{attention}/out/bias": (dim,)}
        shapes |= {f"{place}/MlpBlock_3/Dense_0/kernel": (dim, mlp), f"{place}/MlpBlock_3/Dense_0/bias": (mlp,)}
        shapes |= {f"{place}/MlpBlock_3/Dense_1/kernel": (mlp, dim), f"{place}/MlpBlock_3/Dense_1/bias": (dim,)}
        shapes |= {f"{place}/LayerNorm_{n}/{kind}": (dim,) for n in (0, 2) for kind in ("scale", "bias")}
    draw = np.random.default_rng(5)
    return {name: draw.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def test_load_pretrained_puts_every_array_of_googles_file_in_its_place(tmp_path):
    network = TransUNet(image_size=64, **SMALL)
    rest = {name: x.clone() for name, x in network.state_dict().items() if not name.startswith("transformer.")}
    arrays = google_file(**SMALL, grid=4)
    np.savez(tmp_path / "vit.npz", **arrays)
    network.load_pretrained(tmp_path / "vit.npz")
    state = {name: x.numpy() for name, x in network.state_dict().items()}
    root = "transformer.embeddings.hybrid_model"
    layer, theirs = "transformer.encoder.layer.1", "Transformer/encoderblock_1"
    attention = f"{theirs}/MultiHeadDotProductAttention_1"
    x = np.random.default_rng(1).standard_normal((5, 24), dtype=np.float32)
    for kind in ("query", "key", "value"):
        split = np.einsum("nd,dhe->nhe", x, arrays[f"{attention}/{kind}/kernel"]) + arrays[f"{attention}/{kind}/bias"]
        ours = x @ state[f"{layer}.attn.{kind}.weight"].T + state[f"{layer}.attn.{kind}.bias"]
        np.testing.assert_allclose(ours, split.reshape(5, 24), rtol=1e-4, atol=1e-5)
    joined = np.einsum("nhe,hed->nd", x.reshape(5, 3, 8), arrays[f"{attention}/out/kernel"])
    np.testing.assert_allclose(x @ state[f"{layer}.attn.out.weight"].T, joined, rtol=1e-4, atol=1e-5)
    same = {
        f"{root}.root.conv.weight": arrays["conv_root/kernel"].transpose(3, 2, 0, 1),
        f"{root}.root.gn.weight": arrays["gn_root/scale"].ravel(),
        f"{root}.body.block1.unit2.conv2.weight": arrays["block1/unit2/conv2/kernel"].transpose(3, 2, 0, 1),
        f"{root}.body.block3.unit1.gn2.bias": arrays["block3/unit1/gn2/bias"].ravel(),
        f"{root}.body.block2.unit1.downsample.weight": arrays["block2/unit1/conv_proj/kernel"].transpose(3, 2, 0, 1),
        f"{root}.body.block2.unit1.gn_proj.weight": arrays["block2/unit1/gn_proj/scale"].ravel(),
        "transformer.embeddings.patch_embeddings.weight": arrays["embedding/kernel"].transpose(3, 2, 0, 1),
        "transformer.embeddings.position_embeddings": arrays["Transformer/posembed_input/pos_embedding"][:, 1:],
        f"{layer}.ffn.fc1.weight": arrays[f"{theirs}/MlpBlock_3/Dense_0/kernel"].T,
        f"{layer}.ffn.fc2.bias": arrays[f"{theirs}/MlpBlock_3/Dense_1/bias"],
        f"{layer}.attention_norm.weight": arrays[f"{theirs}/LayerNorm_0/scale"],
        f"{layer}.ffn_norm.bias": arrays[f"{theirs}/LayerNorm_2/bias"],
        "transformer.encoder.encoder_norm.weight": arrays["Transformer/encoder_norm/scale"],
    }
    for name, array in same.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
    # Every array but class token and classifier is read, and nothing else changes.
    read = sum(x.size for x in arrays.values()) - sum(arrays[name].size for name in ("cls", "head/kernel", "head/bias"))
    assert sum(x.size for name, x in state.items() if name.startswith("transformer.")) == read - 24
    assert all(torch.equal(network.state_dict()[name], x) for name, x in rest.items())


def test_position_embeddings_of_another_grid_are_zoomed_linearly(tmp_path):
    network = TransUNet(image_size=128, **SMALL)
    arrays = google_file(**SMALL, grid=5)
    np.savez(tmp_path / "vit.npz", **arrays)
    network.load_pretrained(tmp_path / "vit.npz")
    grid = arrays["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(5, 5, 24)
    zoomed = ndimage.zoom(grid, (8 / 5, 8 / 5, 1), order=1).reshape(1, 64, 24)
    np.testing.assert_allclose(network.transformer.embeddings.position_embeddings.detach(), zoomed, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [224, 256])
def test_load_pretrained_reads_a_file_of_the_published_size(tmp_path, image_size):
    network = TransUNet(image_size=image_size)
    arrays = google_file(width=64, units=(3, 4, 9), dim=768, depth=12, heads=12, mlp=3072, grid=14)
    np.savez(tmp_path / "vit.npz", **arrays)
    network.load_pretrained(tmp_path / "vit.npz")
    (tmp_path / "vit.npz").unlink()
    last = network.transformer.embeddings.hybrid_model.body["block3"].unit9.conv3.weight.detach()
    np.testing.assert_array_equal(last, arrays["block3/unit9/conv3/kernel"].transpose(3, 2, 0, 1))
    positions = network.transformer.embeddings.position_embeddings.detach()
    grid = arrays["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(14, 14, 768)
    zoom = image_size / 16 / 14
    np.testing.assert_allclose(positions[0], ndimage.zoom(grid, (zoom, zoom, 1), order=1).reshape(-1, 768), atol=1e-5)


ATTENTION = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
BROKEN = {
    "missing": lambda a: a.pop("block2/unit1/gn_proj/scale"),
    "shape": lambda a: a.update({"Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel": np.zeros((48, 24), "f4")}),
    "heads": lambda a: a.update({f"{ATTENTION}/out/kernel": np.zeros((24, 24), "f4")}),
    "grid": lambda a: a.update({"Transformer/posembed_input/pos_embedding": np.zeros((1, 16, 24), "f4")}),
    "numbers": lambda a: a.update({"conv_root/kernel": np.zeros((7, 7, 3, 32), int)}),
}
WORDS = {
    "missing": "no block2/unit1/gn_proj/scale",
    "shape": "MlpBlock_3/Dense_0/kernel is (48, 24), not (24, 48)",
    "heads": "MultiHeadDotProductAttention_1/out/kernel is (24, 24), not (3, 8, 24)",
    "grid": "pos_embedding is (1, 16, 24), not (1, 1 + a square number, 24)",
    "numbers": "conv_root/kernel is int64, not floating-point",
    "cut": "it is no archive, or a part of one",
    "flipped": "not a readable .npz file",
    "array": "it is no archive",
    "absent": "no such file of weights",
}


@pytest.mark.parametrize("kind", WORDS)
def test_files_that_do_not_fit_are_refused_in_one_line_and_change_nothing(tmp_path, kind):
    network = TransUNet(image_size=64, **SMALL)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    arrays = google_file(**SMALL, grid=4)
    BROKEN.get(kind, lambda _: None)(arrays)
    path = tmp_path / "vit.npz"
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, arrays["cls"])
    elif kind == "absent":
        path.unlink()
    with pytest.raises(UserError) as error:
        network.load_pretrained(path)
    assert WORDS[kind] in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(network.state_dict()[name], x) for name, x in before.items())


def test_load_reference_says_what_does_not_fit():
    network = TransUNet(image_size=64, **SMALL)
    state = dict(network.state_dict()) | {"transformer.embeddings.position_embeddings": torch.zeros(1, 4, 24)}
    with pytest.raises(UserError, match=r"TransUNet: \S+position_embeddings is \(1, 4, 24\), not \(1, 16, 24\)"):
        network.load_reference(state)
