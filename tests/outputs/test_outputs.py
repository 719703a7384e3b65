"""What the writers wrote, opened by other programs' readers and compared with the mask, pixel for pixel."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import roifile
import shapely
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Labels, Multiscales, Reader
from ome_zarr_models.v05 import Image as ImageModel
from ome_zarr_models.v05 import Labels as LabelsModel
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image
from scipy import ndimage

from textdiff.errors import UserError
from textdiff.outputs import FORMATS, write_output
from textdiff.outputs.colours import class_colours
from textdiff.outputs.objects import object_record
from textdiff.outputs.overlay import annotated
from textdiff.tests.output_cases import centres, filled, segment, write


@pytest.fixture(scope="module")
def made():
    """A crowded image of two classes, 130 x 701, with objects that touch, holes and parts that meet at corners."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((3, 130, 701)), (0, 4, 4))
    weights = np.exp(40 * noise + np.array([2.5, 0, 0])[:, None, None])
    probabilities = (weights / weights.sum(0)).astype(np.float32)
    image = rng.integers(0, 256, (130, 701, 3), dtype=np.uint8)
    return segment("case", image, probabilities, ("nucleus", "stroma")), probabilities


def test_geojson_parsed_back_and_rasterised_is_the_mask(made, tmp_path):
    segmented = made[0]
    collection = json.loads(write("geojson", tmp_path, segmented).read_text())
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == len(segmented.found) > 50
    labels, objects = np.zeros_like(segmented.labels), np.zeros_like(segmented.objects)
    x, y = centres(labels.shape)
    kinds = set()
    for feature in collection["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        left, top, right, bottom = map(int, shape.bounds)
        box = np.s_[top:bottom, left:right]
        inside = shapely.contains_xy(shape, x[box], y[box])
        properties = feature["properties"]
        assert not objects[box][inside].any()
        objects[box][inside] = int(properties["name"])
        labels[box][inside] = 1 + ("nucleus", "stroma").index(properties["classification"]["name"])
        assert properties["measurements"]["Area px^2"] == shape.area
        kinds.add((shape.geom_type, bool(feature["geometry"]["coordinates"][1:])))
    assert (labels == segmented.labels).all()
    assert (objects == segmented.objects).all()
    assert {("Polygon", False), ("Polygon", True), ("MultiPolygon", True)} <= kinds


def test_geojson_has_what_qupath_reads(made, tmp_path):
    """The names and types that PathObjectTypeAdapters of QuPath 0.4 and later goes by."""
    collection = json.loads(write("geojson", tmp_path, made[0]).read_text())
    ids = set()
    for feature, found in zip(collection["features"], made[0].found, strict=True):
        properties = feature["properties"]
        assert feature["type"] == "Feature"
        assert properties["objectType"] == "detection"
        assert properties["classification"] == {
            "name": made[0].class_names[found.class_number - 1],
            "color": list(class_colours(2)[found.class_number - 1]),
        }
        assert properties["measurements"]["Mean probability"] == pytest.approx(found.probability, abs=1e-6)
        ids.add(feature["id"])
    assert len(ids) == len(made[0].found)
    assert all(len(one) == 36 for one in ids)


def test_ome_zarr_is_opened_by_ome_zarr_with_its_labels(made, tmp_path):
    segmented = made[0]
    path = write("ome-zarr", tmp_path, segmented)
    nodes = list(Reader(parse_url(str(path)))())
    image = nodes[0]
    assert image.first(Multiscales)
    assert (np.asarray(image.data[0]) == np.moveaxis(segmented.image, -1, 0)).all()
    assert any(node.first(Labels) for node in nodes)
    labels = {node.zarr.basename(): node for node in nodes if node.first(Label)}
    assert (np.asarray(labels["classes"].data[0]) == segmented.labels).all()
    assert (np.asarray(labels["objects"].data[0]) == segmented.objects).all()
    assert [level.shape for level in labels["objects"].data] == [(130, 701), (65, 351)]
    assert [level.shape[1:] for level in image.data] == [(130, 701), (65, 351)]
    assert labels["classes"].metadata["properties"][2] == {"class": "stroma"}
    assert labels["objects"].metadata["properties"][1]["area"] == segmented.found[0].area


def test_ome_zarr_satisfies_the_models_of_ngff_0_5(made, tmp_path):
    path = write("ome-zarr", tmp_path, made[0])
    image = ImageModel.from_zarr(zarr.open_group(path, mode="r"))
    assert image.attributes.ome.version == "0.5"
    assert set(LabelsModel.from_zarr(zarr.open_group(path / "labels", mode="r")).attributes.ome.labels) == {
        "classes",
        "objects",
    }
    for name in ("classes", "objects"):
        label = ImageLabel.from_zarr(zarr.open_group(path / "labels" / name, mode="r"))
        assert label.attributes.ome.image_label.source.image == "../../"
        first, second = label.attributes.ome.multiscales[0].datasets
        assert first.coordinateTransformations[0].scale == [1, 1]
        assert [t.type for t in second.coordinateTransformations] == ["scale"]
    second = image.attributes.ome.multiscales[0].datasets[1]
    assert second.coordinateTransformations[1].translation == [0, 0.5, 0.5]


def test_lower_levels_are_the_mean_of_the_image_and_a_pixel_of_the_labels(made, tmp_path):
    root = zarr.open_group(write("ome-zarr", tmp_path, made[0]), mode="r")
    image = np.asarray(made[0].image[:, :700], float).transpose(2, 0, 1)
    mean = image.reshape(3, 65, 2, 350, 2).mean((2, 4))
    assert np.abs(root["1"][:, :, :350] - mean).max() <= 0.5
    assert (root["labels/objects/1"][...] == made[0].objects[::2, ::2]).all()


@pytest.mark.parametrize("size", [None, (0.25, 0.5)])
def test_a_label_of_a_lower_level_lies_where_its_pixel_does_on_the_first(made, tmp_path, size):
    root = zarr.open_group(write("ome-zarr", tmp_path, replace(made[0], pixel_size=size)), mode="r")
    for name, whole in (("classes", made[0].labels), ("objects", made[0].objects)):
        group = root[f"labels/{name}"]
        for level in group.attrs["ome"]["multiscales"][0]["datasets"]:
            place = np.indices(group[level["path"]].shape).astype(float)
            for one in level["coordinateTransformations"]:
                value = np.reshape(one[one["type"]], (2, 1, 1))
                place = place * value if one["type"] == "scale" else place + value
            y, x = place / np.reshape((size or (1, 1))[::-1], (2, 1, 1))
            assert (y == y.round()).all()
            assert (x == x.round()).all()
            assert (whole[y.astype(int), x.astype(int)] == group[level["path"]][...]).all()


def test_nifti_is_opened_by_nibabel_as_itk_would_place_the_image(made, tmp_path):
    segmented = made[0]
    volume = nibabel.load(write("nifti", tmp_path, segmented))
    assert volume.shape == (701, 130, 1)
    assert volume.get_data_dtype() == np.uint8
    assert (segmented.labels == np.asarray(volume.dataobj)[..., 0].T).all()
    # ITK gives an image without orientation the identity in LPS; NIfTI's RAS turns x and y round.
    assert (volume.affine == np.diag([-1, -1, 1, 1])).all()
    numbered = nibabel.load(write("nifti", tmp_path, segmented, numbered=True))
    assert (segmented.objects == np.asarray(numbered.dataobj)[..., 0].T).all()


def test_rois_opened_by_roifile_and_filled_are_the_objects(made, tmp_path):
    segmented = made[0]
    rois = roifile.roiread(write("roi", tmp_path, segmented))
    assert len(rois) == len(segmented.found)
    composites = 0
    for roi, found in zip(rois, segmented.found, strict=True):
        assert roi.name == f"{segmented.class_names[found.class_number - 1]}-{found.number:05d}"
        assert (roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top) == found.box
        composites += roi.composite
        rings = roi.coordinates(multi=True) if roi.composite else [roi.coordinates()]
        left, top, width, height = found.box
        # roifile closes the rings of composites, which adds an edge of no length.
        mask = filled([np.asarray(ring, int) - (left, top) for ring in rings], (height, width))
        assert (mask == (segmented.objects[top : top + height, left : left + width] == found.number)).all()
    assert 1 < composites < len(rois)


def test_png_holds_the_classes_or_the_objects(made, tmp_path):
    segmented = made[0]
    with Image.open(write("png", tmp_path, segmented)) as picture:
        assert (np.asarray(picture) == segmented.labels).all()
    with Image.open(write("png", tmp_path, segmented, numbered=True)) as picture:
        assert (np.asarray(picture) == segmented.objects).all()
    single = segment("a", segmented.image, made[1][:2], ("nucleus",))
    with Image.open(write("png", tmp_path, single)) as picture:
        assert (np.asarray(picture) == 255 * made[1][:2].argmax(0)).all()


def test_measurements_agree_with_each_object_on_its_own(made):
    segmented, probabilities = made
    assert [found.number for found in segmented.found] == list(range(1, segmented.objects.max() + 1))
    for found in segmented.found:
        y, x = np.nonzero(segmented.objects == found.number)
        assert found.area == len(y)
        assert {found.class_number} == set(segmented.labels[y, x])
        assert found.centroid == pytest.approx((x.mean() + 0.5, y.mean() + 0.5))
        assert found.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        assert found.probability == pytest.approx(probabilities[found.class_number, y, x].mean(), rel=1e-5)
    record = object_record(segmented, segmented.found[0])
    assert record["class"] == segmented.class_names[segmented.found[0].class_number - 1]


def test_what_is_no_object_is_background_everywhere(made):
    _, probabilities = made
    segmented = segment("a", np.zeros((130, 701, 3), np.uint8), probabilities, ("a", "b"), min_area=60)
    assert ((segmented.labels > 0) == (segmented.objects > 0)).all()
    assert (probabilities.argmax(0) > 0).sum() > (segmented.objects > 0).sum()
    assert min(found.area for found in segmented.found) >= 60


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_without_objects_is_written_too(kind, tmp_path):
    nothing = np.stack([np.ones((20, 30)), np.zeros((20, 30))]).astype(np.float32)
    empty = segment("a", np.zeros((20, 30, 3), np.uint8), nothing, ("nucleus",))
    path = write(kind, tmp_path, empty)
    if kind == "geojson":
        assert json.loads(path.read_text())["features"] == []
    elif kind == "ome-zarr":
        assert len([node for node in Reader(parse_url(str(path)))() if node.first(Label)]) == 2
        ImageLabel.from_zarr(zarr.open_group(path / "labels/objects", mode="r"))
    elif kind == "nifti":
        assert not np.asarray(nibabel.load(path).dataobj).any()
    elif kind == "roi":
        assert zipfile.ZipFile(path).namelist() == []


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_segmentation_gives_the_same_bytes_and_replaces_what_is_there(kind, made, tmp_path):
    def content(path):
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        return [(str(file.relative_to(path)), file.read_bytes()) for file in files]

    first = content(write(kind, tmp_path, made[0]))
    assert content(write(kind, tmp_path, made[0])) == first


@pytest.mark.parametrize("kind", FORMATS)
def test_a_failure_leaves_what_was_there(kind, made, tmp_path, monkeypatch):
    path = write(kind, tmp_path, made[0])
    before = sorted(file.stat().st_mtime_ns for file in [path, *path.rglob("*")])

    replace, failures = Path.replace, iter([OSError("disk full")])

    def fail_once(self, target):
        # Zarr renames files of its own meanwhile; what counts is the step that gives the final name.
        for failure in failures if Path(target) == path else ():
            raise failure
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(OSError, match="disk full"):
        write(kind, tmp_path, made[0])
    assert sorted(file.stat().st_mtime_ns for file in [path, *path.rglob("*")]) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_no_ome_zarr_is_not_replaced(made, tmp_path):
    (tmp_path / "x.ome.zarr").mkdir()
    (tmp_path / "x.ome.zarr/thesis.tex").write_text("irreplaceable")
    with pytest.raises(UserError, match="no OME-Zarr"):
        write_output("ome-zarr", tmp_path / "x.ome.zarr", made[0])
    assert (tmp_path / "x.ome.zarr/thesis.tex").exists()


def test_micrometres_are_those_of_each_axis(made, tmp_path):
    segmented = replace(made[0], pixel_size=(0.25, 0.5))
    features = json.loads(write("geojson", tmp_path, segmented).read_text())["features"]
    for feature, found in zip(features, segmented.found, strict=True):
        assert feature["properties"]["measurements"]["Area µm^2"] == pytest.approx(found.area / 8)
    record = object_record(segmented, segmented.found[3])
    assert record["area_um2"] == pytest.approx(segmented.found[3].area / 8)
    assert (record["centroid_x_um"], record["centroid_y_um"]) == pytest.approx(
        (record["centroid_x"] / 4, record["centroid_y"] / 2), abs=1e-3
    )
    (tmp_path / "x.geojson").unlink()
    root = zarr.open_group(write("ome-zarr", tmp_path, segmented), mode="r")
    ImageModel.from_zarr(root)
    for group in (root, root["labels/objects"]):
        (multiscale,) = group.attrs["ome"]["multiscales"]
        assert [axis.get("unit") for axis in multiscale["axes"]][-2:] == ["micrometer", "micrometer"]
        first, second = (level["coordinateTransformations"] for level in multiscale["datasets"])
        assert (first[0]["scale"][-2:], second[0]["scale"][-2:]) == ([0.5, 0.25], [1.0, 0.5])
    assert second[0]["scale"] == [1.0, 0.5]
    (multiscale,) = root.attrs["ome"]["multiscales"]
    assert multiscale["datasets"][1]["coordinateTransformations"][1]["translation"][-2:] == [0.25, 0.125]


@pytest.mark.parametrize(("size", "micrometres"), [(0.25, 20), (0.004, 0.2), (140.0, 10_000)])
def test_a_scale_bar_is_as_long_as_it_says(size, micrometres):
    grey = np.full((400, 400, 3), 100, np.uint8)
    drawn = annotated(grey, ("a",), (size, size))
    bar = (drawn[-7] == 255).all(axis=1).sum() + 2  # and its two black ends
    assert abs(bar - micrometres / size) <= 2
    assert (annotated(grey, ("a",), None) == grey).all()


def test_colours_of_many_classes_differ():
    assert len(set(class_colours(40))) == 40
    assert class_colours(2) == class_colours(9)[:2]
    assert class_colours(1) == class_colours(9)[:1]
