import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats
from scipy.spatial import distance

from textdiff.metrics.intervals import Interval, bootstrap_mean, resampled
from textdiff.metrics.pixels import confusion, dice, dice_from_iou, entropy, iou
from textdiff.pipeline.evaluation.class_scores import class_scores

PAIRS = array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


@given(PAIRS)
def test_dice_and_iou_agree_with_scipy_on_any_two_masks(pair):
    prediction, truth = pair
    if not (prediction.any() or truth.any()):
        return  # scipy's dice is 0/0 there; our rule is tested below
    assert dice(prediction, truth) == pytest.approx(1 - distance.dice(prediction.ravel(), truth.ravel()))
    assert iou(prediction, truth) == pytest.approx(1 - distance.jaccard(prediction.ravel(), truth.ravel()))


@given(PAIRS)
def test_the_papers_dice_from_iou_is_the_dice_of_the_image(pair):
    assert dice_from_iou(iou(*pair)) == pytest.approx(dice(*pair), abs=1e-12)


@given(PAIRS)
def test_confusion_counts_every_pixel_once(pair):
    prediction, truth = pair
    expected = [sum(p == a and t == b for p, t in zip(prediction.flat, truth.flat, strict=True))
                for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]  # fmt: skip
    assert list(confusion(prediction, truth)) == expected


def test_a_hand_counted_image():
    prediction = np.array([[1, 1, 0], [0, 1, 0]], bool)
    truth = np.array([[1, 0, 0], [0, 1, 1]], bool)
    assert confusion(prediction, truth) == (2, 1, 1, 2)
    assert iou(prediction, truth) == 2 / 4
    assert dice(prediction, truth) == 4 / 6


@pytest.mark.parametrize("metric", [dice, iou])
def test_two_empty_masks_score_1_and_one_empty_mask_scores_0(metric):
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    assert metric(empty, empty) == 1.0
    assert metric(empty, full) == 0.0
    assert metric(full, empty) == 0.0


def test_counts_do_not_overflow_in_the_masks_own_dtype():
    mask = np.ones((300, 300), np.uint8)
    assert confusion(mask, mask) == (90_000, 0, 0, 0)
    assert dice(mask, mask) == 1.0


@pytest.mark.parametrize("metric", [confusion, dice, iou])
@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (np.zeros((2, 3), bool), np.zeros((3, 2), bool)),
        (np.zeros((1, 3), bool), np.zeros((3, 3), bool)),  # would broadcast
        (np.zeros(3, bool), np.zeros(3, bool)),
        (np.zeros((1, 2, 3), bool), np.zeros((1, 2, 3), bool)),
        (np.full((2, 2), 255, np.uint8), np.ones((2, 2), bool)),
        (np.full((2, 2), 0.5), np.ones((2, 2), bool)),
    ],
)
def test_masks_of_other_shapes_or_values_are_refused(metric, prediction, truth):
    with pytest.raises(ValueError, match=r"shape|binary"):
        metric(prediction, truth)


@pytest.mark.parametrize("metric", [dice, iou])
def test_a_mean_over_classes_leaves_out_the_background(metric):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(4, size=(2, 20, 30))
    expected = sum(metric(prediction == c, truth == c) for c in (1, 2, 3)) / 3
    found = class_scores(prediction, truth, ("a", "b", "c"), "clean")[f"{metric.__name__}_clean"]
    assert found == pytest.approx(expected)
    assert found != pytest.approx((3 * expected + metric(prediction == 0, truth == 0)) / 4)


def test_a_class_in_neither_mask_counts_as_perfect():
    labels = np.array([[0, 1]])
    assert class_scores(labels, labels, ("a", "b"), "clean")["dice_clean"] == 1.0
    assert class_scores(np.array([[0, 0]]), labels, ("a", "b"), "clean")["dice_clean"] == 0.5


@pytest.mark.parametrize("classes", [2, 5])
def test_entropy_agrees_with_scipy_in_nats(classes):
    p = np.random.default_rng(2).dirichlet(np.ones(classes), (6, 7)).transpose(2, 0, 1).astype(np.float32)
    result = entropy(p)
    assert result.shape == (6, 7)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, stats.entropy(p, axis=0), rtol=1e-5)


def test_entropy_runs_from_0_where_certain_to_log_classes_where_not():
    p = np.zeros((4, 1, 2), np.float32)
    p[1, 0, 0] = 1 + 1e-7  # a softmax in float32 can overshoot
    p[:, 0, 1] = 0.25
    result = entropy(p)
    assert result[0, 0] == 0
    assert result[0, 1] == pytest.approx(np.log(4))


@pytest.mark.parametrize("bad", [np.ones((2, 2)), np.full((2, 2, 2), -0.5), np.full((2, 2, 2), np.nan)])
def test_entropy_refuses_what_is_not_a_stack_of_probabilities(bad):
    with pytest.raises(ValueError, match="probabilities"):
        entropy(bad)


@pytest.mark.parametrize(("n", "level"), [(5, 0.95), (14, 0.95), (14, 0.8), (200, 0.95)])
def test_the_interval_agrees_with_scipys_percentile_bootstrap(n, level):
    values = np.random.default_rng(n).beta(8, 3, n)
    ours = bootstrap_mean(values, seed=1, level=level)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        method="percentile",
        n_resamples=10_000,
        confidence_level=level,
        rng=np.random.default_rng(2),
    ).confidence_interval
    # A bootstrap quantile of 10,000 draws has a standard error of about 0.03 of the bootstrap's standard deviation.
    tolerance = 0.15 * values.std() / np.sqrt(n)
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.high, abs=tolerance)
    assert ours.n == n


def test_nominal_95_percent_intervals_cover_the_true_mean_about_as_often():
    rng = np.random.default_rng(3)
    intervals = [bootstrap_mean(rng.beta(8, 3, 40), seed=i, resamples=1000) for i in range(500)]
    covered = np.mean([interval.low <= 8 / 11 <= interval.high for interval in intervals])
    # Three binomial standard deviations around the 94% that percentile intervals reach at n = 40: a 90% or a 99%
    # interval would fall outside.
    assert 0.912 < covered < 0.968


def test_the_interval_is_the_same_for_the_same_seed_and_another_for_another():
    values = np.random.default_rng(4).random(14)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(list(values), seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_one_image_or_one_group_has_a_mean_but_no_interval():
    assert bootstrap_mean([0.7]) == Interval(0.7, None, None, 1)
    assert bootstrap_mean([0.25, 0.75], groups=["a", "a"]) == Interval(0.5, None, None, 2)


def test_images_of_a_patient_say_as_much_as_one_image():
    values = np.random.default_rng(7).random(9)
    alike = bootstrap_mean(np.repeat(values, 4), groups=np.repeat([f"p{i}" for i in range(9)], 4).tolist())
    assert alike[:3] == pytest.approx(bootstrap_mean(values)[:3])
    assert alike.n == 36


def test_groups_are_resampled_with_all_their_images():
    """A loop written out; two images without a name are groups by themselves."""
    rng = np.random.default_rng(8)
    groups = ["a"] * 5 + ["b"] * 2 + ["c"] * 3 + ["", ""]
    values = rng.random(12) + 0.5 * np.array([group == "a" for group in groups])
    members = [range(5), range(5, 7), range(7, 10), [10], [11]]
    means = []
    for _ in range(20_000):
        images = np.concatenate([members[group] for group in rng.integers(5, size=5)])
        means.append(values[images].mean())
    found = bootstrap_mean(values, groups=groups, seed=9)
    assert found.mean == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.1 * np.std(means))
    alone = bootstrap_mean(values, seed=9)
    assert found.high - found.low > 1.2 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (["", "", ""], "images"),
        (["a", "b", ""], "images"),
        (["a", "a", "b", "", ""], "the 4 groups of the 5 images"),
        (["a", "a"], "the 1 group of the 2 images"),
    ],
)
def test_what_is_resampled_is_said(groups, words):
    assert resampled(groups) == words


def test_a_group_is_needed_for_every_value():
    with pytest.raises(ValueError, match="2 groups for 3 values"):
        bootstrap_mean([0.1, 0.2, 0.3], groups=["a", "b"])


def test_equal_scores_give_an_interval_of_no_width():
    assert bootstrap_mean([0.5] * 8) == Interval(0.5, 0.5, 0.5, 8)


def test_memory_does_not_grow_with_images_times_resamples():
    values = np.random.default_rng(6).random(20_000)
    tracemalloc.start()
    bootstrap_mean(values, resamples=1000)  # 160 MB of indices if drawn at once
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [0.1, float("inf")], np.zeros((2, 2))])
def test_scores_without_a_mean_are_refused(bad):
    with pytest.raises(ValueError, match="score"):
        bootstrap_mean(bad)


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 1.0}, {"level": 95.0}, {"resamples": 0}])
def test_impossible_levels_and_resamples_are_refused(options):
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([0.1, 0.2], **options)
