"""Instances, classes, outlines, HDF5 and DICOM: into the cache and through to the scores."""

import json
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textdiff.cache import CacheError, FeatureCache, export_hdf5, import_hdf5
from textdiff.errors import UserError
from textdiff.images.formats import BadImageError
from textdiff.images.images import resize_mask
from textdiff.options.reading import ReadOptions
from textdiff.pipeline.evaluation.class_scores import class_scores
from textdiff.pipeline.evaluation.image_predictions import image_instances
from textdiff.readers.aperio import Outline, outlines_of, rasterise
from textdiff.readers.datasets import inspect, read_dataset, report
from textdiff.readers.decoding import load_mask
from textdiff.tests import cache_cases as cases

SPLITS = ("train", "train", "val", "test")


def labels_of(number: int, size: int = 64) -> np.ndarray:
    """Discs numbered from 1, some touching."""
    draw = np.random.default_rng([9, number])
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint32)
    for label in range(1, 7):
        cy, cx = draw.uniform(8, size - 8, 2)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 40] = label
    return labels


def make_folder(root: Path, masks: list[np.ndarray]) -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows = ["image,text,split"]
    for number, (mask, split) in enumerate(zip(masks, SPLITS, strict=True)):
        pixels = np.random.default_rng([1, number]).integers(0, 40, (*mask.shape, 3), dtype=np.uint8)
        pixels[..., 0] += (80 * (mask > 0)).astype(np.uint8)
        pixels[..., 1] += (80 * (mask % 2)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        tifffile.imwrite(root / f"masks/{number}.tif", mask, photometric="minisblack")
        rows.append(f"{number},text {number},{split}")
    (root / "texts.csv").write_text("\n".join(rows))
    return root


EXTRACT = ("extract", "--text-encoder", "none", "--image-size", "64", "--blocks", "4", "--steps", "50")


# Instances


@pytest.fixture(scope="module")
def with_instances(tmp_path_factory, tiny_backbone, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("instances")
    make_folder(root / "data", [labels_of(number).astype(np.uint16) for number in range(4)])
    options = ("--backbone", str(tiny_backbone), "--views", "8", "--instances")
    textdiff_once(root, *EXTRACT, "--dataset", "folder", "--data", "data", *options)
    return root


def test_instances_survive_into_the_cache_at_their_original_size(with_instances):
    cache = FeatureCache.open(with_instances / "cache/data.zarr")
    assert cache.has_instances
    assert len(cache.rows) == 18
    for row, entry in enumerate(cache.rows):
        stored = cache.instances(row)
        if entry.view:
            assert stored is None
            continue
        assert stored is not None
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, labels_of(int(entry.id)))
        np.testing.assert_array_equal(cache.truth(row), labels_of(int(entry.id)) > 0)
    assert cache.verify() == []


def test_instances_of_an_image_in_tiles_are_put_together_again(with_instances, tiny_backbone, textdiff_once):
    options = ("--dataset", "folder", "--data", "data", "--backbone", str(tiny_backbone), "--instances")
    textdiff_once(with_instances, *EXTRACT, *options, "--tile", "48", "--overlap", "8", "--cache", "tiles.zarr")
    cache = FeatureCache.open(with_instances / "tiles.zarr")
    assert len(cache.rows) == 16
    assert cache.verify() == []
    for row in range(0, 16, 4):
        np.testing.assert_array_equal(image_instances(cache, row), labels_of(int(cache.rows[row].id)))


def test_instances_go_through_hdf5_bit_for_bit(with_instances, tmp_path):
    cache = FeatureCache.open(with_instances / "cache/data.zarr")
    export_hdf5(cache, tmp_path / "out.h5")
    import_hdf5(tmp_path / "out.h5", tmp_path / "back.zarr")
    assert cases.tree(tmp_path / "back.zarr") == cases.tree(cache.path)


def test_a_damaged_map_of_instances_is_named_and_made_again(with_instances, tmp_path):
    shutil.copytree(with_instances / "cache/data.zarr", tmp_path / "c.zarr")
    chunk = tmp_path / "c.zarr/instances/c.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 8
    chunk.write_bytes(data)
    cache = FeatureCache.open(tmp_path / "c.zarr")
    assert [(fault.row, fault.array) for fault in cache.verify()] == [(0, "instances")]
    with pytest.raises(CacheError, match="the instances: the checksum does not match"):
        cache.instances(0)


def test_other_readers_see_the_instances(with_instances):
    import zarr

    array = zarr.open(with_instances / "cache/data.zarr")["instances"]
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array[0], labels_of(0))


def test_numbers_beyond_16_bits_are_kept_in_32(tmp_path):
    row = cases.make_rows()[0]
    big = np.full((row.height, row.width), 70_000, np.uint32)
    cache = cases.make(tmp_path / "c.zarr", rows=[row], fingerprint=cases.FINGERPRINT | {"instances": "uint32"})
    cache.write(0, **cases.arrays(cache, 0), instances=big)
    np.testing.assert_array_equal(cache.instances(0), big)
    small = cases.make(tmp_path / "s.zarr", rows=[row], fingerprint=cases.FINGERPRINT | {"instances": "uint16"})
    with pytest.raises(ValueError, match="70000 does not fit uint16"):
        small.write(0, **cases.arrays(small, 0), instances=big)
    with pytest.raises(ValueError, match="instances: missing"):
        small.write(0, **cases.arrays(small, 0))


def test_a_cache_without_instances_has_none(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"))
    assert cache.instances(0) is None
    assert cache.classes == ("foreground",)
    assert not (cache.path / "instances").exists()


def test_continuing_without_the_option_is_refused(with_instances, textdiff_once, tiny_backbone):
    options = ("--dataset", "folder", "--data", "data", "--backbone", str(tiny_backbone), "--views", "8")
    found = textdiff_once(with_instances, *EXTRACT, *options, "--classes", "a,b,c,d,e,f", status=2)
    assert "made otherwise" in found.stderr
    assert "instances" in found.stderr


# Classes


def test_several_classes_go_through_extract_fit_score_and_predict(tmp_path, tiny_backbone, textdiff_once):
    make_folder(tmp_path / "data", [(labels_of(n) % 3).astype(np.uint8) for n in range(4)])
    options = ("--dataset", "folder", "--data", "data", "--backbone", str(tiny_backbone))
    textdiff_once(tmp_path, *EXTRACT, *options, "--classes", "nucleus,stroma")
    cache = FeatureCache.open(tmp_path / "cache/data.zarr")
    assert cache.classes == ("nucleus", "stroma")
    np.testing.assert_array_equal(cache.truth(0), labels_of(0) % 3)
    np.testing.assert_array_equal(cache.mask(0), labels_of(0) % 3)  # the image has the cache's size
    textdiff_once(tmp_path, "fit", "--cache", "cache/data.zarr", "--variant", "no-text", "--epochs", "3")
    config = json.loads((tmp_path / "runs/latest/config.json").read_text())
    assert config["head"]["classes"] == 3
    scored = json.loads(textdiff_once(tmp_path, "score", "--json").stdout)["scores"]["clean"]
    assert set(scored["classes"]) == {"nucleus", "stroma"}
    means = [scored["classes"][name]["dice"]["mean"] for name in ("nucleus", "stroma")]
    assert scored["dice"]["mean"] == pytest.approx(np.mean(means))
    assert "| - stroma |" in (tmp_path / "runs/latest/report.md").read_text()
    textdiff_once(tmp_path, "predict", "data/images/3.png", "--out", "out")
    predicted = np.asarray(Image.open(tmp_path / "out/3.png"))
    assert predicted.shape == (64, 64)
    assert set(np.unique(predicted)) <= {0, 1, 2}


def test_class_scores_are_the_metric_of_each_class_and_their_mean():
    true = np.array([[0, 1, 1, 2], [0, 0, 2, 2]])
    predicted = np.array([[0, 1, 2, 2], [0, 0, 2, 0]])
    found = class_scores(predicted, true, ("a", "b"), "clean")
    assert found["iou_clean_a"] == 1 / 2
    assert found["iou_clean_b"] == 2 / 4
    assert found["dice_clean"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    binary = class_scores(predicted > 0, true > 0, ("foreground",), "clean")
    assert (binary["dice_clean"], binary["iou_clean"]) == pytest.approx((8 / 9, 4 / 5))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(["area", "bilinear"]), st.integers(3, 20))
def test_resizing_classes_is_resizing_masks_where_there_is_one(seed, classes, rule, size):
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, classes, (draw.integers(4, 24), draw.integers(4, 24)))
    several = resize_mask(mask, size, rule, classes=max(3, classes))
    binary = resize_mask(mask > 0, size, rule)
    assert several.max() < max(3, classes)
    np.testing.assert_array_equal(resize_mask(mask > 0, size, rule, classes=3), binary)
    if rule == "bilinear":
        np.testing.assert_array_equal(several > 0, binary > 0)


def test_classes_are_resized_by_majority():
    mask = np.array([[1, 1, 2, 0], [1, 2, 0, 0], [2, 2, 0, 1], [1, 1, 2, 0]])
    # Upper right: three of background. Lower left: two and two, so the larger number. Lower right: 0, 0, 1, 2.
    np.testing.assert_array_equal(resize_mask(mask, 2, "area", classes=3), [[1, 0], [2, 0]])


# Outlines


def xml_of(*outlines: list[tuple[float, float]], attributes: str = "") -> bytes:
    regions = "".join(
        f'<Region Id="{number}" {attributes}><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in outline)
        + "</Vertices></Region>"
        for number, outline in enumerate(outlines, 1)
    )
    return f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>".encode()


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def test_a_pixel_is_inside_an_outline_if_its_centre_is():
    outlines, _ = outlines_of("a.xml", xml_of(square(1, 2, 3), square(6.6, 0.4, 2)))
    instances, notes = rasterise("a.xml", outlines, 8, 10)
    expected = np.zeros((8, 10), np.uint32)
    expected[2:5, 1:4], expected[0:2, 7:9] = 1, 2
    np.testing.assert_array_equal(instances, expected)
    assert notes == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_rasterising_agrees_with_counting_crossings(seed):
    """Against an independent even-odd test of every pixel's centre."""
    draw = np.random.default_rng(seed)
    corners = draw.uniform(-3, 15, (draw.integers(3, 9), 2))
    instances, _ = rasterise("a.xml", [Outline(corners), Outline(np.array(square(0, 0, 1)))], 12, 12)
    for y in range(12):
        for x in range(12):
            px, py, inside = x + 0.5, y + 0.5, False
            for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, 1, 0), strict=True):
                if (y0 > py) != (y1 > py) and px < (x1 - x0) * (py - y0) / (y1 - y0) + x0:
                    inside = not inside
            assert (instances[y, x] == 1) == inside


def test_the_first_of_overlapping_outlines_keeps_its_pixels():
    outlines, _ = outlines_of("a.xml", xml_of(square(0, 0, 4), square(2, 2, 4), square(1, 1, 1), square(20, 20, 2)))
    instances, notes = rasterise("a.xml", outlines, 8, 8)
    assert np.count_nonzero(instances == 1) == 16
    assert np.count_nonzero(instances == 2) == 12
    assert notes == [
        "1 of 4 outlines lie outside the image (ignored)",
        "1 of 4 outlines hold no pixel of their own (ignored)",
    ]


def region(corners: list[tuple[float, float]], kind: int = 0, excluded: int | str = 0) -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    return f'<Region Type="{kind}" NegativeROA="{excluded}"><Vertices>{vertices}</Vertices></Region>'


def layer(*regions: str, name: str = "") -> str:
    return f'<Annotation Id="1" Name="{name}"><Regions>{"".join(regions)}</Regions></Annotation>'


SQUARE = region(square(5, 5, 10))
REGIONS = {
    "an ellipse in its box": ([layer(SQUARE, region([(50, 40), (30, 50)], 2))], [100, 160], []),
    "an excluded area, even where it comes first": (
        [layer(region(square(20, 20, 20), excluded=1), region(square(10, 10, 40)))],
        [1200],
        ["1 of 2 outlines are excluded areas (NegativeROA): cut out of their layer"],
    ),
    "an excluded area in another layer": (
        [layer(region(square(10, 10, 10)), name="a"), layer(region(square(0, 0, 30), excluded=1), name="b")],
        [100],
        [
            "has 2 annotation layers (a, b): the outlines of all of them are taken",
            "1 of 2 outlines are excluded areas (NegativeROA): cut out of their layer",
        ],
    ),
    "a nucleus in an excluded area of the layer before": (
        [
            layer(region(square(10, 10, 40)), region(square(20, 20, 20), excluded=1), name="a"),
            layer(region(square(25, 25, 10)), name="b"),
        ],
        [1200, 100],
        [
            "has 2 annotation layers (a, b): the outlines of all of them are taken",
            "1 of 3 outlines are excluded areas (NegativeROA): cut out of their layer",
        ],
    ),
    "an excluded area in words": (
        [layer(region(square(10, 10, 40)), region(square(20, 20, 20), excluded="True"))],
        [1200],
        ["1 of 2 outlines are excluded areas (NegativeROA): cut out of their layer"],
    ),
    "an arrow and a ruler": (
        [layer(SQUARE, region(square(40, 40, 9), 3), region(square(40, 40, 9), 4))],
        [100],
        [
            "1 of 3 outlines are arrows (Type 3), which enclose nothing (ignored)",
            "1 of 3 outlines are rulers (Type 4), which enclose nothing (ignored)",
        ],
    ),
    "a point and a line": (
        [layer(SQUARE, region([(1, 1)]), region([(1, 1), (9, 9)]))],
        [100],
        ["2 of 3 outlines are polygons of fewer than three corners, which enclose nothing (ignored)"],
    ),
    "no area": (
        [layer(SQUARE, region([(30, 30)] * 4))],
        [100],
        ["1 of 2 outlines hold no pixel of their own (ignored)"],
    ),
}


@pytest.mark.parametrize("case", REGIONS)
def test_every_kind_of_region_is_drawn_or_named(tmp_path, case):
    """The ellipse against the pixels whose centres fulfil its equation."""
    layers, areas, said = REGIONS[case]
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/x.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    (tmp_path / "x.xml").write_text(f"<Annotations>{''.join(layers)}</Annotations>")
    (sample,), _ = read_dataset("monuseg", tmp_path)
    mask = load_mask(sample, 64, 64)
    assert np.unique(mask.instances, return_counts=True)[1][1:].tolist() == areas
    assert mask.notes == said
    if "ellipse" in case:
        y, x = np.mgrid[:64, :64] + 0.5
        np.testing.assert_array_equal(mask.instances == 2, ((x - 40) / 10) ** 2 + ((y - 45) / 5) ** 2 < 1)


@pytest.mark.parametrize("number", ["corners", "areas"])
def test_outlines_that_would_take_minutes_are_refused_at_once(number):
    draw = np.random.default_rng(0)
    many = [draw.uniform(0, 5000, (20_000, 2))] if number == "corners" else [draw.uniform(-9e8, 9e8, (3, 2))] * 9000
    with pytest.raises(BadImageError, match="outlines that are too large together"):
        rasterise("a.xml", [Outline(corners) for corners in many], 5000, 5000)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("MoNuSegTestData", "test"),
        ("test_images", "test"),
        ("my TEST set", "test"),
        ("testimages", "test"),
        ("TestingData/val", "test"),
        ("Validation", "val"),
        ("testis", "train"),
        ("latest", "train"),
        ("contest/Contestants", "train"),
        ("attested-2019", "train"),
    ],
)
def test_an_image_is_of_the_test_if_a_word_in_its_folders_says_so(tmp_path, folder, split):
    (tmp_path / folder).mkdir(parents=True)
    tifffile.imwrite(tmp_path / folder / "x.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    (tmp_path / folder / "x.xml").write_bytes(xml_of(square(1, 1, 4)))
    assert [sample.split for sample in read_dataset("monuseg", tmp_path)[0]] == [split]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "b">]><Annotations>&a;</Annotations>', "defines XML entities"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Annotations/>', "defines XML entities"),
        (b"<Annotations>", "is not XML"),
        (b"", "is not XML"),
        (b"<html/>", "is not an ImageScope file"),
        (f"<Annotations>{SQUARE}</Annotations>".encode(), "has outlines outside of its layers"),
        (xml_of(square(1, 1, 4), attributes='NegativeROA="2"'), "region 1 has NegativeROA 2, not 0 or 1"),
        (xml_of([(0, 0), (1, 0)]).replace(b'X="1"', b'X="one"'), "region 1 has a corner without X and Y"),
        (xml_of([(0, 0), (1, 0)]).replace(b'X="1"', b'X="inf"'), "region 1 has a corner that is not finite"),
    ],
)
def test_bad_outlines_get_one_line(data, words):
    with pytest.raises(BadImageError, match=f"a.xml: {words}"):
        outlines_of("a.xml", data)


def make_challenge(root: Path) -> Path:
    images, annotations = (
        root / "MoNuSeg 2018 Training Data/Tissue Images",
        root / "MoNuSeg 2018 Training Data/Annotations",
    )
    test = root / "MoNuSegTestData"
    for folder in (images, annotations, test):
        folder.mkdir(parents=True)
    for number in range(5):
        pixels = np.random.default_rng([2, number]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        name = f"TCGA-18-000{number // 2}-01Z-00-DX{number}"
        image, xml = (images, annotations) if number < 4 else (test, test)
        tifffile.imwrite(image / f"{name}.tif", pixels, photometric="rgb")
        (xml / f"{name}.xml").write_bytes(xml_of(square(4, 4, 10), square(14, 4, 10), square(40, 40, 6)))
    return root


def test_the_challenges_own_layout_is_read_with_its_instances(tmp_path, tiny_backbone, textdiff_once):
    make_challenge(tmp_path / "MoNuSeg")
    samples, problems = read_dataset("monuseg", tmp_path / "MoNuSeg", ReadOptions(val=0.5))
    assert sorted(sample.split for sample in samples) == ["test", "train", "train", "val", "val"]
    assert {sample.group for sample in samples if sample.split == "val"} in ({"TCGA-18-0000"}, {"TCGA-18-0001"})
    assert not [problem for problem in problems if problem.severity == "error"]
    assert "texts.csv: is not there: all texts are empty; the challenge comes without any" in map(str, problems)
    (tmp_path / "MoNuSeg/texts.csv").write_text("image,text\nTCGA-18-0000-01Z-00-DX0.tif,Dense nuclei.\n")
    options = ("--dataset", "monuseg", "--data", "MoNuSeg", "--backbone", str(tiny_backbone))
    textdiff_once(tmp_path, *EXTRACT, *options)
    cache = FeatureCache.open(tmp_path / "cache/monuseg.zarr")
    assert cache.texts[cache.rows[0].text] == "Dense nuclei."
    instances = cache.instances(0)
    assert instances is not None
    # Touching nuclei stay two, which the mask alone does not tell.
    assert [np.count_nonzero(instances == label) for label in (1, 2, 3)] == [100, 100, 36]
    np.testing.assert_array_equal(cache.truth(0), instances > 0)


def test_what_does_not_fit_the_challenge_is_named(tmp_path):
    root = make_challenge(tmp_path / "m")
    (root / "MoNuSegTestData/other.xml").write_bytes(xml_of(square(0, 0, 4)))
    xml = sorted(root.glob("*/Annotations/*.xml"))
    xml[0].write_bytes(xml_of(square(900, 900, 10)))
    samples, problems = read_dataset("monuseg", root)
    said = [str(problem) for problem in [*problems, *inspect(samples)[1]] if problem.severity == "error"]
    assert said[0] == "MoNuSegTestData/other.xml: are outlines without an image; add the image or remove it"
    assert "has all its outlines outside the image of 64x64 pixels" in said[1]
    with pytest.raises(UserError, match=r"--test: .* has its own test images"):
        read_dataset("monuseg", root, ReadOptions(test=0.2))


def test_mosmed_is_read_in_the_lvit_layout(make_lvit):
    assert len(read_dataset("mosmed", make_lvit(qata=True))[0]) == 6


# HDF5


@pytest.fixture
def h5(tmp_path) -> Path:
    """Four images with masks, texts, splits and groups."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        draw = np.random.default_rng(0)
        file["images"] = draw.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        file["masks"] = np.stack([labels_of(number) > 0 for number in range(4)]).astype(np.uint8)
        file["texts"] = ["Dense nuclei.", "Läsionen: 3 µm", "", "Few nuclei."]
        file["split"] = list(SPLITS)
        file["group"] = [1, 1, 2, 3]
    return tmp_path / "data.h5"


def test_an_hdf5_file_gives_the_rows_of_a_folder_with_the_same_content(h5, tmp_path, tiny_backbone, textdiff_once):
    with h5py.File(h5) as file:
        masks = list(file["masks"][:])
        root = make_folder(tmp_path / "folder", masks)
        for number, pixels in enumerate(file["images"][:]):
            Image.fromarray(pixels).save(root / f"images/{number}.png")
    backbone = ("--backbone", str(tiny_backbone))
    textdiff_once(tmp_path, *EXTRACT, *backbone, "--dataset", "hdf5", "--data", "data.h5")
    textdiff_once(tmp_path, *EXTRACT, *backbone, "--dataset", "folder", "--data", "folder")
    ours, theirs = (FeatureCache.open(tmp_path / f"cache/{name}.zarr") for name in ("data", "folder"))
    assert [(row.id, row.split) for row in ours.rows] == [(row.id, row.split) for row in theirs.rows]
    assert ours.texts == ("Dense nuclei.", "Läsionen: 3 µm", "", "Few nuclei.")
    assert ours.rows[1].source == "images[1]"
    for row in range(4):
        np.testing.assert_array_equal(ours.features(row, 4), theirs.features(row, 4))
        np.testing.assert_array_equal(ours.truth(row), theirs.truth(row))


def test_hdf5_groups_of_images_may_differ_in_size_and_have_any_names(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for name, side in (("b", 20), ("a", 32)):
            file[f"raw/slides/{name}"] = np.random.default_rng(side).integers(0, 65535, (side, side), dtype=np.uint16)
        file["gt/a"] = labels_of(0, 32).astype(np.uint16)
        file["notes/a"], file["notes/b"] = "one", "two"
    options = ReadOptions(h5_images="raw/slides", h5_masks="gt", h5_texts="notes", instances=True)
    samples, problems = read_dataset("hdf5", tmp_path / "d.h5", options)
    assert [(s.id, s.text, s.mask is None) for s in samples] == [("a", "one", False), ("b", "two", True)]
    facts, found = inspect(samples)
    assert [(fact.width, fact.objects) for fact in facts] == [(32, int(labels_of(0, 32).max())), (20, 0)]
    assert [p for p in [*problems, *found] if p.severity == "error"] == []


def test_hdf5_images_are_read_one_at_a_time(h5, monkeypatch):
    asked = []
    read = h5py.Dataset.__getitem__

    def spy(self, key, *rest, **named):
        if self.ndim > 1:
            asked.append(key)
        return read(self, key, *rest, **named)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    inspect(read_dataset("hdf5", h5)[0])
    assert sorted(asked) == [0, 0, 1, 1, 2, 2, 3, 3]


def change(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


HDF5 = {
    "no such file": (lambda p: p.unlink(), {}, "data.h5: no such file"),
    "a directory": (lambda p: (p.unlink(), p.mkdir()), {}, "data.h5: is a directory; .*--dataset folder"),
    "no HDF5": (lambda p: p.write_text("x"), {}, "data.h5: is not an HDF5 file"),
    "no images": (lambda p: change(p, "images", None), {}, "has no dataset images; .*--h5-images; found group, masks"),
    "masks of another name": (lambda p: None, {"h5_masks": "labels"}, "has no dataset labels; name .*--h5-masks"),
    "another number of masks": (lambda p: change(p, "masks", np.zeros((3, 64, 64))), {}, "has 4 images and 3 masks"),
    "another number of texts": (
        lambda p: change(p, "texts", ["a"]),
        {},
        r"texts has the shape \(1,\) and not \(4,\); store one value per image",
    ),
    "channels first": (
        lambda p: change(p, "images", np.zeros((4, 3, 64, 64))),
        {},
        "channels first; store channels last",
    ),
    "one image only": (
        lambda p: change(p, "images", np.zeros((64, 64))),
        {},
        r"has the shape \(64, 64\); store images",
    ),
    "no image at all": (lambda p: change(p, "images", np.zeros((0, 64, 64))), {}, "images holds no images"),
    "a group inside a group": (
        lambda p: (change(p, "images", None), change(p, "images/a/b", np.zeros((9, 9)))),
        {"h5_masks": None, "h5_texts": "images"},
        r"data.h5: images/a is a group and not \(\); store one value per image",
    ),
    "an unknown split": (
        lambda p: change(p, "split", ["train", "train", "valdiation", "test"]),
        {},
        "images/2: has the split valdiation; did you mean val",
    ),
    "a text that is missing": (
        lambda p: change(p, "texts", ["x", "nan", "y", "z"]),
        {},
        "images/1: has nan, which stands for a missing value, for its text or group; write an empty string for none",
    ),
    "a group that is no number": (
        lambda p: change(p, "group", np.array([1, 1, 2, np.nan])),
        {},
        "images/3: has nan, which stands for a missing value",
    ),
    "masks of another size": (lambda p: change(p, "masks", np.zeros((4, 9, 9))), {}, "4 errors|is 9x9 pixels"),
    "splits given and drawn": (lambda p: None, {"val": 0.2}, "data.h5 has splits of its own"),
}


@pytest.mark.parametrize("case", HDF5)
def test_bad_hdf5_files_get_one_clear_line(h5, case):
    damage, options, line = HDF5[case]
    damage(h5)
    with pytest.raises(UserError, match=line):
        look_through(h5, ReadOptions(**options))


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """Bytes that no data set should bring in, as they are and in an HDF5 file."""
    (tmp_path / "secret.bin").write_bytes(bytes(range(256)) * 400)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.full((4, 64, 64, 3), 7, np.uint8)
    return tmp_path


def linked(file: h5py.File, folder: Path) -> None:
    del file["images"]
    file["images"] = h5py.ExternalLink(str(folder / "other.h5"), "/images")


def linked_within(file: h5py.File, folder: Path) -> None:
    file["there"] = h5py.ExternalLink(str(folder / "other.h5"), "/")
    del file["images"]
    file["images"] = h5py.SoftLink("/there/images")


def linked_members(file: h5py.File, folder: Path) -> None:
    del file["images"], file["masks"], file["texts"], file["split"], file["group"]
    file["images/a"] = h5py.ExternalLink(str(folder / "other.h5"), "/images")


def stored_outside(file: h5py.File, folder: Path) -> None:
    del file["images"]
    file.create_dataset("images", (4, 64, 64), np.uint8, external=[(str(folder / "secret.bin"), 0, 4 * 64 * 64)])


def virtual(file: h5py.File, folder: Path) -> None:
    del file["images"]
    layout = h5py.VirtualLayout((4, 64, 64, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "images", (4, 64, 64, 3))
    file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize(
    ("put", "what"),
    [
        (linked, "has a link at /images, which is not followed"),
        (linked_within, "has a link at /images, which is not followed"),
        (linked_members, "has a link at /images/a, which is not followed"),
        (stored_outside, "images: has its bytes in another file"),
        (virtual, "images: is a virtual data set"),
    ],
)
def test_hdf5_brings_in_nothing_from_outside(h5, elsewhere, put, what):
    with h5py.File(h5, "a") as file:
        put(file, elsewhere)
    with pytest.raises(UserError, match=what):
        look_through(h5, ReadOptions())


CLAIMS = {
    "large images": (
        "images",
        (3, 40_000, 40_000),
        np.float64,
        {},
        "images: was never written: 0 of 1 parts are there",
    ),
    "many images": ("images", (10**9, 64, 64), np.uint8, {"chunks": (1, 64, 64)}, "0 of 1000000000 parts are there"),
    "large chunks": ("images", (2, 40_000, 40_000), np.uint8, {"chunks": (1, 40_000, 40_000)}, "has chunks of"),
    "many texts": ("texts", (10**9,), h5py.string_dtype(), {"chunks": (1000,)}, "texts: was never written"),
    "long texts": ("texts", (4,), "S900000000", {}, "texts: was never written"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_small_hdf5_files_do_not_ask_for_a_large_memory(tmp_path, claim):
    name, shape, dtype, options, what = CLAIMS[claim]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(name, shape, dtype, **options)
        if name != "images":
            file["images"] = np.zeros((4, 9, 9), np.uint8)
    assert (tmp_path / "a.h5").stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=what):
            look_through(tmp_path / "a.h5", ReadOptions())
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_an_hdf5_file_that_the_library_never_comes_back_from_is_refused(h5):
    data = bytearray(h5.read_bytes())
    # The first object of the heap of texts is said to be so large that the next one is itself.
    size = data.index(b"GCOL") + 16 + 8
    data[size : size + 8] = (2**64 - 16).to_bytes(8, "little")
    h5.write_bytes(data)
    with pytest.raises(UserError, match=r"data.h5: is damaged, so that the HDF5 library does not come to an end"):
        look_through(h5, ReadOptions())


def test_images_of_hdf5_that_were_written_in_part_are_no_black_images(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = file.create_dataset("images", (4, 64, 64), np.uint8, chunks=(1, 64, 64))
        images[:3] = 9
    with pytest.raises(UserError, match=r"images: was never written: 3 of 4 parts are there"):
        look_through(tmp_path / "a.h5", ReadOptions())


def test_a_filter_that_is_not_here_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        coded = {"compression": 32001, "allow_unknown_filter": True, "chunks": (1, 8, 8)}
        images = file.create_dataset("images", (1, 8, 8), np.uint8, **coded)
        images.id.write_direct_chunk((0, 0, 0), bytes(64))
    with pytest.raises(
        UserError, match="images: is compressed with the filter 32001, which is not here; store it with gzip"
    ):
        look_through(tmp_path / "a.h5", ReadOptions())


def test_an_image_of_a_group_is_looked_at_before_it_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images/a", (12_000, 9_000), np.uint8, data=None, chunks=True, compression="gzip")[:] = 0
        file["images/b"] = np.zeros((9, 9), np.complex64)
        file["images/c"] = ["text"]
    _, problems = inspect(read_dataset("hdf5", tmp_path / "a.h5")[0])
    assert [problem.what for problem in problems if problem.severity == "error"][:3] == [
        "has 9000x12000 pixels, more than 80 megapixels",
        "is complex64 (9, 9) and no image",
        "is object (1,) and no image",
    ]


def look_through(path: Path, options: ReadOptions) -> None:
    samples, problems = read_dataset("hdf5", path, options)
    report(problems + inspect(samples)[1])
