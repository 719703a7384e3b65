"""The forward process against the reference's numbers and its own definition."""

import numpy as np
import pytest
import torch

from textdiff.models.backbones import corruption as diffusion
from textdiff.models.backbones.base import Noised

NOISE = diffusion.Noise()


@pytest.mark.parametrize("name", ["betas", "alphas_cumprod"])
def test_linear_schedule_equals_the_reference_exactly(oracles, name):
    ours = getattr(diffusion, name)()
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, np.load(oracles / "diffusion_linear_1000.npz")[name])


def test_every_image_is_noised_to_its_own_timestep():
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(3, 3, 4, 4, generator=g), torch.randn(1, 3, 4, 4, generator=g)
    steps = [0, 250, 999]
    noised = NOISE.apply(x0, torch.tensor(steps), noise)
    assert noised.dtype == torch.float32
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for i, t in enumerate(steps):
        expected = np.sqrt(kept[t]) * x0[i].double().numpy() + np.sqrt(1 - kept[t]) * noise[0].double().numpy()
        np.testing.assert_allclose(noised[i].numpy(), expected, rtol=0, atol=1e-6)


def test_one_image_is_noised_to_as_many_copies_as_there_are_timesteps():
    x0, noise = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    noised = NOISE.apply(x0, torch.tensor([50, 150, 250]), noise)
    assert noised.shape == (3, 3, 2, 2)
    assert noised[0, 0, 0, 0] > noised[1, 0, 0, 0] > noised[2, 0, 0, 0]


def test_shared_noise_is_fixed_by_its_seed_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = NOISE.shared(16, 7)
    torch.rand(5)
    assert first.shape == (1, 3, 16, 16)
    assert first.device.type == "cpu"
    assert torch.equal(first, NOISE.shared(16, 7))
    assert not torch.equal(first, NOISE.shared(16, 8))


def test_shared_noise_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    NOISE.shared(16, 0)
    assert torch.equal(torch.rand(4), expected)


def test_shared_noise_is_standard_normal():
    noise = NOISE.shared(256, 0)
    assert noise.shape == (1, 3, 256, 256)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


class Seen(Noised):
    """A backbone whose only level is what it is shown."""

    def levels(self, image_size):
        return {0: (3, image_size, image_size)}

    def activations(self, x, t, levels):
        return {0: x}


@pytest.mark.parametrize(("colour", "order"), [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])])
def test_a_noised_backbone_sees_images_in_minus_one_to_one_in_the_order_asked_for(colour, order):
    backbone = Seen()
    backbone.prepare(1, 7, colour)
    image, t = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1), torch.tensor([250])
    scaled = torch.tensor([-1, -0.6, 1])[order].reshape(1, 3, 1, 1)
    expected = NOISE.apply(scaled, t, NOISE.shared(1, 7))
    torch.testing.assert_close(backbone.features(image, t, [""], [0])[0], expected)


def test_another_order_of_colours_is_refused():
    with pytest.raises(ValueError, match="hsv"):
        Seen().prepare(1, 0, "hsv")
