"""The eight symmetries of a square."""

import itertools

import numpy as np
import pytest

from textdiff.images.images import symmetry, unsymmetry
from textdiff.tests.image_files import RGB


def test_there_are_eight_symmetries_closed_under_composition():
    array = np.arange(16).reshape(4, 4)
    views = [symmetry(array, view).tobytes() for view in range(8)]
    assert len(set(views)) == 8
    assert views[0] == array.tobytes()
    for first, second in itertools.product(range(8), repeat=2):
        assert symmetry(symmetry(array, first), second).tobytes() in views


@pytest.mark.parametrize("view", range(8))
def test_unsymmetry_is_the_inverse(view):
    for shape, axes in (((5, 7), (0, 1)), ((5, 7, 3), (0, 1)), ((2, 3, 5, 7), (-2, -1))):
        array = np.arange(np.prod(shape)).reshape(shape)
        turned = symmetry(array, view, axes)
        assert np.array_equal(unsymmetry(turned, view, axes), array)
        assert np.array_equal(symmetry(unsymmetry(array, view, axes), view, axes), array)
        assert turned.flags.c_contiguous
        assert not np.shares_memory(turned, array)


@pytest.mark.parametrize("view", range(8))
def test_channels_first_turns_as_channels_last(view):
    first = symmetry(RGB.transpose(2, 0, 1), view, axes=(-2, -1))
    assert np.array_equal(first.transpose(1, 2, 0), symmetry(RGB, view))
