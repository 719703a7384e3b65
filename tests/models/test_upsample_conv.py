import pytest
import torch
import torch.nn.functional as F

from textdiff.models.networks.kernels.upsample_conv import conv_upsampled

SIZES = {
    "powers of two": ([(4, 4), (8, 8), (16, 16), (32, 32)], (32, 32)),
    "odd ratios": ([(5, 7), (9, 11)], (23, 37)),
    "single pixels": ([(1, 1), (1, 9), (9, 1)], (20, 18)),
    "close to the output": ([(30, 31), (32, 32)], (33, 32)),
    "larger in one or both directions": ([(40, 5), (4, 50), (40, 40)], (16, 24)),
    "tiny output": ([(1, 1), (2, 1)], (2, 2)),
}


def example(case, dtype=torch.float64):
    natives, size = SIZES[case]
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, *native, 3 + k, dtype=dtype, generator=generator) for k, native in enumerate(natives)]
    weights = [torch.randn(6, x.shape[-1], 3, 3, dtype=dtype, generator=generator) for x in levels]
    return levels, weights, torch.randn(6, dtype=dtype, generator=generator), size


def reference(levels, weights, bias, size):
    maps = [F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear") for x in levels]
    return F.conv2d(torch.cat(maps, 1), torch.cat(weights, 1), bias, padding=1)


@pytest.mark.parametrize("case", SIZES)
def test_equals_upsampling_then_convolving_borders_included(case):
    levels, weights, bias, size = example(case)
    got = conv_upsampled(levels, weights, bias, size)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, reference(levels, weights, bias, size), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", SIZES)
def test_gradients_equal_those_of_upsampling_then_convolving(case):
    levels, weights, bias, size = example(case)
    gradients = []
    for compute in (conv_upsampled, reference):
        inputs = [x.clone().requires_grad_() for x in (*levels, *weights, bias)]
        n = len(levels)
        loss = compute(inputs[:n], inputs[n : 2 * n], inputs[-1], size).sin().sum()
        gradients.append(torch.autograd.grad(loss, inputs))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_sums_stay_in_float32_under_autocast():
    levels, weights, bias, size = example("powers of two", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = conv_upsampled([x.bfloat16() for x in levels], weights, bias, size)
    assert got.dtype == torch.float32
    want = reference(levels, weights, bias, size)
    assert float((got - want).norm() / want.norm()) < 0.01
