"""What a GPU is given, a batch and a convolution's taps at once, is what the definition computes: tried on the CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from textdiff.models.networks.head import VARIANTS, Head
from textdiff.models.networks.kernels import levels, pointwise
from textdiff.models.networks.kernels.upsample_conv import conv_upsampled, upsample
from textdiff.models.networks.norms import ImageNorm
from textdiff.models.networks.segmenter import Window


@pytest.fixture(autouse=True)
def large(monkeypatch):
    monkeypatch.setattr(pointwise, "LARGE", ("cpu", "cuda"))


def example(variant="full", tokens=5, standardise=False, device="cpu"):
    torch.manual_seed(0)
    options = {"heads": 2, "head_dim": 4, "variant": variant, "classes": 3, "standardise": standardise}
    head = Head((4, 4, 5), 2, 7, width=8, image_size=24, **options).double()
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    features = [torch.randn(3, 2 * c, s, s, dtype=torch.float64) for c, s in ((4, 3), (4, 12), (5, 24))]
    mask = torch.arange(tokens) < torch.tensor([[tokens], [2], [0]])
    text = torch.randn(3, tokens, 7, dtype=torch.float64)
    return head.to(device), [x.to(device) for x in features], text.to(device), mask.to(device)


def gradients(form, head, features, text, mask):
    inputs = [x.clone().requires_grad_() for x in (*features, *([] if head.variant == "no-text" else [text]))]
    head.zero_grad()
    scores = form(inputs[: len(features)], inputs[-1], mask)
    scores.sin().sum().backward()
    return [scores.detach(), *(x.grad for x in (*inputs, *head.parameters()))]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tokens", [2, 60], ids=["folded", "projected"])
def test_a_batch_at_once_has_the_scores_and_gradients_of_the_definition(variant, tokens, device):
    case = example(variant, tokens, device=device)
    torch.testing.assert_close(gradients(case[0], *case), gradients(case[0].plain, *case), rtol=1e-8, atol=1e-9)


def test_a_batch_in_pieces_changes_nothing(monkeypatch):
    case = example()
    whole = gradients(case[0], *case)
    monkeypatch.setattr(levels, "CPU_LIMITS", levels.CPU_LIMITS._replace(piece=64 * 20, keep=0))
    torch.testing.assert_close(gradients(case[0], *case), whole, rtol=1e-10, atol=1e-10)


def counted(made, product):
    return lambda *args, **options: made.append(1) or product(*args, **options)


def test_no_kernel_is_launched_per_image(monkeypatch):
    """Attention is of the batch: as many products for three images as for two."""
    head, features, text, mask = example()
    counts = []
    for images in (2, 3):
        made = []
        with monkeypatch.context() as patch:
            for module, name in ((torch, "bmm"), (torch, "baddbmm"), (F, "linear")):
                patch.setattr(module, name, counted(made, getattr(module, name)))
            head([x[:images] for x in features], text[:images], mask[:images])
        counts.append(len(made))
    assert counts[0] == counts[1]


def test_a_window_has_the_scores_of_the_whole():
    head, features, text, mask = example(standardise=True)
    head.eval()
    whole = head(features, text, mask)
    part = head(features, text, mask, Window(8, 0, 8))
    torch.testing.assert_close(part, whole[:, :, 8:16, :8], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("natives", [[(4, 4), (8, 8), (32, 32)], [(5, 7), (1, 9)], [(40, 5), (30, 31)]])
def test_all_taps_at_once_equal_upsampling_then_convolving(natives, device):
    draw = torch.Generator().manual_seed(0)
    levels_ = [torch.randn(2, *native, 3, dtype=torch.float64, generator=draw) for native in natives]
    weights = [torch.randn(6, 3, 3, 3, dtype=torch.float64, generator=draw) for _ in natives]
    bias, size, found = torch.randn(6, dtype=torch.float64, generator=draw), (32, 32), []

    def reference(levels_, weights, bias, size):
        maps = [F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear") for x in levels_]
        return F.conv2d(torch.cat(maps, 1), torch.cat(weights, 1), bias, padding=1)

    for compute in (conv_upsampled, reference):
        inputs = [x.to(device, copy=True).requires_grad_() for x in (*levels_, *weights, bias)]
        n = len(natives)
        scores = compute(inputs[:n], inputs[n : 2 * n], inputs[-1], size)
        found.append([scores.detach(), *torch.autograd.grad(scores.sin().sum(), inputs)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(14, 18), (4, 5)])
def test_upsampling_by_products_is_interpolation_gradient_included(corners, size):
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    found = []
    for compute in (upsample, lambda x, size, corners: F.interpolate(x, size, mode="bilinear", align_corners=corners)):
        own = x.clone().requires_grad_()
        y = compute(own, size, corners)
        found.append((y.detach(), *torch.autograd.grad(y.sin().sum(), own)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_image_normalisation_of_a_batch_is_that_of_each_image():
    norm = ImageNorm(4).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(norm(x), torch.cat([norm(x[i : i + 1]) for i in range(3)]), rtol=1e-10, atol=1e-10)
