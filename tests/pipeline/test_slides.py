"""Slides go the whole way: what is cached, scored and predicted is what the same picture without a pyramid gives."""

import csv
import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import tifffile
import zarr
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.images import formats
from textdiff.images.tiles import Grid
from textdiff.outputs.polygons import trace

pytest.importorskip("openslide")
cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slide_cases.py")))
SIZE = (480, 640)
TILE = ("--tile", "64", "--overlap", "8")
FIT = ("--variant", "no-text", "--width", "16", "--epochs", "2")


def extract(data: str, cache: str, *more: str) -> tuple[str, ...]:
    plain = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1")
    return ("extract", "--dataset", "folder", "--data", data, *TILE, *plain, "--cache", cache, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory, textdiff_once) -> Path:
    """``slides`` of 1 µm with masks of that size, ``plain`` the same at 2 µm, their caches, and a run on the slides."""
    root = tmp_path_factory.mktemp("slides")
    for folder in ("slides", "plain"):
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "masks").mkdir()
        shutil.copy(_texts(root), root / folder / "texts.csv")
    for number, name in enumerate(("a", "b")):
        image, inside = cases.tissue(*SIZE, seed=number)
        half = cases.halved(image)
        cases.write_svs(root / f"slides/images/{name}.svs", [image, half], mpp=1.0)
        tifffile.imwrite(root / f"slides/masks/{name}.tif", np.uint8(255) * inside, tile=(64, 64), compression="zlib")
        Image.fromarray(half).save(root / f"plain/images/{name}.png", dpi=(12700, 12700))
        covered = inside.reshape(SIZE[0] // 2, 2, SIZE[1] // 2, 2).mean((1, 3))
        Image.fromarray(np.where(covered >= 0.5, 255, 0).astype(np.uint8)).save(root / f"plain/masks/{name}.png")
    textdiff_once(root, *extract("plain", "plain.zarr"))
    textdiff_once(root, *extract("slides", "slides.zarr", "--mpp", "2"))
    textdiff_once(root, "fit", "--cache", "slides.zarr", *FIT)
    return root


def _texts(root: Path) -> Path:
    (root / "texts.csv").write_text("image,text,split\na,The nuclei are sparse.,train\nb,The nuclei are sparse.,test\n")
    return root / "texts.csv"


def test_rows_of_a_slide_are_those_of_its_picture_but_without_glass(made):
    slides, plain = FeatureCache.open(made / "slides.zarr"), FeatureCache.open(made / "plain.zarr")
    assert slides.fingerprint["mpp"] == 2
    there = {row.key: number for number, row in enumerate(plain.rows)}
    assert 0 < len(slides.rows) < len(plain.rows)
    for number, row in enumerate(slides.rows):
        other = there.pop(row.key)
        assert (row.height, row.width) == (240, 320)
        np.testing.assert_array_equal(slides.image(number), plain.image(other))
        np.testing.assert_array_equal(slides.mask(number), plain.mask(other))
        np.testing.assert_array_equal(slides.truth(number), plain.truth(other))
    for other in there.values():  # what was left out
        assert plain.mask(other).mean() < 0.05


def test_the_same_command_goes_on_and_another_resolution_is_refused(made, textdiff_once):
    found = textdiff_once(made, *extract("slides", "slides.zarr", "--mpp", "2"))
    assert "0 of" in found.stderr or "complete" in found.stderr
    found = textdiff_once(made, *extract("slides", "slides.zarr", "--mpp", "4"), status=2)
    assert "mpp" in found.stderr


def test_options_choose_the_tiles(made, textdiff_once):
    plain = FeatureCache.open(made / "plain.zarr")
    textdiff_once(made, *extract("slides", "all.zarr", "--mpp", "2", "--tissue", "0"))
    assert [row.key for row in FeatureCache.open(made / "all.zarr").rows] == [row.key for row in plain.rows]
    textdiff_once(made, *extract("slides", "annotated.zarr", "--mpp", "2", "--tissue", "0", "--annotated-only"))
    annotated = [row.key for row in FeatureCache.open(made / "annotated.zarr").rows]
    with_nuclei = [row.key for number, row in enumerate(plain.rows) if plain.truth(number).any()]
    # A pixel of the mask that is less than half covered is no foreground at 0.5 µm, nor is it in a tile of ours.
    assert annotated == with_nuclei


def imagescope(rings: list[tuple[bool, np.ndarray]], name: str = "") -> str:
    """Outlines of one layer, each with whether it is excluded."""
    regions = ""
    for excluded, ring in rings:
        vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ring)
        regions += f'<Region Type="0" NegativeROA="{excluded:d}"><Vertices>{vertices}</Vertices></Region>'
    return f'<Annotations><Annotation Id="1" Name="{name}"><Regions>{regions}</Regions></Annotation></Annotations>'


@pytest.mark.parametrize("most", [80, pytest.param(0.1, id="drawn in parts")])
@pytest.mark.parametrize("program", ["QuPath", "ImageScope", "ImageScope by layer"])
def test_outlines_are_in_the_pixels_of_the_finest_level(made, textdiff_once, tmp_path, monkeypatch, program, most):
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", most)
    shutil.copytree(made / "slides", tmp_path / "slides")
    for path in sorted((tmp_path / "slides/masks").iterdir()):
        mask = tifffile.imread(path) > 0
        shapes = [[[*ring.tolist(), ring[0].tolist()] for ring in (shell, *holes)] for shell, holes in trace(mask)]
        path.unlink()
        if program == "QuPath":
            path.with_suffix(".geojson").write_text(json.dumps({"type": "MultiPolygon", "coordinates": shapes}))
        else:
            rings = [(number > 0, ring) for shape in shapes for number, ring in enumerate(shape)]
            path.with_suffix(".xml").write_text(imagescope(rings, "nucleus"))
    classes = ("--classes", "nucleus") if program.endswith("by layer") else ()
    textdiff_once(tmp_path, *extract("slides", "c.zarr", "--mpp", "2", *classes))
    cache, other = FeatureCache.open(tmp_path / "c.zarr"), FeatureCache.open(made / "slides.zarr")
    assert [row.key for row in cache.rows] == [row.key for row in other.rows]
    for number in range(len(cache.rows)):
        np.testing.assert_array_equal(cache.truth(number), other.truth(number))


def test_scores_are_of_the_tiles_with_tissue(made, textdiff_once):
    found = json.loads(textdiff_once(made, "score", "--json").stdout)
    assert 0 <= found["scores"]["original"]["dice"]["mean"] <= 1
    assert found["scores"]["original"]["dice"]["n"] == 1


@pytest.fixture(scope="module")
def predicted(made, textdiff_once) -> Path:
    formats = ("--format", "geojson,ome-zarr", "--probabilities", "--min-area", "3")
    textdiff_once(made, "predict", "slides/images/b.svs", "--out", "of-slide", "--tissue", "0", *formats)
    textdiff_once(made, "predict", "plain/images/b.png", "--out", "of-picture", *formats)
    return made


def test_the_mask_of_a_slide_is_that_of_its_picture(predicted):
    mask = tifffile.imread(predicted / "of-slide/b.tif")
    assert 0 < (mask > 0).mean() < 1
    np.testing.assert_array_equal(mask, np.asarray(Image.open(predicted / "of-picture/b.png")))
    np.testing.assert_array_equal(
        tifffile.imread(predicted / "of-slide/b_probability.tif"),
        np.asarray(Image.open(predicted / "of-picture/b_probability.png")),
    )


def test_objects_are_valid_whole_and_in_pixels_of_the_finest_level(predicted):
    mask = tifffile.imread(predicted / "of-slide/b.tif") > 0
    features = json.loads((predicted / "of-slide/b.geojson").read_text())["features"]
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(shape.is_valid for shape in shapes)
    others = json.loads((predicted / "of-picture/b.geojson").read_text())["features"]
    doubled = [shapely.affinity.scale(shapely.geometry.shape(f["geometry"]), 2, 2, origin=(0, 0)) for f in others]
    assert sorted(shape.normalize().wkb for shape in shapes) == sorted(shape.normalize().wkb for shape in doubled)
    area = sum(shape.area for shape in shapes)
    assert area == 4 * mask.sum()
    assert sum(feature["properties"]["measurements"]["Area µm^2"] for feature in features) == pytest.approx(area)
    (line,) = csv.DictReader((predicted / "of-slide/images.csv").open())
    assert (line["width"], line["height"], line["pixel_width_um"]) == ("640", "480", "1.0")
    assert float(line["area_mm2"]) == pytest.approx(area / 1e6, rel=1e-6)
    rows = list(csv.DictReader((predicted / "of-slide/predictions.csv").open()))
    assert len(rows) == len(features) == int(line["objects"])
    assert {row["object"] for row in rows} == {feature["properties"]["name"] for feature in features}
    assert sum(int(row["area"]) for row in rows) == area
    summary = json.loads((predicted / "of-slide/b_summary.json").read_text())
    assert summary["classes"]["foreground"]["objects"] == len(features)
    assert summary["mask_pixel_um"] == [2.0, 2.0]


def test_the_ome_zarr_is_that_of_the_picture(predicted):
    one, other = (zarr.open_group(predicted / f"{of}/b.ome.zarr", mode="r") for of in ("of-slide", "of-picture"))
    for name in ("0", "labels/classes/0"):
        np.testing.assert_array_equal(one[name][...], other[name][...])
    numbers = one["labels/objects/0"][...]
    np.testing.assert_array_equal(numbers > 0, other["labels/objects/0"][...] > 0)
    rows = csv.DictReader((predicted / "of-slide/predictions.csv").open())
    assert {row["object"]: int(row["area"]) for row in rows} == {
        str(number): 4 * count for number, count in zip(*np.unique(numbers, return_counts=True), strict=True) if number
    }
    for place in (one, one["labels/classes"], one["labels/objects"]):
        (scales,) = place.attrs["ome"]["multiscales"]
        assert scales["datasets"][0]["coordinateTransformations"][0]["scale"][-2:] == [2.0, 2.0]
        assert {axis.get("unit") for axis in scales["axes"] if axis["type"] == "space"} == {"micrometer"}


def test_levels_of_an_ome_zarr_are_those_of_an_image_that_is_held(tmp_path):
    from textdiff.outputs.format import Streamed
    from textdiff.outputs.objects import segmentation
    from textdiff.outputs.ome_zarr import stream_ome_zarr, write_ome_zarr

    draw = np.random.default_rng(1)
    image = draw.integers(0, 255, (1300, 1101, 3), dtype=np.uint8)
    image[:600, :600] = 255
    objects = np.zeros((1300, 1101), np.int32)
    objects[700:900, 3:1000] = 1
    labels = (objects > 0).astype(np.uint8)
    held = segmentation("a", image, labels, labels.astype(np.float32), objects, ["x"], (0.5, 0.5))
    write_ome_zarr(tmp_path / "held.ome.zarr", held)
    streamed = Streamed(name="a", class_names=("x",), pixel_size=(0.25, 0.25), scale=(2, 2), height=1300, width=1101)
    with stream_ome_zarr(tmp_path / "parts.ome.zarr", streamed) as sink:
        for y in (0, 200, 400, 600, 800, 1000):
            for x in (0, 300, 600, 801):
                sink.tile(y, x, image[y : y + 300, x : x + 300])
        for y in range(0, 1300, 256):
            sink.rows(y, 3, labels[y : y + 256, 3:1000], objects[y : y + 256, 3:1000])
    one, other = (zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r") for name in ("held", "parts"))
    for name in ("0", "1", "2", "labels/classes/0", "labels/classes/2", "labels/objects/0", "labels/objects/1"):
        np.testing.assert_array_equal(one[name][...], other[name][...])
    assert one.attrs["ome"] == other.attrs["ome"]
    stored = {path.name for path in (tmp_path / "parts.ome.zarr/0/c/0").glob("*/*")}
    assert len(list((tmp_path / "parts.ome.zarr/0/c/0").glob("*/*"))) == 8, stored  # one of nine is white


def test_glass_is_left_out_and_changes_nothing_where_there_is_tissue(predicted, textdiff_once):
    textdiff_once(predicted, "predict", "slides/images/b.svs", "--out", "tissue", "--min-area", "3")
    (line,) = csv.DictReader((predicted / "tissue/images.csv").open())
    assert "tiles show no tissue and are background" in line["notes"]
    assert float(line["tissue_mm2"]) == pytest.approx(0.36 * 480 * 640 / 1e6, rel=0.2)
    objects = [*csv.DictReader((predicted / "tissue/predictions.csv").open())]
    for area in ("area", "area_um2"):
        mean = np.mean([float(found[area]) for found in objects])
        assert float(line[f"mean_{area}"]) == pytest.approx(mean, rel=1e-6)
    assert float(line["objects_per_mm2"]) == pytest.approx(len(objects) / float(line["tissue_mm2"]), rel=1e-5)
    one, other = (tifffile.imread(predicted / f"{name}/b.tif") > 0 for name in ("tissue", "of-slide"))
    _, inside = cases.tissue(*SIZE, seed=1)
    nuclei = inside[::2, ::2]
    # At the border of the tissue a neighbour that is left out does not count.
    assert (one & other & nuclei).sum() > 0.99 * ((one | other) & nuclei).sum() > 0


def test_a_slide_of_glass_alone_has_no_expected_dice_and_is_flagged(predicted, textdiff_once):
    glass = np.full((*SIZE, 3), 240, np.uint8)
    cases.write_svs(predicted / "glass.svs", [glass, cases.halved(glass)], mpp=1.0)
    textdiff_once(predicted, "predict", "glass.svs", "--out", "glass")
    (line,) = csv.DictReader((predicted / "glass/images.csv").open())
    assert (line["objects"], line["expected_dice"], line["flagged"]) == ("0", "", "True")


def test_a_picture_of_another_resolution_is_seen_as_the_run_saw_its_slides(predicted, textdiff_once):
    image, _ = cases.tissue(*SIZE, seed=1)
    Image.fromarray(image).save(predicted / "fine.png", dpi=(25400, 25400))
    textdiff_once(predicted, "predict", "fine.png", "--out", "fine")
    mask = np.asarray(Image.open(predicted / "fine/fine.png")) > 0
    assert mask.shape == SIZE
    half = np.asarray(Image.open(predicted / "of-picture/b.png")) > 0
    both = mask[::2, ::2] & half
    assert both.sum() > 0.9 * (mask[::2, ::2] | half).sum()
    Image.fromarray(image).save(predicted / "none.png")
    found = textdiff_once(predicted, "predict", "none.png", "--out", "none", status=2)
    assert "none.png: does not say how many micrometres a pixel has; give it with" in found.stderr
    textdiff_once(predicted, "predict", "none.png", "--out", "given", "--own-mpp", "1")


def test_tiles_with_margins_are_those_of_the_picture_too_and_more(predicted, textdiff_once):
    arguments = ("--margin", "12", "--tissue", "0", "--probabilities")
    tiles = []
    for data, suffix in (("slides/images/b.svs", "tif"), ("plain/images/b.png", "png")):
        said = textdiff_once(predicted, "predict", data, "--out", f"margin-{suffix}", *arguments).stderr
        tiles.append(np.asarray(Image.open(predicted / f"margin-{suffix}/b_probability.{suffix}")))
    np.testing.assert_array_equal(*tiles)
    assert f"of {len(Grid(240, 320, 64, 8, 12))} tiles hold nothing" in said
    assert not np.array_equal(tiles[0], tifffile.imread(predicted / "of-slide/b_probability.tif"))
    said = textdiff_once(predicted, "predict", "plain/images/b.png", "--out", "m", "--margin", "25", status=2).stderr
    assert "--margin 25: tiles of 64 pixels that share 8 have room for 24" in said


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--mpp", "0.4"), "a.svs: has 1 µm per pixel, and 0.4 are asked for"),
        ((), "a.svs: is a slide; say at which resolution, as with --mpp 0.5 --tile 256"),
        (("--annotated-only",), "--annotated-only: goes with --mpp"),
        (("--own-mpp", "1"), "--own-mpp 1: goes with --mpp"),
    ],
)
def test_what_cannot_be_extracted_is_one_line(made, textdiff_once, arguments, what):
    found = textdiff_once(made, *extract("slides", "bad.zarr", *arguments), status=2).stderr
    assert what in found
    assert not (made / "bad.zarr").exists()


def test_a_resolution_without_tiles_is_refused(made, textdiff_once):
    found = textdiff_once(made, "extract", "--dataset", "folder", "--data", "slides", "--mpp", "2", status=2).stderr
    assert "--mpp 2: goes with --tile, as in --mpp 2 --tile 256" in found


def test_a_slide_that_ends_too_early_leaves_nothing_under_a_final_name(made, textdiff_once, tmp_path):
    data = (made / "slides/images/b.svs").read_bytes()
    (tmp_path / "b.svs").write_bytes(data[:-3000])
    found = textdiff_once(
        made, "predict", str(tmp_path / "b.svs"), "--out", str(tmp_path / "out"), "--format", "geojson", status=2
    )
    assert "b.svs: is truncated or damaged" in found.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".records") == [
        "images.csv",
        "predictions.csv",
    ]


def test_a_large_picture_has_objects_too(predicted, textdiff_once, monkeypatch):
    tifffile.imwrite(
        predicted / "large.tif", np.asarray(Image.open(predicted / "plain/images/b.png")), photometric="rgb"
    )
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
    arguments = ("--own-mpp", "2", "--format", "geojson,nifti", "--tissue", "0", "--min-area", "3")
    found = textdiff_once(predicted, "predict", "large.tif", "--out", "large", *arguments, status=2)
    assert (
        "large: is too large to be held, and NIfTI-1 is written at once; use --format geojson or ome-zarr"
        in found.stderr
    )
    np.testing.assert_array_equal(
        tifffile.imread(predicted / "large/large.tif"), np.asarray(Image.open(predicted / "of-picture/b.png"))
    )
    assert len(json.loads((predicted / "large/large.geojson").read_text())["features"]) == len(
        json.loads((predicted / "of-picture/b.geojson").read_text())["features"]
    )


def test_a_mask_that_says_nothing_in_places_stays_silent_there(made, textdiff_once, tmp_path):
    shutil.copytree(made / "slides", tmp_path / "slides")
    for name in ("a", "b"):
        path = tmp_path / f"slides/masks/{name}.tif"
        mask = (tifffile.imread(path) > 0).astype(np.uint8)
        mask[:, :311] = 9
        tifffile.imwrite(path, mask, tile=(64, 64), compression="zlib")
    arguments = ("--mpp", "2", "--unlabelled-value", "9", "--annotated-only")
    textdiff_once(tmp_path, *extract("slides", "c.zarr", *arguments))
    cache, full = FeatureCache.open(tmp_path / "c.zarr"), FeatureCache.open(made / "slides.zarr")
    there = {row.key: number for number, row in enumerate(full.rows)}
    assert 0 < len(cache.rows) < len(full.rows)
    for number, row in enumerate(cache.rows):
        truth, expected = cache.truth(number), full.truth(there[row.key])
        silent = row.x + np.arange(truth.shape[1]) < 155
        assert (truth[:, silent] == 255).all()
        # Half of a column at the border is silent: what is said there is what the other half says.
        said = row.x + np.arange(truth.shape[1]) > 155
        np.testing.assert_array_equal(truth[:, said], expected[:, said])
        assert said.any()
