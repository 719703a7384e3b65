"""The paper's head computes and trains as the authors' network does."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textdiff.models.networks.head import Head
from textdiff.pipeline.training.losses import segmentation_loss, soft_dice_loss

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER = {
    "monuseg": ((512, 512, 256, 256), (32, 64, 128, 256)),
    "qata": ((1024, 512, 512, 256), (16, 32, 64, 128)),
}


def draw(seed, key, shape):
    return torch.from_numpy(np.random.default_rng([seed, key]).standard_normal(shape, dtype=np.float32))


def draw_on(device, *arguments):
    return draw(*arguments).to(device)


# A pair is one object: pytest makes a fixture anew where its parameter is another one.
CASES = [(name, kind) for kind in ("cpu", "cuda") for name in PAPER]


def cases(*slow: str) -> pytest.MarkDecorator:
    """Tests on every preset and device; those of the presets ``slow`` are slow ones."""
    marks = [[pytest.mark.gpu] * (kind == "cuda") + [pytest.mark.slow] * (name in slow) for name, kind in CASES]
    parameters = [pytest.param(case, marks=some) for case, some in zip(CASES, marks, strict=True)]
    return pytest.mark.parametrize("oracle", parameters, indirect=True, ids=map("-".join, CASES))


@pytest.fixture(scope="module")
def oracle(request, one_thread, oracles, oracle_fill):
    """The oracle's numbers, and the head under the same weights and inputs. On a GPU without TF32."""
    name, device = request.param
    convolutions = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with np.load(oracles / f"head_{name}.npz") as file:
        want = dict(file)
    config = json.loads(str(want.pop("config")))
    seed, dims, sizes = config["seed"], config["dims"], config["native_sizes"]
    head = Head(dims, steps=3, text_dim=768)
    state = head.reference_state_dict()
    drawn = {name: shape for name, shape in config["names"].items() if "running_" not in name and "num_" not in name}
    head.load_reference(state | oracle_fill(drawn, seed))
    levels = enumerate(zip(dims, sizes, strict=True))
    features = [draw_on(device, seed, 100 + k, (1, 3 * dim, s, s)) for k, (dim, s) in levels]
    text = draw_on(device, seed, 200, (1, config["text_tokens"], 768))
    labels = torch.from_numpy(np.random.default_rng([seed, 300]).random((1, 256, 256)) < 0.3).to(device)
    yield SimpleNamespace(
        config=config, want=want, head=head.to(device), features=features, text=text, labels=labels, drawn=drawn
    )
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.fixture(scope="module")
def evaluated(oracle):
    """The head's scores (1, 2, 256, 256)."""
    with torch.inference_mode():
        return oracle.head.eval()(oracle.features, oracle.text).cpu()


@pytest.fixture(scope="module")
def step(oracle):
    """The scores of a copy of the head in one training step, the loss, and the norms of the gradients by name."""
    head = copy.deepcopy(oracle.head).train()
    scores = head(oracle.features, oracle.text)
    loss = segmentation_loss(scores, oracle.labels)
    loss.backward()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter.grad)
    named = head.reference_state_dict()
    return scores.detach().cpu(), float(loss.detach()), {name: float(named[name].norm()) for name in oracle.drawn}


@cases()
def test_names_shapes_and_parameter_count_are_those_of_the_authors_network(oracle):
    config, head = oracle.config, oracle.head
    assert {name: list(value.shape) for name, value in head.reference_state_dict().items()} == config["names"]
    assert sum(p.numel() for p in head.parameters()) == config["params"]


def assert_scores(got: torch.Tensor, want: dict, mode: str) -> None:
    got, values = got.flatten().double(), want[f"{mode}/values"]
    at = np.linspace(0, len(got) - 1, len(values)).astype(np.int64)
    assert np.abs(got[at].numpy() - values).max() < 1e-4 * np.abs(values).max()
    assert float((got.mean() - want[f"{mode}/meanstd"][0]).abs()) < 1e-4
    assert float(got.std()) == pytest.approx(want[f"{mode}/meanstd"][1], rel=1e-4)


@cases()
def test_forward_is_within_1e_4_of_the_authors_network(oracle, evaluated):
    assert_scores(evaluated, oracle.want, "eval")


@cases("monuseg")
def test_a_training_step_is_within_1e_4_of_the_authors_network_and_its_gradients_within_1e_3(oracle, step):
    scores, loss, gradients = step
    assert_scores(scores, oracle.want, "train")
    assert loss == pytest.approx(oracle.want["train/loss_softmax_dice"], rel=1e-5)
    assert len(gradients) == sum(name.startswith("grad_norm/") for name in oracle.want)
    for name, norm in gradients.items():
        # Batch norm cancels the biases before it: their gradients are rounding errors.
        assert norm == pytest.approx(oracle.want[f"grad_norm/{name}"], rel=1e-3, abs=1e-5), name


@cases()
def test_the_definition_is_within_1e_4_of_the_authors_network(oracle, evaluated):
    """On a corner of the image, as the plain form takes ten times as long."""
    head, values, side = copy.copy(oracle.head).eval(), oracle.want["eval/values"], 64
    head.image_size = side
    with torch.inference_mode():
        corner = head.plain([x[:, :, : x.shape[2] // 4, : x.shape[3] // 4] for x in oracle.features], oracle.text)
    channel, y, x = np.unravel_index(
        np.linspace(0, evaluated.numel() - 1, len(values)).astype(np.int64), evaluated.shape[1:]
    )
    # Beyond this, the interpolation of the coarsest level and the convolutions feel the border of the corner.
    seen = np.maximum(y, x) < side - 256 // min(oracle.config["native_sizes"])
    assert seen.sum() > 100
    got = corner[0].cpu().numpy()[channel[seen], y[seen], x[seen]]
    assert np.abs(got - values[seen]).max() < 1e-4 * np.abs(values).max()


@cases()
def test_losses_are_those_of_the_authors_training_script(oracle, evaluated):
    want, logits, labels = oracle.want, evaluated.clone(), oracle.labels.cpu()
    cross_entropy = segmentation_loss(logits, labels, dice_weight=0)
    assert float(cross_entropy) == pytest.approx(want["eval/ce"], rel=1e-5)
    assert float(soft_dice_loss(logits, labels)) == pytest.approx(want["eval/dice_raw_logits"], rel=1e-5)
    assert float(soft_dice_loss(logits.softmax(1), labels)) == pytest.approx(want["eval/dice_softmax"], rel=1e-5)
