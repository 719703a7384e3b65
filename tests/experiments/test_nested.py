"""The nested bootstrap against a loop written out, against closed forms, and against the plain bootstrap."""

import numpy as np
import pytest

from textdiff.experiments.nested_bootstrap import Estimate, nested_bootstrap
from textdiff.metrics.intervals import bootstrap_mean


def written_out(draws, resamples, seed):
    """The same resampling as loops over draws, seeds and images, with numbers of its own."""
    rng = np.random.default_rng(seed)
    n = draws[0].shape[1]
    means = []
    for _ in range(resamples):
        images = rng.integers(n, size=n)
        taken = []
        for _ in range(max(1, len(draws) - 1)):
            draw = draws[rng.integers(len(draws))]
            seeds = [draw[rng.integers(len(draw))] for _ in range(len(draw))]
            taken.append(np.mean([values[images].mean() for values in seeds]))
        means.append(np.mean(taken))
    return np.array(means)


@pytest.mark.parametrize("seeds", [(3, 3, 3, 3, 3), (2, 3, 1), (1, 1)])
def test_intervals_are_those_of_the_loops_written_out(seeds):
    rng = np.random.default_rng(1)
    image = rng.normal(0, 0.05, 14)
    draws = [
        0.7 + rng.normal(0, 0.03) + image + rng.normal(0, 0.02, (s, 1)) + rng.normal(0, 0.02, (s, 14)) for s in seeds
    ]
    found = nested_bootstrap(draws, resamples=20_000)
    means = written_out(draws, 6000, seed=2)
    spread = means.std()
    assert found.mean == pytest.approx(np.mean([draw.mean() for draw in draws]))
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.12 * spread)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.12 * spread)
    assert (found.draws, found.runs, found.images) == (len(seeds), sum(seeds), 14)


def test_variance_between_draws_is_unbiased():
    # One image and one seed: the replicates are means of D - 1 of D numbers, whose variance is s^2 / D exactly.
    values = np.random.default_rng(3).normal(size=6)
    found = nested_bootstrap([np.array([[value]]) for value in values], resamples=200_000, level=0.6826895)
    assert (found.high - found.low) / 2 == pytest.approx(values.std(ddof=1) / np.sqrt(6), rel=0.08)


def test_one_run_is_the_bootstrap_over_images():
    scores = np.random.default_rng(4).beta(5, 2, size=30)
    ours, plain = nested_bootstrap([scores[None]], resamples=100_000), bootstrap_mean(scores, resamples=100_000)
    assert ours[:3] == pytest.approx(plain[:3], abs=5e-4)


def test_images_are_paired_over_runs():
    # What all runs share with the image does not average out over runs: the interval stays that of one run.
    image = np.random.default_rng(5).normal(size=20)
    one, many = nested_bootstrap([image[None]]), nested_bootstrap([np.stack([image] * 3)] * 5)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.05)


def test_images_of_a_group_are_taken_together():
    draws = list(np.random.default_rng(8).random((3, 2, 7)))
    groups = [f"p{i // 3}" for i in range(21)]
    alike = nested_bootstrap([np.repeat(draw, 3, axis=1) for draw in draws], groups=groups)
    assert alike[:3] == pytest.approx(nested_bootstrap(draws)[:3])
    assert alike.images == 21
    unlike = np.random.default_rng(9).random((1, 4))
    one, loop = (
        nested_bootstrap([unlike], groups=["a", "a", "a", ""]),
        bootstrap_mean(unlike[0], groups=["a"] * 3 + [""]),
    )
    assert one[:3] == pytest.approx(loop[:3], abs=2e-3)


def test_a_constant_difference_has_no_spread_whatever_the_images():
    image = np.random.default_rng(6).normal(size=12)
    full, other = np.stack([image + 0.1] * 2), np.stack([image] * 2)
    found = nested_bootstrap([full - other] * 3)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    assert found.verdict == "higher"


def test_the_same_values_give_the_same_interval():
    draws = list(np.random.default_rng(7).random((4, 2, 9)))
    assert nested_bootstrap(draws) == nested_bootstrap(draws)
    assert nested_bootstrap(draws) != nested_bootstrap(draws, seed=1)


def test_one_image_of_one_run_has_no_interval():
    assert nested_bootstrap([np.array([[0.5]])]) == Estimate(0.5, None, None, 1, 1, 1)
    assert nested_bootstrap([np.array([[0.5, 0.5]])], groups=["a", "a"]) == Estimate(0.5, None, None, 1, 1, 2)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.1, 0.2, "no difference seen"), (0.0, 0.2, "no difference seen"), (0.01, 0.2, "higher"), (-0.2, -0.1, "lower")],
)
def test_an_interval_that_holds_zero_shows_no_difference(low, high, verdict):
    assert Estimate((low + high) / 2, low, high, 2, 2, 2).verdict == verdict


@pytest.mark.parametrize(
    "draws", [[], [np.zeros((2, 0))], [np.zeros((1, 3)), np.zeros((1, 4))], [np.full((1, 2), np.nan)]]
)
def test_nothing_to_average_is_refused(draws):
    with pytest.raises(ValueError, match=r"shapes|NaN"):
        nested_bootstrap(draws)
