"""ImageScope's outlines, and the MoNuSeg challenge's own layout, which has its masks as such."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.images.formats import BadImageError
from textdiff.options.reading import ReadOptions
from textdiff.readers.aperio import read_aperio
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.readers.decoding import load_mask
from textdiff.readers.outlines import Drawn, Raster, draw
from textdiff.tests.reader_cases import EXTRACT


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


def drawn_of(outlines: list, height: int, width: int) -> Raster:
    """Objects of one class."""
    objects = [Drawn(f"outline {number}", None, ((np.array(outline),),)) for number, outline in enumerate(outlines)]
    return draw("a.xml", objects, [1] * len(objects), 0, height, width, instances=True)


def test_a_pixel_is_inside_an_outline_if_its_centre_is():
    _, instances, notes = drawn_of([square(1, 2, 3), square(6.6, 0.4, 2)], 8, 10)
    expected = np.zeros((8, 10), np.uint32)
    expected[2:5, 1:4], expected[0:2, 7:9] = 1, 2
    np.testing.assert_array_equal(instances, expected)
    assert notes == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_rasterising_agrees_with_counting_crossings(seed):
    """Against an independent even-odd test of every pixel's centre."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-3, 15, (generator.integers(3, 9), 2))
    _, instances, _ = drawn_of([corners, square(0, 0, 1)], 12, 12)
    for y in range(12):
        for x in range(12):
            px, py, inside = x + 0.5, y + 0.5, False
            for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, 1, 0), strict=True):
                if (y0 > py) != (y1 > py) and px < (x1 - x0) * (py - y0) / (y1 - y0) + x0:
                    inside = not inside
            assert (instances[y, x] == 1) == inside


def test_the_first_of_overlapping_outlines_keeps_its_pixels():
    _, instances, notes = drawn_of([square(0, 0, 4), square(2, 2, 4), square(1, 1, 1), square(20, 20, 2)], 8, 8)
    assert np.count_nonzero(instances == 1) == 16
    assert np.count_nonzero(instances == 2) == 12
    assert notes == [
        "1 of 4 outlines (outline 3) lie outside the image (ignored)",
        "1 of 4 outlines (outline 2) hold no pixel of their own (ignored)",
        "5 pixels lie in several outlines: the first keeps them",
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
        ["1 of 2 outlines (region without Id of layer 1) hold no pixel's centre (ignored)"],
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
    points = np.random.default_rng(0)
    many = [points.uniform(0, 5000, (20_000, 2))] if number == "corners" else [points.uniform(-9e8, 9e8, (3, 2))] * 9000
    with pytest.raises(BadImageError, match="outlines that are too large together"):
        drawn_of(many, 5000, 5000)


def test_an_excluded_area_of_many_corners_over_many_outlines_is_cut_out(tmp_path):
    """One that lies over a thousand outlines is not charged, corner by corner, for each of them."""
    angle = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    circle = list(zip(300 + 290 * np.cos(angle), 300 + 290 * np.sin(angle), strict=True))
    squares = [region(square(x, y, 10)) for y in range(0, 600, 15) for x in range(0, 600, 15)]
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/x.tif", np.zeros((600, 600, 3), np.uint8), photometric="rgb")
    (tmp_path / "x.xml").write_text(f"<Annotations>{layer(*squares, region(circle, excluded=1))}</Annotations>")
    (sample,), _ = read_dataset("monuseg", tmp_path)
    y, x = np.mgrid[:600, :600]
    far = np.hypot(y + 0.5 - 300, x + 0.5 - 300) - 290
    expected = (y % 15 < 10) & (x % 15 < 10) & (far > 0)
    np.testing.assert_array_equal((load_mask(sample, 600, 600).labels > 0)[abs(far) > 0.1], expected[abs(far) > 0.1])


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
        read_aperio("a.xml", data, by_layer=False)


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
