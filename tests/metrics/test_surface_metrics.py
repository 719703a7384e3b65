"""HD95 and surface Dice against distances between all pairs of outline pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import cdist

from textdiff.metrics.surfaces import hd95, surface_dice

PAIRS = array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


def outline(mask):
    """Foreground pixels one of whose four neighbours is background or outside."""
    height, width = mask.shape
    return np.array(
        [
            (y, x)
            for y, x in zip(*np.nonzero(mask), strict=True)
            if any(
                not (0 <= y + dy < height and 0 <= x + dx < width and mask[y + dy, x + dx])
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
            )
        ]
    )


def all_pairs(prediction, truth):
    """The distances to the other outline, from each side's outline pixels."""
    between = cdist(outline(prediction), outline(truth))
    return between.min(axis=1), between.min(axis=0)


@given(PAIRS)
def test_hd95_is_the_larger_percentile_of_all_nearest_distances(pair):
    if pair[0].any() and pair[1].any():
        there, back = all_pairs(*pair)
        assert hd95(*pair) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))


@given(PAIRS, st.sampled_from([0, 1, 1.5, 2, 3]))
def test_surface_dice_is_the_share_of_both_outlines_within_the_tolerance(pair, tolerance):
    if pair[0].any() and pair[1].any():
        there, back = all_pairs(*pair)
        expected = (np.sum(there <= tolerance) + np.sum(back <= tolerance)) / (len(there) + len(back))
        assert surface_dice(*pair, tolerance) == pytest.approx(expected)


@given(PAIRS)
def test_both_are_symmetric_and_perfect_on_equal_masks(pair):
    prediction, truth = pair
    assert hd95(prediction, truth) == hd95(truth, prediction)
    assert surface_dice(prediction, truth, 1) == surface_dice(truth, prediction, 1)
    assert hd95(truth, truth) == 0
    assert surface_dice(truth, truth, 0) == 1


def test_a_square_shifted_by_three_pixels():
    truth = np.zeros((40, 40), bool)
    truth[10:20, 10:20] = True
    shifted = np.roll(truth, 3, axis=1)
    assert hd95(shifted, truth) == 3
    assert surface_dice(shifted, truth, 3) == 1
    assert 0 < surface_dice(shifted, truth, 2) < 1


def test_empty_masks_have_a_finite_rule():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert hd95(empty, empty) == 0
    assert surface_dice(empty, empty) == 1
    for pair in ((empty, full), (full, empty)):
        assert hd95(*pair) == math.hypot(3, 4) == 5
        assert surface_dice(*pair) == 0


@pytest.mark.parametrize("metric", [hd95, surface_dice])
@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (np.zeros((2, 3), bool), np.zeros((3, 2), bool)),
        (np.zeros(3, bool), np.zeros(3, bool)),
        (np.full((2, 2), 255, np.uint8), np.ones((2, 2), bool)),
    ],
)
def test_masks_of_other_shapes_or_values_are_refused(metric, prediction, truth):
    with pytest.raises(ValueError, match=r"shape|binary"):
        metric(prediction, truth)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="tolerance"):
        surface_dice(np.ones((2, 2), bool), np.ones((2, 2), bool), -1)
