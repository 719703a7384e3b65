import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from textdiff.models.networks.kernels.attention import (
    cross_attention,
    folded,
    folded_cost,
    projected,
    projected_cost,
)
from textdiff.models.networks.textdiff import CrossAttention

FORMS = {
    "folded": folded,
    "projected": projected,
    "definition": lambda attention, text, mask: (
        lambda x: attention(x[None], text[None], None if mask is None else mask[None])[0]
    ),
}


def make(width=24, text_dim=10, heads=4, head_dim=6):
    torch.manual_seed(0)
    attention = CrossAttention(width, text_dim, heads, head_dim).double()
    for parameter in attention.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return attention


def reference(attention, x, text, mask):
    """One pixel and one head at a time."""
    a, head_dim = attention, attention.key.out_features // attention.heads
    results = []
    for pixel in a.norm_in(x):
        heads = []
        for h in range(a.heads):
            own = slice(h * head_dim, (h + 1) * head_dim)
            q, k, v = a.query.weight[own] @ pixel, text @ a.key.weight[own].T, text @ a.value.weight[own].T
            scores = (k @ q) / head_dim**0.5
            weights = scores[mask].softmax(0)
            heads.append(weights @ v[mask])
        results.append(a.norm_out(a.output(torch.cat(heads))))
    return x + torch.stack(results)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 2, 10, 100, 512])
def test_each_form_equals_the_formula(form, tokens):
    attention = make()
    x, text = torch.randn(37, 24, dtype=torch.float64), torch.randn(tokens, 10, dtype=torch.float64)
    mask = torch.arange(tokens) % 3 != 1
    got = FORMS[form](attention, text, mask)(x)
    torch.testing.assert_close(got, reference(attention, x, text, mask), rtol=1e-9, atol=1e-9)
    everything = torch.ones(tokens, dtype=torch.bool)
    got = FORMS[form](attention, text, None)(x)
    torch.testing.assert_close(got, reference(attention, x, text, everything), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_each_form_equal_the_formulas(form):
    attention = make()
    x, text = torch.randn(32, 24, dtype=torch.float64), torch.randn(7, 10, dtype=torch.float64)
    mask = torch.tensor([True, True, False, True, False, True, True])
    gradients = []
    for compute in (
        lambda x, text: FORMS[form](attention, text, mask)(x),
        lambda *a: reference(attention, *a, mask),
    ):
        inputs = [x.clone().requires_grad_(), text.clone().requires_grad_()]
        loss = compute(*inputs).sin().sum()
        gradients.append(torch.autograd.grad(loss, [*inputs, *attention.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_of_nothing_but_padding_attends_to_nothing(form):
    attention = make()
    x, text = torch.randn(32, 24, dtype=torch.float64), torch.randn(7, 10, dtype=torch.float64)
    got = FORMS[form](attention, text, torch.zeros(7, dtype=torch.bool))(x)
    torch.testing.assert_close(got, x + attention.norm_out(attention.output.bias), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_scores_far_apart_and_far_from_zero_stay_finite(form):
    attention = make().float()
    attention.key.weight.data *= 1e4
    x, text = torch.randn(32, 24), torch.randn(7, 10)
    mask = torch.arange(7) < 6
    got = FORMS[form](attention, text, mask)(x)
    assert got.isfinite().all()
    torch.testing.assert_close(got, reference(attention, x, text, mask), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("sizes", "tokens", "form"),
    [
        ((768, 768, 8, 64), 10, "folded"),
        ((768, 768, 8, 64), 40, "folded"),
        ((768, 768, 8, 64), 100, "projected"),
        ((768, 768, 8, 64), 512, "projected"),
        ((96, 384, 8, 8), 2, "folded"),
        ((96, 384, 8, 8), 20, "projected"),
    ],
)
def test_the_form_with_fewer_multiplications_is_chosen_and_its_cost_is_as_counted(sizes, tokens, form):
    attention = CrossAttention(*sizes).to("meta")
    pixels, (width, text_dim, heads, head_dim) = 4096, sizes
    costs = {"folded": folded_cost(attention, tokens, pixels), "projected": projected_cost(attention, tokens, pixels)}
    assert form == min(costs, key=costs.get)
    with FlopCounterMode(display=False) as counter:
        attend = cross_attention(attention, torch.empty(tokens, text_dim, device="meta"), None, pixels)
        attend(torch.empty(pixels, width, device="meta"))
    projections = 2 * tokens * text_dim * heads * head_dim
    assert counter.get_total_flops() == 2 * (costs[form] + projections)


def test_softmax_is_taken_in_float32_under_autocast(monkeypatch):
    taken = []
    softmax = torch.Tensor.softmax

    def spy(self, *args, **kwargs):
        taken.append(self.dtype)
        return softmax(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "softmax", spy)
    attention = make().float()
    x, text = torch.randn(32, 24).bfloat16(), torch.randn(7, 10)
    for form in (folded, projected):
        with torch.autocast("cpu", torch.bfloat16):
            got = form(attention, text, None)(x)
        assert got.dtype == torch.bfloat16
        want = reference(attention, x.float(), text, torch.ones(7, dtype=torch.bool))
        assert float(((got.float() - want).norm() / want.norm()).detach()) < 0.02
        assert F.cosine_similarity((got - x).float().flatten(), (want - x.float()).flatten(), dim=0) > 0.999
    assert taken[0] == taken[1 + 4 * 32] == torch.float32
