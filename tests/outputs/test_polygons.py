"""Polygons around the parts of a mask: valid, disjoint, and the mask again when they are filled."""

import numpy as np
import shapely
from hypothesis import example, given
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from textdiff.outputs.polygons import trace
from textdiff.tests.output_cases import filled

MASKS = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9).flatmap(lambda shape: arrays(np.bool_, shape))
# A hole that meets the outside at a corner, a chain of diagonal pixels, rings in rings.
PINCHED = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
CHAIN = np.eye(4, dtype=bool)
NESTED = np.pad(np.pad(np.pad(np.ones((1, 1), bool), 1), 1, constant_values=True), 1)


@example(PINCHED)
@example(~PINCHED)
@example(CHAIN)
@example(NESTED)
@given(MASKS)
def test_polygons_filled_again_are_the_mask(mask):
    polygons = trace(mask)
    assert (filled([ring for shell, holes in polygons for ring in (shell, *holes)], mask.shape) == mask).all()


@example(PINCHED)
@example(~PINCHED)
@example(CHAIN)
@example(NESTED)
@given(MASKS)
def test_polygons_are_valid_disjoint_and_one_for_each_part_connected_by_sides(mask):
    shapes = [shapely.Polygon(shell, holes) for shell, holes in trace(mask)]
    whole = shapely.MultiPolygon(shapes)
    assert whole.is_valid, shapely.is_valid_reason(whole)
    assert len(shapes) == ndimage.label(mask)[1]
    assert whole.area == mask.sum()
    for shape in shapes:
        assert shape.exterior.is_ccw
        assert not any(hole.is_ccw for hole in shape.interiors)
        for ring in (shape.exterior, *shape.interiors):
            horizontal = np.diff(ring.coords, axis=0)[:, 1] == 0
            assert (horizontal[1:] != horizontal[:-1]).all(), "a corner in the middle of an edge"


def test_a_hole_that_meets_the_outside_at_a_corner_is_a_hole():
    ((shell, holes),) = trace(PINCHED)
    assert shell.tolist() == [[1, 0], [3, 0], [3, 3], [0, 3], [0, 1], [1, 1]]
    assert [hole.tolist() for hole in holes] == [[[1, 1], [1, 2], [2, 2], [2, 1]]]
