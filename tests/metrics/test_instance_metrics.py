"""Instance metrics against slow implementations that go by the papers' words, object by object."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from textdiff.metrics.objects import aji, panoptic_quality

PAIRS = array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=st.sampled_from([0, 1, 2, 3, 7, 900]))] * 2)
)


def sets(objects):
    """Every object as a set of pixels, by rising number."""
    return [set(zip(*np.nonzero(objects == k), strict=True)) for k in sorted(set(objects.flat) - {0})]


def plain_aji(prediction, truth):
    """Algorithm 1 of Kumar et al., line by line, with the authors' ties: the first of the largest."""
    found, true = sets(prediction), sets(truth)
    C = U = 0
    used = set()
    for g in true:
        best, largest = None, 0.0
        for j, s in enumerate(found):
            if len(g & s) / len(g | s) > largest:
                best, largest = j, len(g & s) / len(g | s)
        if best is None:
            U += len(g)
        else:
            C += len(g & found[best])
            U += len(g | found[best])
            used.add(best)
    U += sum(len(s) for j, s in enumerate(found) if j not in used)
    return C / U if U else 1.0


def plain_pq(prediction, truth):
    """Equation 1 of Kirillov et al.: TP are all pairs of IoU > 0.5, the rest FP and FN."""
    found, true = sets(prediction), sets(truth)
    ious = [len(g & s) / len(g | s) for g in true for s in found if len(g & s) / len(g | s) > 0.5]
    fp, fn = len(found) - len(ious), len(true) - len(ious)
    if not found and not true:
        return 1.0
    return sum(ious) / (len(ious) + fp / 2 + fn / 2)


@given(PAIRS)
def test_aji_is_the_papers_algorithm(pair):
    assert aji(*pair) == pytest.approx(plain_aji(*pair), abs=1e-12)


@given(PAIRS)
def test_pq_is_the_papers_equation(pair):
    result = panoptic_quality(*pair)
    assert result.pq == pytest.approx(plain_pq(*pair), abs=1e-12)
    assert result.pq == pytest.approx(result.dq * result.sq)


@given(PAIRS)
def test_dq_is_the_f1_score_of_precision_and_recall(pair):
    found, true = map(sets, pair)
    hits = sum(len(g & s) / len(g | s) > 0.5 for g in true for s in found)
    if not found or not true:
        expected = float(len(found) == len(true))
    else:
        precision, recall = hits / len(found), hits / len(true)
        expected = 2 * precision * recall / (precision + recall) if hits else 0.0
    assert panoptic_quality(*pair).dq == pytest.approx(expected)


def blobs(rng, size, count):
    objects = np.zeros((size, size), np.int32)
    y, x = np.mgrid[:size, :size]
    for number in range(1, count + 1):
        cy, cx, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(3, 9)
        objects[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return objects


@pytest.mark.parametrize("seed", range(3))
def test_both_agree_on_crowded_images(seed):
    rng = np.random.default_rng(seed)
    truth = blobs(rng, 96, 40)
    prediction = np.where(rng.random((96, 96)) < 0.9, np.roll(truth, (1, 2), (0, 1)), 0)
    prediction[blobs(rng, 96, 5) > 0] = 77
    assert 0.1 < aji(prediction, truth) < 0.9
    assert aji(prediction, truth) == pytest.approx(plain_aji(prediction, truth))
    assert panoptic_quality(prediction, truth).pq == pytest.approx(plain_pq(prediction, truth))


def test_a_hand_counted_image():
    truth = np.array([[1, 1, 0, 2, 2, 2, 2]])
    prediction = np.array([[5, 5, 5, 0, 3, 3, 3]])
    # 2 of 3 and 3 of 4.
    assert aji(prediction, truth) == 5 / 7
    assert panoptic_quality(prediction, truth) == pytest.approx(((2 / 3 + 3 / 4) / 2, 1.0, (2 / 3 + 3 / 4) / 2))


def test_one_found_object_may_be_taken_twice_in_aji_but_counts_once_in_pq():
    truth = np.array([[1, 1, 2, 2]])
    prediction = np.array([[1, 1, 1, 1]])
    assert aji(prediction, truth) == 4 / 8
    assert panoptic_quality(prediction, truth).dq == 0


def test_of_equal_iou_the_lowest_number_is_taken():
    truth = np.array([[1, 1, 1, 0, 0]])
    # Number 4 covers 1 of 3 (IoU 1/3), number 6 covers 2 and misses 1 with 3 outside (IoU 2/6).
    prediction = np.array([[4, 6, 6, 6, 6]])
    prediction = np.concatenate([prediction, [[0, 6, 0, 0, 0]]])
    truth = np.concatenate([truth, np.zeros((1, 5), int)])
    assert aji(prediction, truth) == 1 / (3 + 5)
    assert aji(np.where(prediction == 6, 2, prediction), truth) == 2 / (6 + 1)


def test_exactly_half_is_no_match():
    assert panoptic_quality(np.array([[1, 1]]), np.array([[1, 0]])).dq == 0


@pytest.mark.parametrize(
    "metric", [aji, lambda p, t: panoptic_quality(p, t).dq, lambda p, t: panoptic_quality(p, t).pq]
)
def test_no_objects_at_all_score_1_and_objects_on_one_side_only_score_0(metric):
    none, some = np.zeros((4, 5), int), np.ones((4, 5), int)
    assert metric(none, none) == 1.0
    assert metric(none, some) == 0.0
    assert metric(some, none) == 0.0


@given(PAIRS)
def test_numbering_does_not_matter_to_pq_nor_a_perfect_prediction_to_anything(pair):
    prediction, truth = pair
    renamed = np.where(prediction > 0, 1000 - prediction, 0)
    assert panoptic_quality(renamed, truth).pq == pytest.approx(panoptic_quality(prediction, truth).pq)
    assert aji(truth, truth) == 1.0
    assert panoptic_quality(truth, truth) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("metric", [aji, panoptic_quality])
@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int)),
        (np.zeros(3, int), np.zeros(3, int)),
        (np.full((2, 2), 0.5), np.ones((2, 2), int)),
        (np.full((2, 2), -1), np.ones((2, 2), int)),
    ],
)
def test_maps_of_other_shapes_or_values_are_refused(metric, prediction, truth):
    with pytest.raises(ValueError, match=r"shape|numbered"):
        metric(prediction, truth)
