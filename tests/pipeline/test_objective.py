"""The training objective and the sampler against independent derivations."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import nn

from textdiff.models.backbones.corruption import Masks, alphas_cumprod, betas
from textdiff.pipeline.pretraining import diffusion_loss
from textdiff.pipeline.pretraining.diffusion_loss import Posterior, training_loss
from textdiff.pipeline.pretraining.objective import Unmasking, denoise, ssim
from textdiff.pipeline.pretraining.result import contact_sheet


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    return Posterior.linear()


@pytest.mark.parametrize("t", [1, 50, 500, 999])
def test_posterior_is_the_product_of_the_two_gaussians_of_bayes_rule(posterior, t):
    x0, x_t = 0.3, -1.1
    beta, before = betas()[t], alphas_cumprod()[t - 1]
    # q(x_t | x_{t-1}) as a function of x_{t-1}, and q(x_{t-1} | x_0): precisions add, means are weighed by them.
    likelihood, prior = (1 - beta) / beta, 1 / (1 - before)
    precision = likelihood + prior
    mean = (likelihood * x_t / math.sqrt(1 - beta) + prior * math.sqrt(before) * x0) / precision
    steps = torch.tensor([t])
    ours = posterior.mean(torch.full((1, 1, 1, 1), x0), torch.full((1, 1, 1, 1), x_t), steps)
    assert ours.item() == pytest.approx(mean, rel=1e-5)
    assert posterior.log_variance[t].item() == pytest.approx(-math.log(precision), rel=1e-5)


def test_learned_variance_runs_from_the_posteriors_to_beta(posterior):
    t = torch.tensor([0, 3, 700])
    v = torch.ones(3, 1, 1, 1)
    assert torch.equal(posterior.learned_log_variance(-v, t).flatten(), posterior.log_variance[t])
    assert torch.equal(posterior.learned_log_variance(v, t).flatten(), posterior.log_beta[t])


def test_predicting_the_true_noise_gives_the_image_back(posterior):
    x0, noise, t = torch.rand(2, 3, 4, 4) * 2 - 1, torch.randn(2, 3, 4, 4), torch.tensor([5, 300])
    x_t = posterior.noised(x0, t, noise)
    torch.testing.assert_close(posterior.x0(x_t, t, noise), x0, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [1, 20, 800])
def test_vlb_term_is_the_divergence_that_torch_distributions_computes(posterior, t):
    torch.manual_seed(t)
    x0, noise, eps = torch.rand(1, 3, 4, 4) * 2 - 1, torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    v, steps = torch.rand(1, 3, 4, 4) * 2 - 1, torch.tensor([t])
    x_t = posterior.noised(x0, steps, noise)
    true = torch.distributions.Normal(posterior.mean(x0, x_t, steps), (posterior.log_variance[t] / 2).exp())
    guess = posterior.mean(posterior.x0(x_t, steps, eps), x_t, steps)
    model = torch.distributions.Normal(guess, (posterior.learned_log_variance(v, steps) / 2).exp())
    expected = torch.distributions.kl_divergence(true, model).mean() / math.log(2)
    torch.testing.assert_close(
        diffusion_loss.vlb_term(eps, v, x0, x_t, steps, posterior), expected[None], rtol=2e-4, atol=1e-6
    )


@pytest.mark.parametrize("mean", [-1.0, 0.2, 0.999])
def test_probabilities_of_all_256_levels_sum_to_one(mean):
    levels = (torch.arange(256) / 127.5 - 1)[:, None, None, None]
    log_p = diffusion_loss.discrete_log_likelihood(levels, torch.tensor(mean), torch.tensor(-3.0))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_vlb_at_step_zero_is_the_likelihood_in_bits(posterior):
    x0 = torch.full((1, 3, 2, 2), 100 / 127.5 - 1)
    noise, t = torch.randn(1, 3, 2, 2), torch.tensor([0])
    x_t = posterior.noised(x0, t, noise)
    bits = diffusion_loss.vlb_term(noise, torch.zeros(1, 3, 2, 2), x0, x_t, t, posterior)
    scale = ((posterior.log_beta[0] + posterior.log_variance[0]) / 4).exp().item()
    normal = torch.distributions.Normal(x0[0, 0, 0, 0].item(), scale)
    inside = normal.cdf(x0[0, 0, 0, 0] + 1 / 255) - normal.cdf(x0[0, 0, 0, 0] - 1 / 255)
    assert bits.item() == pytest.approx(-math.log2(inside), rel=1e-3)


def test_hybrid_loss_adds_the_vlb_whose_gradient_reaches_only_the_variance(posterior):
    torch.manual_seed(0)
    x0, noise, t = torch.rand(2, 3, 4, 4) * 2 - 1, torch.randn(2, 3, 4, 4), torch.tensor([0, 200])
    x_t = posterior.noised(x0, t, noise)
    out = torch.randn(2, 6, 4, 4, requires_grad=True)
    gradients = {}
    for loss in ("mse", "hybrid"):
        (gradients[loss],) = torch.autograd.grad(training_loss(out, x0, x_t, t, noise, posterior, loss).sum(), out)
    assert torch.equal(gradients["mse"][:, :3], gradients["hybrid"][:, :3])
    assert not gradients["mse"][:, 3:].any()
    assert gradients["hybrid"][:, 3:].any()
    simple, hybrid = (training_loss(out, x0, x_t, t, noise, posterior, loss) for loss in ("mse", "hybrid"))
    vlb = diffusion_loss.vlb_term(out[:, :3], out[:, 3:], x0, x_t, t, posterior)
    torch.testing.assert_close(hybrid - simple, 0.001 * 1000 * vlb, rtol=1e-4, atol=1e-4)


class KnowsGaussian(nn.Module):
    """The ideal denoiser of pixels drawn from a Gaussian of the given mean and spread."""

    def __init__(self, mean: float, spread: float) -> None:
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, x, t):
        kept = torch.from_numpy(alphas_cumprod())[t].float()[:, None, None, None]
        variance = kept * self.spread**2 + 1 - kept
        return (1 - kept).sqrt() * (x - kept.sqrt() * self.mean) / variance


def test_samples_of_the_ideal_denoiser_have_the_datas_distribution():
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    samples = denoise(KnowsGaussian(0.2, 0.15), x, 999, steps=1000)
    assert samples.mean().item() == pytest.approx(0.2, abs=0.01)
    assert samples.std().item() == pytest.approx(0.15, abs=0.01)


def test_denoising_starts_from_any_step_and_visits_no_more_than_allowed():
    visited = []

    class Watch(KnowsGaussian):
        def forward(self, x, t):
            visited.append(int(t[0]))
            return super().forward(x, t)

    denoise(Watch(0, 0.5), torch.randn(1, 3, 4, 4), 399, steps=20)
    assert len(visited) == 20
    assert (visited[0], visited[-1]) == (399, 0)
    visited.clear()
    denoise(Watch(0, 0.5), torch.randn(1, 3, 4, 4), 3, steps=20)
    assert visited == [3, 2, 1, 0]


def test_contact_sheet_shows_every_picture_in_its_place(tmp_path):
    rows = [torch.full((2, 3, 8, 8), -1.0), torch.full((2, 3, 8, 8), 0.0)]
    contact_sheet(rows, tmp_path / "sheet.png", gap=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (22, 22, 3)
    assert (sheet[2:10, 12:20] == 0).all()
    assert (abs(sheet[12:20, 2:10].astype(int) - 128) <= 1).all()
    assert (sheet[10:12] == 255).all()


@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
def test_structural_similarity_is_that_of_scikit_image(spread):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 3, 24, 32))
    y = 0.7 * x + spread * rng.standard_normal(x.shape)
    usual = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # Wang et al.'s own choices
    expected = [structural_similarity(a, b, data_range=2, channel_axis=0, **usual) for a, b in zip(x, y, strict=True)]
    assert ssim(torch.from_numpy(x), torch.from_numpy(y)).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("t", [0, 1, 50, 500, 999])
def test_as_many_patches_are_masked_as_the_step_says_and_the_rest_is_left_alone(t):
    x0 = torch.rand(2, 3, 64, 96) + 1
    order = torch.from_numpy(np.stack([Masks().draw(96, np.random.default_rng(seed)) for seed in range(2)]))
    seen = Masks().apply(x0, torch.tensor([t, t]), order)
    whole = seen.eq(x0).unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).all(4)
    gone = seen.eq(0).unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).all(4)
    assert (whole ^ gone).all()
    assert (gone == gone[:, :1]).all()
    square = torch.from_numpy(Masks().draw(128, np.random.default_rng(0)))[None]
    masked = Masks().apply(torch.ones(1, 1, 128, 128), torch.tensor([t]), square).eq(0).float().mean()
    assert abs(float(masked) - t / 1000) <= 0.5 / 256 + 1e-6


def test_what_is_masked_at_a_step_is_masked_at_every_later_one():
    shared = Masks().shared(64, 3)
    parts = [Masks().apply(torch.ones(1, 3, 64, 64), torch.tensor([t]), shared) for t in (0, 50, 400, 900)]
    assert parts[0].all()
    for before, after in pairwise(parts):
        assert (after <= before).all()
        assert (after < before).any()


def test_masked_patches_are_judged_by_structure_and_by_colour():
    x0 = torch.rand(1, 3, 32, 32) * 2 - 1
    objective = Unmasking()
    more = torch.zeros(1, 3, 32, 32)  # of a network that began as a denoiser
    assert objective.loss(torch.cat([x0, more], 1), x0, x0, torch.tensor([3]), more).item() == pytest.approx(
        0, abs=1e-5
    )
    paler = objective.error(0.5 * x0, x0, more) - (1 - ssim(0.5 * x0, x0))
    assert paler.item() == pytest.approx(0.5 * x0.abs().mean().item(), rel=1e-5)
