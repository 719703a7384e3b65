"""Objects of a map that comes in bands are those of the whole map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.metrics.instances import components
from textdiff.metrics.object_stream import ObjectStream, draw_runs


def streamed(labels: np.ndarray, likelihood: np.ndarray, cuts: list[int]):
    """Every object, and the map of their numbers."""
    stream, found, bands = ObjectStream(), [], []
    for first, end in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        ended, runs, numbers = stream.add(labels[first:end], [likelihood[first:end], 2 - likelihood[first:end]])
        found += ended
        bands.append((runs, numbers, end - first))
    found += stream.finish()
    table = stream.final_numbers()
    rows = [draw_runs(runs, table[numbers].astype(np.int32), (h, labels.shape[1])) for runs, numbers, h in bands]
    return found, np.concatenate(rows)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 40), st.integers(1, 40), st.integers(2, 4), st.data())
def test_objects_are_those_of_the_whole_map(seed, height, width, classes, data):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, (height, width), dtype=np.uint8)
    labels[draw.random(labels.shape) < data.draw(st.sampled_from([0.0, 0.4, 0.8]))] = 0
    likelihood = draw.random(labels.shape, np.float32)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, height - 1)), max_size=6)) if height > 1 else [])
    found, objects = streamed(labels, likelihood, cuts)
    whole = components(labels)
    # Both number in the order of first pixels, one with gaps.
    np.testing.assert_array_equal(_dense(objects), _dense(whole))
    assert sorted(one.number for one in found) == [n for n in np.unique(objects) if n]
    for one in found:
        inside = objects == one.number
        y, x = np.nonzero(inside)
        assert one.area == inside.sum()
        assert one.class_number == labels[inside][0]
        of_values = [values[inside].sum() for values in (likelihood, 2 - likelihood)]
        np.testing.assert_allclose(one.sums, [(x + 0.5).sum(), (y + 0.5).sum(), *of_values], rtol=1e-5)
        left, top, right, bottom = one.corners
        assert (left, top, right, bottom) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        np.testing.assert_array_equal(one.mask(), inside[top:bottom, left:right])
        for step in (2, 3):
            np.testing.assert_array_equal(one.mask(step), inside[top:bottom:step, left:right:step])


def _dense(objects: np.ndarray) -> np.ndarray:
    return np.unique(objects, return_inverse=True)[1].reshape(objects.shape)


def test_arms_that_meet_far_below_are_one_object():
    labels = np.zeros((30, 9), np.uint8)
    labels[3:, 1] = labels[5:, 4] = labels[2:, 7] = 1
    labels[-1, 1:8] = 1
    found, objects = streamed(labels, np.ones(labels.shape), [4, 8, 12])
    assert [(one.number, one.area) for one in found] == [(1, labels.sum())]
    np.testing.assert_array_equal(objects, labels)


@pytest.mark.parametrize("seed", range(20))
def test_bands_may_begin_and_end_at_any_column_beside_which_there_is_background(seed):
    draw = np.random.default_rng(seed)
    labels, likelihood = np.zeros((30, 60), np.uint8), draw.random((30, 60), np.float32)
    ends = [sorted(draw.choice(61, 2, replace=False).tolist()) for _ in range(6)]
    for number, (left, right) in enumerate(ends):
        labels[5 * number : 5 * number + 5, left:right] = draw.random((5, right - left)) < 0.6
    stream, parts = ObjectStream(), []
    for number, (left, right) in enumerate(ends):
        band = slice(5 * number, 5 * number + 5)
        parts += stream.add(
            labels[band, left:right], [likelihood[band, left:right], 2 - likelihood[band, left:right]], left
        )[0]
    parts += stream.finish()
    whole, _ = streamed(labels, likelihood, [])
    facts = [sorted((one.area, *one.corners, *one.sums.tolist()) for one in found) for found in (parts, whole)]
    np.testing.assert_allclose(*facts)


@pytest.mark.parametrize("rows", [1, 7])
def test_what_is_held_does_not_grow_with_the_rows_gone_by(rows):
    stream = ObjectStream()
    band = np.zeros((8, 12), np.uint8)
    band[2:5, 3:6] = 1
    for _ in range(rows):
        ended, *_ = stream.add(band, [np.ones(band.shape)])
        assert [one.area for one in ended] == [9]
    assert stream.unfinished == {}
