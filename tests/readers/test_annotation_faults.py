"""Outlines from other programs: what a user is told of them, and how what is wrong is one line."""

import base64
import json
import re

import pytest
from PIL import Image

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.tests.annotation_cases import (
    NAMES,
    PNG,
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
    read,
    region,
    shape,
    square,
)

TOLD = {
    "lines and points": (
        collection(
            feature(square(2, 3, 4)),
            feature(geometry={"type": "LineString", "coordinates": [[1, 1], [5, 5]]}),
            feature(geometry={"type": "MultiPoint", "coordinates": [[1, 1], [5, 5]]}),
        ),
        {},
        ["2 of 3 objects are lines or points, which enclose nothing, and are strokes only with --unlabelled-value 0"],
    ),
    "a line of labelme": (
        labelme(shape("linestrip", [[1, 1], [5, 5]]), shape("rectangle", [[2, 3], [6, 7]])),
        {},
        ["1 of 2 objects are lines or points, which enclose nothing"],
    ),
    "another image of labelme": (
        labelme(shape("rectangle", [[2, 3], [6, 7]]), imagePath="..\\slides\\b.png"),
        {},
        ["says that it is of ..\\slides\\b.png: it is read for the image of its own name"],
    ),
    "the same image of labelme": (labelme(shape("rectangle", [[2, 3], [6, 7]]), imagePath="../raw/a.tif"), {}, []),
    "an outline that crosses itself": (
        feature([[2, 2], [12, 12], [12, 2], [2, 12], [2, 2]]),
        {},
        ["1 of 1 outlines (the feature) cross themselves: what they go around twice is outside"],
    ),
    "an outline that holds nothing": (
        collection(feature(square(2, 3, 4)), feature([[1, 1], [5, 5], [1, 1]]), feature([])),
        {},
        ["2 of 3 outlines (features[1] is the first) hold no pixel's centre (ignored)"],
    ),
    "an outline beyond the image": (
        collection(feature(square(2, 3, 4)), feature(square(W - 4, 3, 9)), feature(square(W + 1, 3, 4))),
        {},
        ["1 of 3 outlines (features[2]) lie outside the image (ignored)", "1 of 3 outlines (features[1]) reach beyond"],
    ),
    "classes that overlap": (
        collection(feature(square(2, 3, 8)), feature(square(4, 5, 4), name="stroma")),
        {"classes": NAMES},
        ["16 pixels lie in outlines of nucleus and of stroma: the smaller keeps them"],
    ),
    "objects that overlap": (
        collection(feature(square(2, 3, 8)), feature(square(4, 5, 4))),
        {"instances": True},
        ["1 of 2 outlines (features[1]) hold no pixel of their own", "16 pixels lie in several outlines: the first ke"],
    ),
    "background twice": (
        collection(feature(square(2, 3, 8)), feature(square(14, 5, 4), name="Background")),
        {},
        ["outlines background, and what is not outlined is background, too (see --unlabelled-value 0)"],
    ),
    "names without a class": (
        collection(
            feature(square(2, 3, 8)), feature(square(1, 1, 20), name="Region*"), feature(square(0, 0, 2), name="x*")
        ),
        {},
        [
            "1 of 3 objects are Region*, which names a place",
            "1 of 2 outlines have a name that ends in *: nothing is said",
        ],
    ),
    "a nucleus in a cell": (
        feature(square(2, 3, 8)) | {"nucleusGeometry": feature(square(4, 5, 2))["geometry"]},
        {},
        ["1 cells have an outlined nucleus, too: the cells' outlines are taken"],
    ),
    "crowds": (
        coco({"segmentation": [flat(square(2, 3, 8))], "iscrowd": 1}),
        {},
        ["1 of 1 objects are crowds (iscrowd): nothing is said there"],
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_a_user_should_know_is_told(tmp_path, case):
    content, options, wanted = TOLD[case]
    notes = read(folder(tmp_path / "d", content), **options)[0].notes
    for words in wanted:
        assert any(words in said for said in notes), notes
    assert len(notes) == len(wanted), notes


BAD = {
    "no JSON": ("{", {}, "masks/a.geojson: is not JSON that can be read"),
    "not UTF-8": (b"\xff\xfe{", {}, "is not JSON that can be read"),
    "deep JSON": ("[" * 100_000, {}, "is not JSON that can be read (is nested too deeply)"),
    "no number": ('{"type": "Polygon", "coordinates": [[[NaN, 1]]]}', {}, "NaN is no number"),
    "another kind of JSON": ({"a": 1}, {}, "is neither GeoJSON nor of COCO or labelme; export the annotations"),
    "no features": ({"type": "FeatureCollection"}, {}, "is a FeatureCollection without a list of features"),
    "a feature that is none": (collection(3), {}, "has no object at features[0]"),
    "another geometry": (feature(geometry={"type": "Circle"}), {}, "has a geometry of Circle at the feature, and not"),
    "no coordinates": (feature(geometry={"type": "Polygon"}), {}, "has no coordinates at the feature"),
    "a word in a corner": (feature([["1", 2], [3, 4]]), {}, "has a corner that is not two numbers at the feature"),
    "a far corner": (feature([[1e300, 2], [3, 4]]), {}, "has a corner that is not finite at the feature"),
    "a line without end": (
        feature(geometry={"type": "LineString", "coordinates": [[0, 0], [1e8, 0]]}),
        {"classes": ("background", *NAMES), "unlabelled_value": "0"},
        "has a line of more than 1000000 pixels (the feature); cut it",
    ),
    "a line of another image": (
        feature(geometry={"type": "LineString", "coordinates": [[200, 300], [210, 310]]}),
        {"classes": ("background", *NAMES), "unlabelled_value": "0"},
        "has all its outlines outside the image of 32x24 pixels",
    ),
    "another image's": (feature(square(200, 300, 5)), {}, "has all its outlines outside the image of 32x24 pixels"),
    "classes without a name": (
        collection(feature(square(2, 3, 4)), feature(square(9, 3, 4), name="stroma")),
        {},
        "outlines 2 classes (nucleus, stroma); name them with --classes nucleus,stroma",
    ),
    "an object without a class": (
        collection(feature(square(2, 3, 4)), feature(square(9, 3, 4), name=None)),
        {},
        "outlines the class nucleus, and an object without a class (features[1])",
    ),
    "one among classes": (feature(square(9, 3, 4), name=None), {"classes": NAMES}, "outline without a class (the feat"),
    "an unknown class": (
        feature(square(2, 3, 4), name="Nucleus"),
        {"classes": NAMES},
        "outlines the class Nucleus (did you mean nucleus?) (the feature); name it too, or end its name in *",
    ),
    "half a character": (feature(square(2, 3, 4), name="\ud800\n"), {"classes": NAMES}, "outlines the class \\ud800"),
    "a number that no outline has": (
        feature(square(2, 3, 4)),
        {"unlabelled_value": "255"},
        "holds outlines, which have no number 255; if nothing is known where nothing is outlined, use --classes backg",
    ),
    "an unknown layer": (
        imagescope(layer(region(square(2, 3, 4)), name="strom")),
        {"classes": NAMES},
        "masks/a.xml: outlines the class strom (did you mean stroma?) (region 1 of layer 1); name it too",
    ),
    "a layer without a name": (
        imagescope(layer(region(square(2, 3, 4))), layer(region(square(9, 3, 4)), name="stroma", number=2)),
        {"classes": NAMES},
        "masks/a.xml: has an outline without a class (region 1 of layer 1); give it a class",
    ),
    "a number that no layer has": (
        imagescope(layer(region(square(2, 3, 4)), name="stroma")),
        {"unlabelled_value": "255"},
        "masks/a.xml: holds outlines, which have no number 255",
    ),
    "labelme's of another size": (labelme(imageWidth=99), {}, "is of an image of 99x24 pixels, and this one has 32x24"),
    "an unknown shape": (labelme(shape("star", [[1, 2]])), {}, "has the unknown shape star at shapes[0]"),
    "half a rectangle": (labelme(shape("rectangle", [[1, 2]])), {}, "has a rectangle of 1 corners at shapes[0]"),
    "a mask of another size than its box": (
        labelme(shape("mask", [[0, 0], [20, 17]], mask=base64.b64encode(PNG.getvalue()).decode())),
        {},
        "has a mask that is no PNG of the size of its box at shapes[0]",
    ),
    "COCO's of another size": (
        coco({"segmentation": []}, size=(9, 9)),
        {},
        "is of an image of 9x9 pixels, and this one",
    ),
    "COCO's boxes": (coco({"segmentation": []}), {}, "has a box and no segmentation: annotation 0"),
    "COCO's category": (coco({"category_id": 9}), {}, "has no category 9, which annotation 0 is of"),
    "COCO's image": (coco({"image_id": 9}), {}, "has no image 9, which annotation 0 is of"),
    "COCO of others": (
        coco(images=("b.png", "c.png")),
        {},
        "is a COCO file of 2 images, and none of its name; give it",
    ),
    "two images of one id": (
        {
            **coco(images=("a.png", "b.png")),
            "images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}],
        },
        {},
        "has two images of the id 1, a.png and b.png",
    ),
    "two categories of one id": (
        {**coco(), "categories": [{"id": 1, "name": "nucleus"}, {"id": 1, "name": "stroma"}]},
        {"classes": NAMES},
        "has two categories of the id 1, nucleus and stroma",
    ),
    "panoptic": (coco({"segments_info": []}), {}, "is COCO panoptic"),
    "short run lengths": (
        coco({"segmentation": {"counts": [5], "size": [H, W]}}),
        {},
        "run lengths of 5 pixels, and not",
    ),
    "letters that are none": (coco({"segmentation": {"counts": "ü", "size": [H, W]}}), {}, "in letters that are none"),
    "half a letter": (coco({"segmentation": {"counts": "X", "size": [H, W]}}), {}, "that end within a number"),
    "run lengths of a large image": (
        coco({"segmentation": {"counts": [0, 10**12], "size": [10**6, 10**6]}}),
        {},
        "run lengths of an image of another size than 32x24",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_one_line_and_an_error_of_the_check(tmp_path, case):
    content, options, words = BAD[case]
    name = "masks/a.xml" if str(content).startswith("<") else "masks/a.geojson"
    samples, _ = read_dataset("folder", folder(tmp_path / "d", content, name), ReadOptions(**options))
    (fact,), problems = inspect(samples)
    (problem,) = [problem for problem in problems if problem.severity == "error"]
    assert words in str(problem).replace("d/", "")
    assert problem.fix
    assert "\n" not in str(problem)
    assert str(problem).isprintable()
    assert not fact.usable


@pytest.mark.parametrize("limit", ["_MAX_CROSSINGS", "_MAX_PIXELS"])
def test_outlines_that_would_take_minutes_are_refused(tmp_path, monkeypatch, limit):
    root = folder(tmp_path / "d", collection(*[feature(square(2, 3, 9))] * 3))
    assert read(root)[0].labels.any()
    monkeypatch.setattr(f"textdiff.readers.corners.{limit}", 50)
    with pytest.raises(UserError, match="has 3 outlines that are too large together; split the annotations"):
        read(root)


def test_outlines_of_another_class_than_most_are_an_error(tmp_path):
    root = folder(tmp_path / "d", feature(square(2, 3, 4)), images=("a", "b", "c", "d"))
    for image, name in (("b", "nucleus"), ("c", "stroma")):
        (root / f"masks/{image}.geojson").write_text(json.dumps(feature(square(2, 3, 4), name=name)))
    Image.fromarray(boxes((255, 2, 3, 4, 4))).save(root / "masks/d.png")
    facts, problems = inspect(read_dataset("folder", root)[0])
    (problem,) = [problem for problem in problems if problem.severity == "error"]
    assert "c.geojson: has the foreground class stroma (1 mask), and d/masks/a.geojson has the for" in str(problem)
    assert [fact.usable for fact in facts] == [True, True, False, True]


PLACES = {
    "no image": ("other/b.geojson", "other", "b.geojson: are outlines without an image; name them as their image"),
    "no outlines": ("other/b.png", "other", "--annotations .*other: holds no outlines"),
    "no image of a COCO file": ("other/b.json", "other/b.json", "are of none of the images; they go with --dataset"),
    "no file": (None, "other", "--annotations .*other: no such file or directory"),
}


@pytest.mark.parametrize("case", PLACES)
def test_annotations_that_are_of_no_image_are_an_error(tmp_path, case, textdiff_once):
    name, place, words = PLACES[case]
    folder(tmp_path / "d", name and coco(images=("b.png",)), name or "")
    options = ("--dataset", "folder", "--data", "d", "--annotations", f"d/{place}", "--preset", "filters")
    done = textdiff_once(tmp_path, "extract", *options, "--text-encoder", "none", status=2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert re.search(words, line)
    assert not (tmp_path / "cache").exists()


def test_a_second_mask_is_named_wherever_it_is(tmp_path):
    root = folder(tmp_path / "d", feature(square(2, 3, 4)))
    Image.fromarray(boxes()).save(root / "masks/a.png")
    (tmp_path / "all.json").write_text(json.dumps(coco()))
    _, problems = read_dataset("folder", root, ReadOptions(annotations=tmp_path / "all.json"))
    said = [str(problem) for problem in problems if problem.severity == "error"]
    assert [line.split(":")[0] for line in said] == [str(tmp_path / "all.json/a.png"), "masks/a.png"]
