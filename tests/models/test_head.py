"""The paper's head: its fast forms equal the plain one, and it costs and refuses what it should."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from textdiff.errors import UserError
from textdiff.models.networks.head import VARIANTS, Head
from textdiff.models.networks.kernels import levels
from textdiff.models.networks.segmenter import Window
from textdiff.models.networks.textdiff import placed

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER = {
    "monuseg": ((512, 512, 256, 256), (32, 64, 128, 256)),
    "qata": ((1024, 512, 512, 256), (16, 32, 64, 128)),
}
COUNTS = {
    ("full", "monuseg"): 9_683_234,
    ("full", "qata"): 10_862_882,
    ("no-text", "monuseg"): 5_937_698,
    ("no-text", "qata"): 7_117_346,
    ("concat", "monuseg"): 9_476_642,
    ("concat", "qata"): 10_656_290,
}


@pytest.mark.parametrize(("variant", "dataset"), COUNTS)
def test_documented_parameter_counts(variant, dataset):
    with torch.device("meta"):
        head = Head(PAPER[dataset][0], steps=3, text_dim=768, variant=variant)
    count = sum(p.numel() for p in head.parameters())
    assert count == COUNTS[variant, dataset]
    assert f"{count:,}" in Head.__doc__


@pytest.mark.parametrize(("dataset", "limit", "plain"), [("monuseg", 330, 861), ("qata", 100, 577)])
def test_a_forward_pass_needs_a_fraction_of_the_plain_flops(dataset, limit, plain):
    dims, sizes = PAPER[dataset]
    measured = {}
    with torch.device("meta"):
        features = [torch.empty(1, 3 * dim, s, s) for dim, s in zip(dims, sizes, strict=True)]
        head = Head(dims, steps=3, text_dim=768)
        for form in (head.forward, head.plain):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                form(features, torch.empty(1, 10, 768))
            measured[form] = counter.get_total_flops() / 1e9
    assert measured[head.forward] <= limit
    assert measured[head.plain] == pytest.approx(plain, rel=0.005)


# dims, steps, text_dim, width, image size, heads, head_dim, native sizes, batch, tokens
CASES = {
    "one level, native size, one token": ((4,), 2, 6, 12, 16, 2, 4, [(16, 16)], 1, 1),
    "odd sizes, long text, batch 3": ((4, 4, 5, 6), 3, 10, 15, 24, 2, 4, [(3, 5), (7, 6), (11, 12), (24, 24)], 3, 100),
    "no level at image size": ((8, 4, 4), 3, 7, 12, 20, 3, 8, [(2, 2), (5, 5), (10, 10)], 2, 10),
    "larger than the image": ((4, 2), 3, 8, 12, 12, 2, 4, [(16, 20), (9, 24)], 2, 10),
    "a single pixel, first level unprojected": ((4, 6, 5), 3, 8, 12, 18, 2, 6, [(1, 1), (6, 6), (18, 18)], 2, 3),
    "pieces of several kinds": ((2, 2), 3, 8, 6, 32, 2, 4, [(8, 8), (32, 32)], 2, 10),
}


def example(case, variant="full", masked=True):
    """A head with random weights, in float64, and inputs; the second text, if there are several, is all padding."""
    dims, steps, text_dim, width, image_size, heads, head_dim, sizes, batch, tokens = CASES[case]
    torch.manual_seed(0)
    options = {"image_size": image_size, "heads": heads, "head_dim": head_dim, "variant": variant, "classes": 3}
    head = Head(dims, steps, text_dim, width, **options).double()
    for parameter in head.parameters():  # the initial ones and zeros of the norms would hide errors
        parameter.data += 0.1 * torch.randn_like(parameter)
    generator = torch.Generator().manual_seed(1)
    features = [
        torch.randn(batch, steps * dim, *size, dtype=torch.float64, generator=generator)
        for dim, size in zip(dims, sizes, strict=True)
    ]
    text = torch.randn(batch, tokens, text_dim, dtype=torch.float64, generator=generator)
    mask = torch.rand(batch, tokens, generator=generator) < 0.6 if masked else None
    if mask is not None:
        mask[:, 0], mask[1:2] = True, False
    return head, features, text, mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_scores_and_gradients_equal_the_plain_form(case, variant, masked):
    head, features, text, mask = example(case, variant, masked)
    results = []
    for form in (head, head.plain):
        inputs = [x.clone().requires_grad_() for x in (*features, *([] if variant == "no-text" else [text]))]
        head.zero_grad()
        scores = form(inputs[: len(features)], inputs[-1], mask)
        (scores * torch.linspace(-1, 1, scores.numel(), dtype=scores.dtype).view(scores.shape).sin()).sum().backward()
        gradients = {name: parameter.grad for name, parameter in head.named_parameters()}
        results.append((scores.detach(), [x.grad for x in inputs], gradients))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("standardise", [False, True])
def test_with_positions_a_pixel_knows_where_it_is_and_the_forms_agree(standardise):
    torch.manual_seed(0)
    options = {"image_size": 32, "heads": 2, "head_dim": 4, "norm": "image", "standardise": standardise}
    heads = [Head((4, 2), 3, 8, 12, positions=told, **options).double().eval() for told in (False, True)]
    alike = [torch.ones(1, 3 * dim, size, size, dtype=torch.float64) for dim, size in ((4, 4), (2, 32))]
    text = torch.randn(1, 5, 8, dtype=torch.float64)
    without, told = (head(alike, text) for head in heads)
    torch.testing.assert_close(told, heads[1].plain(alike, text), rtol=1e-9, atol=1e-9)
    inner = without[..., 8:24, 8:24]
    torch.testing.assert_close(inner, inner[..., :1, :1].expand_as(inner), rtol=1e-9, atol=1e-9)
    for axis in (2, 3):
        assert (told[..., 8:24, 8:24].diff(dim=axis).abs() > 1e-7).all()
    places = placed(alike[0])[0, -2:]
    assert places[0, 3].tolist() == places[1, :, 3].tolist() == [-0.75, -0.25, 0.25, 0.75]
    heads[1].norm1, heads[1].norm2 = torch.nn.Identity(), torch.nn.Identity()
    part = heads[1](alike, text, window=Window(8, 16, 16))
    torch.testing.assert_close(part, heads[1](alike, text)[..., 8:24, 16:32], rtol=1e-9, atol=1e-9)


def test_pieces_and_recomputation_change_nothing(monkeypatch):
    head, features, text, mask = example("pieces of several kinds")
    results = []
    for limits in (levels.CPU_LIMITS, levels.CPU_LIMITS._replace(piece=64 * 20, keep=0)):
        monkeypatch.setattr(levels, "CPU_LIMITS", limits)
        inputs = [x.clone().requires_grad_() for x in (*features, text)]
        head.zero_grad()
        head(inputs[:-1], inputs[-1], mask).square().sum().backward()
        results.append([x.grad for x in (*inputs, *head.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_a_batch_do_not_see_each_other_in_evaluation(variant):
    head, features, text, mask = example("odd sizes, long text, batch 3", variant)
    head.eval()
    together = head(features, text, mask)
    for i in range(len(text)):
        alone = head([x[i : i + 1] for x in features], text[i : i + 1], mask[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_with_image_normalisation_images_never_see_each_other(training):
    _, features, text, mask = example("no level at image size")
    dims, steps, text_dim, width, image_size, heads, head_dim, *_ = CASES["no level at image size"]
    options = {"image_size": image_size, "heads": heads, "head_dim": head_dim, "norm": "image"}
    head = Head(dims, steps, text_dim, width, **options).double().train(training)
    both = head(features, text, mask)
    for i in range(2):
        alone = head([x[i : i + 1] for x in features], text[i : i + 1], mask[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-9, atol=1e-9)
    assert not any("running" in name for name in head.state_dict())


def test_image_normalisation_is_what_batch_normalisation_of_one_image_trains_with():
    batch, features, text, mask = example("no level at image size")
    image = Head(**(batch.config | {"norm": "image"})).double().eval()
    image.load_state_dict({name: x for name, x in batch.state_dict().items() if name in image.state_dict()})
    one = ([x[:1] for x in features], text[:1], mask[:1])
    torch.testing.assert_close(image(*one), batch.train()(*one), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(image(*one), batch.eval()(*one), atol=1e-2)


@pytest.mark.parametrize("variant", ["full", "concat"])
def test_padding_is_without_influence(variant):
    head, features, text, mask = example("odd sizes, long text, batch 3", variant)
    head.eval()
    scores = head(features, text, mask)
    assert torch.equal(scores, head(features, text.masked_fill(~mask[..., None], 1e4), mask))
    nothing = torch.zeros_like(mask)
    silent = head(features, text, nothing)
    assert silent.isfinite().all()
    assert torch.equal(silent, head(features, -2 * text, nothing))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_bfloat16_autocast_trains_and_stays_close(variant, dtype):
    head, features, text, mask = example("no level at image size", variant)
    head, features, text = head.float(), [x.to(dtype) for x in features], text.float()
    exact = head([x.float() for x in features], text, mask)
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(features, text, mask)
    assert scores.dtype == torch.float32
    assert float(((scores - exact).norm() / exact.norm()).detach()) < 0.05
    scores.square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in head.parameters())


def test_half_precision_activations_are_taken_as_they_are():
    head, features, text, mask = example("no level at image size")
    head, half, text = head.float(), [x.half() for x in features], text.float()
    assert torch.equal(head(half, text, mask), head([x.float() for x in half], text, mask))


def test_inference_before_training_does_not_disturb_it():
    head, features, text, mask = example("odd sizes, long text, batch 3")
    with torch.inference_mode():
        before = head(features, text, mask)
    after = head(features, text, mask)
    after.sum().backward()
    assert torch.equal(before.clone(), after.detach())


def test_config_rebuilds_the_head():
    head = example("no level at image size", "concat")[0]
    again = Head(**json.loads(json.dumps(head.config)))
    assert again.config == head.config
    again.load_state_dict(head.state_dict())


def test_levels_of_one_channel_count_share_a_projection_but_for_the_first():
    head = Head((4, 4, 4, 5, 8, 5), steps=3, text_dim=8, width=24)
    assert {name: tuple(value.shape) for name, value in head.down.state_dict().items() if "weight" in name} == {
        "1.weight": (24, 12),
        "2.weight": (24, 12),
        "3.weight": (24, 15),
    }


def test_load_reference_takes_data_parallel_names():
    head = example("no level at image size")[0]
    state = {name: value.clone() for name, value in head.reference_state_dict().items()}
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    head.load_reference({f"module.{name}": value for name, value in state.items()})
    torch.testing.assert_close(head.reference_state_dict(), state, rtol=0, atol=0)


def test_load_reference_says_in_one_line_what_does_not_fit_and_changes_nothing():
    head = example("no level at image size")[0]
    before = {name: value.clone() for name, value in head.state_dict().items()}
    state = {name: value + 1 for name, value in head.reference_state_dict().items() if name != "decodes.6.bias"}
    state |= {"extra": torch.zeros(1), "decodes.0.bias": torch.zeros(64)}
    with pytest.raises(UserError) as error:
        head.load_reference(state)
    message = str(error.value)
    assert "\n" not in message
    for part in ("no decodes.6.bias", "unknown extra", "decodes.0.bias is (64,), not (128,)"):
        assert part in message
    torch.testing.assert_close(dict(head.state_dict()), before, rtol=0, atol=0)


def test_mistakes_of_a_caller_are_refused():
    head, features, text, mask = example("no level at image size")
    with pytest.raises(ValueError, match="2 levels of activations for a head of 3"):
        head(features[:2], text, mask)
    with pytest.raises(ValueError, match="needs text"):
        head(features, None)
    with pytest.raises(ValueError, match="use one of full, no-text, concat"):
        Head((4,), 3, 8, variant="zeta")
    assert example("no level at image size", "no-text")[0](features, None).shape == (2, 3, 20, 20)
