"""What objects measure, against shapes whose area, eccentricity and stain are known."""

import numpy as np
import pytest
import shapely
from skimage import color, measure

from textdiff.images.stains import haematoxylin, kind_of
from textdiff.metrics.instances import find_instances
from textdiff.outputs import segmentation
from textdiff.outputs.object_tables import IMAGE_COLUMNS, image_record
from textdiff.outputs.objects import OBJECT_COLUMNS, object_record

Y, X = np.mgrid[:200, :300]


def ellipse(cy, cx, a, b, angle=0.0):
    """The pixels inside an ellipse with half axes ``a`` and ``b``, turned by ``angle``."""
    along = (X - cx) * np.cos(angle) + (Y - cy) * np.sin(angle)
    across = (Y - cy) * np.cos(angle) - (X - cx) * np.sin(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def measured(mask, image=None, **options):
    image = np.full((*mask.shape, 3), 255, np.uint8) if image is None else image
    labels = mask.astype(np.uint8)
    objects = find_instances(labels, np.ones(mask.shape))
    return segmentation("a", image, labels, np.ones(mask.shape), objects, ("nucleus",), **options)


@pytest.mark.parametrize("angle", [0, 0.7, np.pi / 2])
@pytest.mark.parametrize(("a", "b"), [(40, 40), (40, 32), (60, 15)])
def test_an_ellipse_has_its_area_and_eccentricity(a, b, angle):
    (found,) = measured(ellipse(100, 150, a, b, angle)).found
    assert found.area == pytest.approx(np.pi * a * b, rel=0.01)
    assert found.eccentricity == pytest.approx(np.sqrt(1 - (b / a) ** 2), abs=0.01 if a != b else 0.05)


def test_an_object_with_dents_is_less_solid_than_its_hull():
    rng = np.random.default_rng(1)
    made = measured((rng.random((60, 80)) < 0.4) | ellipse(30, 40, 15, 10)[:60, :80])
    for found in made.found:
        y, x = np.nonzero(made.objects == found.number)
        hull = shapely.union_all(shapely.box(x, y, x + 1, y + 1)).convex_hull
        assert found.solidity == pytest.approx(found.area / hull.area)
    assert measured(Y < 9).found[0].solidity == 1
    (region,) = measure.regionprops(ellipse(100, 150, 60, 15, 0.7).astype(int))
    assert measured(ellipse(100, 150, 60, 15, 0.7)).found[0].solidity == pytest.approx(region.solidity, abs=0.03)


def test_pixels_that_are_not_square_do_not_squeeze_a_disc():
    squeezed = ellipse(100, 150, 60, 30)
    (found,) = measured(squeezed, pixel_size=(0.25, 0.5)).found
    assert found.eccentricity < 0.15
    assert measured(squeezed).found[0].eccentricity > 0.85


def test_measurements_are_those_of_regionprops_and_rgb2hed():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    made = measured(rng.random((90, 120)) < 0.35, image, stain=haematoxylin)
    regions = measure.regionprops(made.objects, intensity_image=color.rgb2hed(image)[..., 0])
    assert len(made.found) == len(regions) > 50
    for found, region in zip(made.found, regions, strict=True):
        assert found.area == region.area
        # Differences of large numbers: those of regionprops round, too.
        assert found.eccentricity == pytest.approx(region.eccentricity, abs=1e-6)
        assert found.haematoxylin == pytest.approx(region.intensity_mean)


def test_an_image_has_the_density_of_its_discs():
    mask = np.zeros((200, 300), bool)
    for cy in (30, 100, 170):
        for cx in (40, 150):
            mask |= ellipse(cy, cx, 20, 20)
    line = image_record(measured(mask, pixel_size=(0.5, 0.5)))
    assert line["objects"] == 6
    assert line["objects_per_mm2"] == pytest.approx(6 / (0.15 * 0.1))
    assert line["mean_area_um2"] == pytest.approx(np.pi * 10**2, rel=0.01)
    assert line["mean_area"] == pytest.approx(np.pi * 20**2, rel=0.01)
    assert line["share"] == pytest.approx(6 * np.pi * 400 / 60000, rel=0.01)
    assert line["area_mm2"] == pytest.approx(6 * np.pi * 1e-4, rel=0.01)
    assert line.keys() <= set(IMAGE_COLUMNS)
    unknown = image_record(measured(mask))
    assert not {"objects_per_mm2", "mean_area_um2", "mean_haematoxylin"} & unknown.keys()


def test_an_object_without_a_stain_or_a_pixel_size_leaves_them_out():
    made = measured(ellipse(100, 150, 20, 20))
    record = object_record(made, made.found[0])
    assert set(OBJECT_COLUMNS) - record.keys() == {"haematoxylin", "area_um2", "centroid_x_um", "centroid_y_um"}


def test_an_image_without_objects_has_a_density_and_no_means():
    line = image_record(measured(np.zeros((200, 300), bool), pixel_size=(0.5, 0.5), stain=haematoxylin))
    assert line["objects_per_mm2"] == 0
    assert not [name for name in line if name.startswith("mean_")]


@pytest.mark.parametrize(
    ("colour", "kind"), [((120, 120, 121), "grey"), ((170, 110, 190), "H&E"), ((200, 150, 120), "colour")]
)
def test_kinds_of_images_are_told_by_their_colours(colour, kind):
    assert kind_of(np.full((8, 8, 3), colour, np.uint8)) == kind
