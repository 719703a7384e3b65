import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from textdiff.metrics.instances import components, find_instances, watershed_instances


def disc(shape, y, x, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def two_classes(foreground):
    """Labels and likelihood of a foreground probability."""
    return foreground > 0.5, np.maximum(foreground, 1 - foreground)


def is_connected(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize(("radius", "apart"), [(4, 1.7), (6, 1.7), (8, 1.5), (12, 1.5), (20, 1.5)])
def test_touching_discs_come_apart_between_their_centres(radius, apart):
    centre = 60 + apart * radius
    mask = disc((100, 160), 50, 60, radius) | disc((100, 160), 50, centre, radius)
    objects = watershed_instances(mask.astype(float), mask)
    assert objects.max() == 2
    assert components(mask).max() == 1
    (left, right) = (np.nonzero(objects == objects[50, x])[1] for x in (60, round(centre)))
    assert left.max() <= np.ceil((60 + centre) / 2) + 1
    assert right.min() >= np.floor((60 + centre) / 2) - 1


@pytest.mark.parametrize("angle", [0, 0.4, 0.8])
@pytest.mark.parametrize("radius", [4, 8, 16])
def test_an_ellipse_stays_whole(radius, angle):
    rows, columns = np.mgrid[:100, :100] - 50.0
    along, across = (
        rows * np.cos(angle) + columns * np.sin(angle),
        columns * np.cos(angle) - rows * np.sin(angle),
    )
    mask = (along / (1.5 * radius)) ** 2 + (across * 1.5 / radius) ** 2 < 1
    assert watershed_instances(mask.astype(float), mask).max() == 1


def test_a_valley_of_the_probability_divides_what_has_no_neck():
    mask = np.zeros((40, 80), bool)
    mask[10:30, 10:70] = True
    columns = np.arange(80)
    valley = np.broadcast_to(1 - 0.45 * np.exp(-(((columns - 40) / 4) ** 2)), mask.shape)
    assert watershed_instances(np.ones(mask.shape), mask).max() == 1
    objects = watershed_instances(valley, mask)
    assert objects.max() == 2
    assert objects[20, 20] != objects[20, 60]


MAPS = array_shapes(min_dims=2, max_dims=2, max_side=14).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.1, 0.4, 0.6, 0.75, 0.9, 1.0]))
)


@settings(max_examples=60)
@given(MAPS)
def test_every_pixel_of_the_mask_belongs_to_one_connected_object_and_no_component_is_lost(probability):
    mask = probability > 0.5
    objects = find_instances(*two_classes(probability), "watershed")
    assert ((objects > 0) == mask).all()
    assert set(np.unique(objects)) - {0} == set(range(1, objects.max() + 1))
    assert all(is_connected(objects == number) for number in range(1, objects.max() + 1))
    parts = components(mask)
    for number in range(1, objects.max() + 1):
        assert len(np.unique(parts[objects == number])) == 1


@given(MAPS)
def test_components_are_scipys_with_corners(probability):
    mask = probability > 0.5
    expected, count = ndimage.label(mask, np.ones((3, 3)))
    found = find_instances(*two_classes(probability))
    assert found.max() == count
    assert len(np.unique(np.stack([expected, found])[:, mask], axis=1).T) == count


def test_objects_of_two_classes_that_touch_stay_apart():
    labels = np.array([[1, 1, 2, 2], [0, 0, 0, 1]])
    assert (components(labels) == [[1, 1, 2, 2], [0, 0, 0, 3]]).all()
    for method in ("components", "watershed"):
        assert (find_instances(labels, np.ones(labels.shape), method) == [[1, 1, 2, 2], [0, 0, 0, 3]]).all()


def test_objects_are_numbered_by_their_first_pixels_and_small_ones_left_out():
    foreground = np.zeros((8, 8))
    foreground[5:7, 0:3] = foreground[1, 2] = foreground[0:3, 5:8] = 1
    assert find_instances(*two_classes(foreground)).max() == 3
    objects = find_instances(*two_classes(foreground), min_area=6)
    assert objects.max() == 2
    assert objects[1, 6] == 1
    assert objects[5, 1] == 2
    assert objects[1, 2] == 0


def test_an_image_without_objects_has_none():
    for method in ("components", "watershed"):
        assert not find_instances(*two_classes(np.zeros((5, 6))), method).any()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="watershed"):
        find_instances(*two_classes(np.zeros((5, 6))), "voronoi")
