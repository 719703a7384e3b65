"""Calibration error of hand-made probabilities, temperatures that are known, the Dice that is to be expected."""

import numpy as np
import pytest
from scipy.special import softmax

from textdiff.metrics.calibration import BINS, Agreement, Reliability, chosen_limit, fitted_temperature, tempered


def of(foreground: list[float], labels: list[int], said: list[bool] | None = None) -> Reliability:
    p = np.array([[1 - value for value in foreground], foreground], np.float32)
    return Reliability.of(p, np.array(labels), np.array(said or [True] * len(labels)))


@pytest.mark.parametrize(
    ("foreground", "labels", "error"),
    [
        # Ten pixels at 0.9, nine of them right; and the same the other way round.
        ([0.9] * 10, [1] * 9 + [0], 0),
        ([0.1] * 10, [0] * 9 + [1], 0),
        # Confidence 0.8, accuracy 0.5.
        ([0.8] * 4, [1, 1, 0, 0], 0.3),
        # Two bins: half of the pixels is 0.1 too sure, half 0.2 too unsure.
        ([0.9] * 5 + [0.8] * 5, [1, 1, 1, 1, 0] + [1] * 5, (0.1 + 0.2) / 2),
        # One bin: what is too sure and too unsure by as much is not seen, as the bins' means are compared.
        ([0.95, 0.99], [1, 1], 0.03),
        ([1.0, 1.0], [1, 0], 0.5),
    ],
)
def test_error_of_hand_made_probabilities(foreground, labels, error):
    assert of(foreground, labels).error == pytest.approx(error, abs=1e-6)


def test_bins_have_equal_width_and_their_upper_ends_and_pixels_of_which_nothing_is_said_do_not_count():
    found = of([0.58, 0.61, 1.0, 0.9], [1, 1, 1, 0], [True, True, True, False])
    assert np.flatnonzero(found.pixels).tolist() == [8, 9, 14]  # (8/15, 9/15], (9/15, 10/15], (14/15, 1]
    assert len(found.pixels) == BINS == 15
    assert found.pixels.sum() == 3
    assert found.right.sum() == 3
    both = found.plus(of([0.9], [0]))
    assert (both.pixels.sum(), both.right.sum()) == (4, 3)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_recovers_a_known_one_and_decides_as_before(classes, temperature):
    draw = np.random.default_rng(classes)
    logits = draw.normal(0, 2, (classes, 50_000))
    true = softmax(logits, axis=0)
    labels = (true.cumsum(0) < draw.uniform(size=true.shape[1])).sum(0).clip(max=classes - 1)
    stated = softmax(logits * temperature, axis=0)  # too sure above 1
    found = fitted_temperature(stated, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    after = tempered(stated, found)
    assert (after.argmax(0) == stated.argmax(0)).all()
    assert np.allclose(after, true, atol=0.02)
    said = np.ones(len(labels), bool)
    before, since = (Reliability.of(p, labels, said).error for p in (stated, after))
    assert since < 0.01
    assert before > 0.03 or temperature == 1


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1, 3.3, 20])
def test_no_pixel_changes_sides_of_one_half_at_any_temperature(temperature):
    half = np.float32(0.5)
    near = [np.nextafter(half, np.float32(end)) for end in (0, 1)]
    drawn = np.random.default_rng(0).uniform(size=100_000)
    p = np.concatenate([drawn, near, [0, half, 1]]).astype(np.float32)
    both = np.stack([np.float32(1) - p, p])
    after = tempered(both, temperature)
    assert after.dtype == np.float32
    assert (np.sign(after[1] - after[0]) * np.sign(both[1] - both[0]) >= 0).all()
    assert ((after[1] > 0.5) <= (p >= 0.5)).all()
    assert ((after[1] < 0.5) <= (p <= 0.5)).all()


def test_certain_probabilities_stay_unless_something_stands_for_none():
    certain = np.array([[0.0, 0.5], [1.0, 0.5]])
    assert tempered(certain, 3).tolist() == certain.tolist()
    assert tempered(certain, 3, 1e-3)[0, 0] == pytest.approx(0.1 / 1.1)
    assert fitted_temperature(certain[:, :1], np.array([1])) is None
    # Seven of eight votes without an opponent are right: 0.001 must become an eighth.
    found = fitted_temperature(np.repeat(certain[:, :1], 8, axis=1), np.array([1] * 7 + [0]), 1e-3)
    assert found == pytest.approx(np.log(1000) / np.log(7), rel=1e-3)


def test_expected_dice_is_that_of_drawn_truths_where_probabilities_are_right():
    draw = np.random.default_rng(0)
    p = draw.beta(0.5, 0.5, (64, 64))
    both = np.stack([1 - p, p])
    mask = p > 0.5
    truths = draw.uniform(size=(400, 64, 64)) < p
    dice = 2 * (truths & mask).sum((1, 2)) / (truths.sum((1, 2)) + mask.sum())
    parts = [Agreement.of(both[:, rows], mask[rows]) for rows in (slice(20), slice(20, 64))]
    assert parts[0].plus(parts[1]).dice == pytest.approx(dice.mean(), abs=2e-3)
    sample = Agreement.of(both[:, ::2], mask[::2])
    assert sample.times(2).predicted == pytest.approx(2 * mask[::2].sum())


@pytest.mark.parametrize(
    ("foreground", "expected"),
    # Where nothing is predicted: how likely it is that nothing is there.
    [([[1.0, 0.0]], 1), ([[0.0, 0.0]], 1), ([[0.4, 0.4]], 0.6**2), ([[0.8, 0.2]], 2 * 0.8 / (1 + 1))],
)
def test_expected_dice_by_hand(foreground, expected):
    p = np.array(foreground)
    assert Agreement.of(np.stack([1 - p, p]), p > 0.5).dice == pytest.approx(expected)


def test_expected_dice_of_several_classes_is_their_mean():
    p = np.array([[0.2, 0.9, 1.0], [0.8, 0.1, 0.0], [0.0, 0.0, 0.0]])
    assert Agreement.of(p, p.argmax(0)).dice == pytest.approx((2 * 0.8 / (1 + 0.9) + 1) / 2)


def test_a_limit_is_where_low_images_part_from_others_and_there_is_none_by_a_few():
    dice = [0.5] * 5 + [0.9] * 5
    assert chosen_limit([0.8] * 5 + [0.9] * 5, dice, 0.7) == pytest.approx(0.85)
    # Two limits find four of five without a false alarm: that which is nearer to a Dice of 0.7.
    assert chosen_limit([0.1, 0.2, 0.3, 0.4, 0.95, 0.6, 0.9, 0.9, 0.9, 0.9], dice, 0.7) == pytest.approx(0.5)
    assert chosen_limit([0.6] * 10, dice, 0.7) == 0.7
    assert chosen_limit([0.8] * 4 + [0.9] * 5, dice[1:], 0.7) is None
