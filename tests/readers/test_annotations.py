"""Outlines from QuPath, COCO, labelme and ImageScope: which pixels they hold, and what they say."""

import base64
import json

import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from textdiff.cache import FeatureCache
from textdiff.images.labels import UNSAID
from textdiff.options.reading import ReadOptions
from textdiff.outputs import segmentation, write_output
from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_mask
from textdiff.tests.annotation_cases import (
    DISC,
    NAMES,
    PNG,
    SPECKS,
    H,
    W,
    boxes,
    coco,
    collection,
    feature,
    flat,
    folder,
    imagescope,
    labelme,
    layer,
    letters,
    read,
    region,
    runs_of,
    shape,
    square,
)

RING = boxes((1, 2, 3, 10, 8), (0, 5, 5, 3, 2))
HELD = {
    "a polygon with a hole": (collection(feature(square(2, 3, 10, 8), square(5, 5, 3, 2))), RING),
    "a bare list": ([feature(square(2, 3, 4))], boxes((1, 2, 3, 4, 4))),
    "a single feature": (feature(square(2, 3, 4)), boxes((1, 2, 3, 4, 4))),
    "a bare geometry": (feature(square(2, 3, 4))["geometry"], boxes((1, 2, 3, 4, 4))),
    "a multipolygon": (
        feature([square(1, 1, 2)], [square(9, 9, 6), square(11, 11, 2)], kind="MultiPolygon"),
        boxes((1, 1, 1, 2, 2), (1, 9, 9, 6, 6), (0, 11, 11, 2, 2)),
    ),
    "a collection of geometries": (
        feature(geometry={"type": "GeometryCollection", "geometries": [feature(square(2, 3, 4))["geometry"]]}),
        boxes((1, 2, 3, 4, 4)),
    ),
    "an ellipse, whatever polygon is written for it": (
        feature(geometry={"type": "Polygon", "coordinates": [square(9, 6, 12)], "isEllipse": True}),
        DISC,
    ),
    "children of an object": (
        feature(square(2, 3, 4), childObjects=[feature(square(20, 3, 4), objectType="detection")]),
        boxes((1, 2, 3, 4, 4), (1, 20, 3, 4, 4)),
    ),
    "with heights, as a file of a Windows program": (
        b"\xef\xbb\xbf" + json.dumps(feature([[*corner, 0] for corner in square(2, 3, 4)])).encode(),
        boxes((1, 2, 3, 4, 4)),
    ),
    "centres count": (feature([[2.4, 3.4], [6.4, 3.4], [6.4, 5.6], [2.4, 5.6]]), boxes((1, 2, 3, 4, 3))),
    "cut off at the edge": (feature(square(-5, -5, 8)), boxes((1, 0, 0, 3, 3))),
    "labelme's polygon": (labelme(shape("polygon", square(2, 3, 4)[:4])), boxes((1, 2, 3, 4, 4))),
    "labelme's rectangle": (labelme(shape("rectangle", [[6, 7], [2, 3]])), boxes((1, 2, 3, 4, 4))),
    "labelme's circle": (labelme(shape("circle", [[15, 12], [15, 18]])), DISC),
    "labelme's mask": (
        labelme(shape("mask", [[9, 6], [20, 17]], mask=base64.b64encode(PNG.getvalue()).decode())),
        DISC,
    ),
    "COCO's polygons": (
        coco({"segmentation": [flat(square(2, 3, 4)), [20, 3, 24, 3, 24, 7, 20, 7]]}),
        boxes((1, 2, 3, 4, 4), (1, 20, 3, 4, 4)),
    ),
    "COCO's run lengths": (coco({"segmentation": {"counts": runs_of(SPECKS), "size": [H, W]}}), SPECKS),
    "COCO's letters": (coco({"segmentation": {"counts": letters(runs_of(SPECKS)), "size": [H, W]}}), SPECKS),
    "COCO's letters of an empty mask": (coco({"segmentation": {"counts": letters([H * W]), "size": [H, W]}}), boxes()),
    "no object": (collection(), boxes()),
}


@pytest.mark.parametrize("case", HELD)
def test_the_pixels_of_an_outline_are_those_whose_centres_are_inside(tmp_path, case):
    content, wanted = HELD[case]
    mask, _ = read(folder(tmp_path / "d", content, "masks/a.json"))
    np.testing.assert_array_equal(mask.labels, wanted)


def test_letters_are_those_of_pycocotools(tmp_path):
    # The example in the comments of COCO's maskApi.
    runs, text = [6, 1, 40, 4, 5, 4, 5, 4, 21], "61X13mN000`0"
    assert letters(runs) == text
    content = coco({"segmentation": {"counts": text, "size": [9, 10]}}, size=(10, 9))
    ((sample,), _) = read_dataset("folder", folder(tmp_path / "d", content, shape=(9, 10)))
    np.testing.assert_array_equal(
        load_mask(sample, 9, 10).labels.T.reshape(-1), np.repeat(np.arange(9) % 2, runs), "down the columns"
    )


POINT = st.tuples(st.floats(-4, W + 4, width=16), st.floats(-4, H + 4, width=16))


@settings(max_examples=30, deadline=None)
@given(st.lists(POINT, min_size=3, max_size=7).filter(lambda points: shapely.Polygon(points).is_valid))
def test_of_a_valid_polygon_they_are_those_that_geos_finds(tmp_path_factory, points):
    polygon = shapely.Polygon(points)
    assume(shapely.box(0, 0, W, H).intersection(polygon).area > 0)
    mask, _ = read(folder(tmp_path_factory.mktemp("d") / "d", feature([*points, points[0]])))
    x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    near = shapely.distance(polygon.exterior, shapely.points(x, y)) < 1e-9
    np.testing.assert_array_equal((mask.labels == 1) | near, shapely.contains_xy(polygon, x, y) | near)
    assert not any("cross" in said for said in mask.notes)


# The way back

NESTED = np.pad(np.pad(np.pad(np.ones((1, 1), np.uint8), 1), 1, constant_values=2), 1)
MAPS = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 2))
)


@settings(max_examples=40, deadline=None)
@example(NESTED)
@example(np.eye(4, dtype=np.uint8))
@example(np.array([[1, 1, 2], [1, 0, 1], [2, 1, 1]], np.uint8))
@given(MAPS)
def test_what_predict_writes_as_geojson_is_read_back_pixel_for_pixel(tmp_path_factory, classes):
    root = tmp_path_factory.mktemp("d") / "d"
    folder(root, collection(), shape=classes.shape)
    # Every foreground pixel is in an object of its class; the numbers of touching ones differ.
    objects = np.zeros(classes.shape, np.int32)
    for label in (1, 2):
        parts, _ = ndimage.label(classes == label, np.ones((3, 3)))
        objects[parts > 0] = parts[parts > 0] + objects.max()
    image = np.zeros((*classes.shape, 3), np.uint8)
    written = segmentation("a", image, classes, np.ones(classes.shape, np.float32), objects, NAMES)
    write_output("geojson", root / "masks/a.geojson", written)
    ((sample,), _) = read_dataset("folder", root, ReadOptions(classes=NAMES))
    mask = load_mask(sample, *classes.shape)
    np.testing.assert_array_equal(mask.labels, classes)
    assert mask.notes == []
    ((sample,), _) = read_dataset("folder", root, ReadOptions(instances=True))
    np.testing.assert_array_equal(load_mask(sample, *classes.shape).instances, objects)


def test_outlines_go_into_a_cache_and_out_of_it_again(tmp_path, textdiff_once, monkeypatch):
    """The cache remembers where they are, that they say nothing of some pixels, and which object is which."""
    wanted = boxes((1, 2, 3, 9, 9), (2, 11, 3, 5, 9), (3, 20, 20, 1, 1))
    folder(tmp_path / "d", None)
    written = np.minimum(wanted, 1), np.ones((H, W), np.float32), wanted.astype(np.int32)
    (tmp_path / "drawn").mkdir()
    image = np.zeros((H, W, 3), np.uint8)
    write_output("geojson", tmp_path / "drawn/a.geojson", segmentation("a", image, *written, ("nucleus",)))
    own = ("--preset", "filters", "--text-encoder", "none", "--image-size", "32")
    options = ("--dataset", "folder", "--data", "d", "--annotations", "drawn", "--instances", *own)
    textdiff_once(tmp_path, "extract", *options, "--cache", "a.zarr")
    cache = FeatureCache.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(cache.instances(0), wanted)
    np.testing.assert_array_equal(cache.truth(0), np.minimum(wanted, 1))
    assert not cache.sparse
    content = json.loads((tmp_path / "drawn/a.geojson").read_text())
    content["features"][1]["properties"]["classification"]["name"] = "Ignore*"
    (tmp_path / "drawn/a.geojson").write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    refused = textdiff_once(tmp_path / "elsewhere", "extract", "--cache", "../a.zarr", status=2).stderr
    assert "made otherwise: unlabelled: nothing in the cache, 255 asked for" in refused
    textdiff_once(tmp_path, "extract", *options, "--cache", "b.zarr")
    cache = FeatureCache.open(tmp_path / "b.zarr")
    np.testing.assert_array_equal(cache.instances(0), np.where(wanted == 2, 0, wanted))
    np.testing.assert_array_equal(cache.truth(0), np.select([wanted == 2, wanted > 0], [UNSAID, 1]))
    assert cache.sparse


# What outlines say

FOREST = collection(
    feature(square(0, 0, 20), name="background"),
    feature(square(2, 2, 12), name="stroma"),
    feature(square(4, 4, 4), name="nucleus"),
    feature(square(10, 10, 6), name="Ignore*"),
)
BOTH = boxes((1, 2, 2, 12, 12), (2, 4, 4, 4, 4), (UNSAID, 10, 10, 6, 6))
SPARSE = np.full((H, W), UNSAID, np.uint8)
SPARSE[:20, :20] = BOTH[:20, :20]
SAID = {
    "what is not outlined is background": ({"classes": ("stroma", "nucleus")}, BOTH),
    "or says nothing, if 0 does": (
        {"classes": ("background", "stroma", "nucleus"), "unlabelled_value": "0"},
        SPARSE,
    ),
    "as does a class that is named so": (
        {"classes": ("stroma", "nucleus"), "unlabelled_value": "stroma"},
        np.where(BOTH > 0, UNSAID, BOTH),
    ),
    "all classes are foreground of objects": ({"instances": True}, np.where(BOTH == 2, 1, BOTH)),
}


@pytest.mark.parametrize("case", SAID)
def test_what_an_outline_says_is_what_the_options_say_of_its_class(tmp_path, case):
    options, wanted = SAID[case]
    mask, _ = read(folder(tmp_path / "d", FOREST), **options)
    np.testing.assert_array_equal(mask.labels, wanted)
    if "instances" in options:
        np.testing.assert_array_equal(np.unique(mask.instances), [0, 2])
        assert (mask.instances[4:8, 4:8] == 2).all(), "of one kind of object the first keeps its pixels"


# The classes of FOREST: by a layer's name, ImageScope's description, an attribute as of MoNuSAC.
LAYERS = imagescope(
    layer(region(square(0, 0, 20)), name="background", value="no class"),
    layer(region(square(2, 2, 12)), value="stroma", number=2),
    layer(region(square(4, 4, 4)), attribute="nucleus", number=3),
    layer(region(square(10, 10, 6)), name="Ignore*", number=4),
)


@pytest.mark.parametrize("case", SAID)
def test_layers_of_imagescope_are_classes_as_of_other_programs(tmp_path, case):
    options, wanted = SAID[case]
    mask, _ = read(folder(tmp_path / "d", LAYERS, "masks/a.xml"), **options)
    if "instances" in options:  # without classes every layer is foreground
        np.testing.assert_array_equal(mask.instances > 0, boxes((1, 0, 0, 20, 20)))
        said = "has 4 annotation layers (background, stroma, nucleus, Ignore*): the outlines of all of them are taken"
        assert mask.notes[0] == said
    else:
        np.testing.assert_array_equal(mask.labels, wanted)


def test_what_is_excluded_from_a_layer_of_imagescope_is_cut_out_of_that_layer_alone(tmp_path):
    stroma = layer(region(square(0, 0, 16)), region(square(4, 4, 8), excluded=1), name="stroma")
    content = imagescope(stroma, layer(region(square(6, 6, 9)), name="nucleus", number=2))
    mask, _ = read(folder(tmp_path / "d", content, "masks/a.xml"), classes=NAMES)
    np.testing.assert_array_equal(mask.labels, boxes((2, 0, 0, 16, 16), (0, 4, 4, 8, 8), (1, 6, 6, 9, 9)))
    assert mask.notes[0] == "1 of 3 outlines are excluded areas (NegativeROA): cut out of their layer"


def test_what_is_excluded_far_beyond_an_object_does_not_make_it_the_smaller_one(tmp_path):
    stroma = layer(region(square(0, 0, 16)), region(square(12, 0, 24), excluded=1), name="stroma")
    content = imagescope(stroma, layer(region(square(4, 4, 6)), name="nucleus", number=2))
    mask, _ = read(folder(tmp_path / "d", content, "masks/a.xml"), classes=NAMES)
    np.testing.assert_array_equal(mask.labels, boxes((2, 0, 0, 12, 16), (1, 4, 4, 6, 6)))


def test_an_attribute_names_a_layer_and_not_its_value(tmp_path):
    content = imagescope(layer(region(square(2, 2, 6)), attribute="nucleus", value="3"))
    mask, _ = read(folder(tmp_path / "d", content, "masks/a.xml"), classes=NAMES)
    np.testing.assert_array_equal(mask.labels, boxes((1, 2, 2, 6, 6)))


def test_shapes_of_a_group_are_one_object_and_labelmes_own_names_count(tmp_path):
    parts = [shape("rectangle", [[x, 2], [x + 4, 6]], group_id=group) for x, group in ((2, 1), (10, 1), (20, None))]
    silent = shape("rectangle", [[2, 12], [6, 16]], "__ignore__")
    mask, _ = read(folder(tmp_path / "d", labelme(*parts, silent)), instances=True)
    wanted = boxes((1, 2, 2, 4, 4), (1, 10, 2, 4, 4), (2, 20, 2, 4, 4))
    np.testing.assert_array_equal(mask.instances, wanted)
    np.testing.assert_array_equal(mask.labels, np.minimum(wanted, 1) + boxes((UNSAID, 2, 12, 4, 4)))


@pytest.mark.parametrize("where", ["file", "directory", "splits"])
def test_a_coco_file_is_of_many_images(tmp_path, where):
    images = ("train/a.png", "val/b.png", "c.png", "elsewhere.png")
    content = coco(
        {"segmentation": [flat(square(2, 3, 4))]},
        {"segmentation": [flat(square(9, 3, 4))], "image_id": 8, "category_id": 2},
        {"segmentation": [flat(square(9, 3, 8))], "image_id": 8, "iscrowd": 1},
        images=images,
    )
    root = folder(tmp_path / "d", content, "outlines/all.json", ("a", "b", "c", "d"))
    if where == "splits":
        for name, split in (("a", "train"), ("b", "val"), ("c", "test"), ("d", "test")):
            (root / split / "images").mkdir(parents=True, exist_ok=True)
            (root / f"images/{name}.png").rename(root / split / f"images/{name}.png")
        (root / "images").rmdir()
    place = root / ("outlines" if where == "directory" else "outlines/all.json")
    samples, problems = read_dataset("folder", root, ReadOptions(annotations=place, classes=NAMES))
    masks = {sample.id: load_mask(sample, H, W) for sample in samples if sample.mask}
    np.testing.assert_array_equal(masks["a"].labels, boxes((1, 2, 3, 4, 4)))
    np.testing.assert_array_equal(masks["b"].labels, boxes((UNSAID, 9, 3, 8, 8)))
    np.testing.assert_array_equal(masks["c"].labels, boxes())
    said = [str(problem) for problem in problems]
    assert any(line.endswith("d.png: has no mask: it is unlabelled") for line in said)
    assert any(line.endswith("lists images that are not in images/: 1 (elsewhere.png)") for line in said)
    assert len({mask.sha256 for mask in masks.values()}) == 3, "the digest is of what is said of one image"


def test_an_export_may_be_called_after_the_file_and_not_the_image(tmp_path):
    root = folder(tmp_path / "d", feature(square(2, 3, 4)), "drawn/a.png.geojson")
    (root / "drawn/a.png").touch()  # labelme keeps its files beside the images
    mask, problems = read(root, annotations=root / "drawn")
    np.testing.assert_array_equal(mask.labels, boxes((1, 2, 3, 4, 4)))
    assert not [problem for problem in problems if problem.severity == "error"]


# What is told
