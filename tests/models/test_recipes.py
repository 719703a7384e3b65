"""How a network is trained by default."""

import math

import numpy as np
import pytest
import torch

from textdiff.errors import UserError
from textdiff.models.networks.head import Head
from textdiff.models.networks.models import get_recipe
from textdiff.models.networks.textdiff import standardised
from textdiff.pipeline.training.schedules import learning_rate


def test_reference_recipe_is_the_papers():
    recipe = get_recipe("textdiff", "default")
    assert (recipe.learning_rate, recipe.decay_epoch, recipe.batch_size, recipe.select) == (1e-4, 60, 1, "best")
    assert (recipe.hidden, recipe.standardise, recipe.schedule) == ((128, 32), False, "step")


def test_an_unknown_recipe_is_refused_by_name():
    with pytest.raises(UserError, match="--recipe quick: not for --model textdiff; use default or fair"):
        get_recipe("textdiff", "quick")


@pytest.mark.parametrize("epoch", [0, 7, 39])
def test_schedules_follow_their_formulas(epoch):
    options = {"learning_rate": 2e-3, "epochs": 40, "decay_epoch": 7}
    assert learning_rate(options | {"schedule": "step"}, epoch) == pytest.approx(2e-4 if epoch >= 7 else 2e-3)
    cosine = 1e-3 * (1 + math.cos(math.pi * epoch / 40))
    assert learning_rate(options | {"schedule": "cosine"}, epoch) == pytest.approx(cosine)


def test_standardised_channels_have_mean_0_and_deviation_1_and_constant_ones_are_0():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64) * 5 + 3
    x[1, 2] = 7
    y = standardised(x).double().numpy()
    expected = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), correction=0, keepdim=True).clamp(min=1e-3)
    assert np.allclose(y, expected.numpy(), atol=1e-4)
    assert not y[1, 2].any()


def test_a_standardising_head_does_not_see_gain_and_offset_of_a_channel():
    torch.manual_seed(0)
    head = Head([4, 2], 2, 8, width=8, image_size=16, variant="no-text", standardise=True).eval()
    levels = [torch.randn(1, 8, 4, 4), torch.randn(1, 4, 16, 16)]
    with torch.inference_mode():
        same = head([3 * levels[0] + 2, levels[1] * 0.5 - 1], None)
        assert torch.allclose(head(levels, None), same, atol=1e-4)
        other = Head(**(head.config | {"standardise": False})).eval()
        other.load_state_dict(head.state_dict())
        assert not torch.allclose(other(levels, None), other([3 * levels[0] + 2, levels[1] * 0.5 - 1], None), atol=1e-2)
