"""A data set of large TIFFs goes the whole way, and every stage gives what it gives when images are held whole."""

import csv
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.cache import FeatureCache, Row
from textdiff.images import bands, formats
from textdiff.images.images import BandedMask, resize_mask
from textdiff.images.tiff import TiffImage
from textdiff.images.tiles import Grid
from textdiff.pipeline.evaluation.image_predictions import image_predictions, panels

SIZE = {"train": (150, 170), "val": (100, 140), "test": (250, 150), "small": (70, 90), "bare": (120, 90)}
LAYOUTS = {
    "train": {"rowsperstrip": 16, "compression": "zlib"},
    "val": {"bigtiff": True},
    "test": {"tile": (32, 48), "compression": "zlib"},
    "small": {},
    "bare": {},
}
LIMIT = 0.007  # between the small image and the others
TILE, OVERLAP = 96, 16


def make(root: Path, classes: int = 2, numbered: bool = False) -> None:
    """Images of dark blobs: one is in one piece whatever the limit, one has no mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    lines = ["image,text,split"]
    for number, (name, (height, width)) in enumerate(SIZE.items()):
        draw = np.random.default_rng([8, number])
        y, x = np.mgrid[:height, :width]
        mask = np.zeros((height, width), np.uint8)
        for blob in range(12):
            cy, cx, radius = draw.uniform(0, height), draw.uniform(0, width), draw.uniform(5, 12)
            label = blob + 1 if numbered else 1 + blob % (classes - 1)
            mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = label
        image = np.where(mask[..., None] > 0, (90, 50, 130), (230, 190, 215)) + draw.normal(0, 8, (height, width, 3))
        options = LAYOUTS[name]
        tifffile.imwrite(root / f"images/{name}.tif", image.clip(0, 255).astype(np.uint8), photometric="rgb", **options)
        stored = mask * 255 if classes == 2 and not numbered else mask
        if name != "bare":
            tifffile.imwrite(root / f"masks/{name}.tif", stored, photometric="minisblack", **options)
        lines.append(f"{name},The nuclei are sparse.,{name if name in ('train', 'val') else 'test'}")
    (root / "texts.csv").write_text("\n".join(lines) + "\n")


def extract(backbone: Path, *more: str) -> list[str]:
    return [
        *("extract", "--dataset", "folder", "--data", "data", "--tile", str(TILE), "--overlap", str(OVERLAP)),
        *(
            "--backbone",
            str(backbone),
            "--text-encoder",
            "none",
            "--image-size",
            "64",
            "--steps",
            "50",
            "--blocks",
            "6,12",
            *more,
        ),
    ]


@pytest.fixture(params=["binary", "classes", "objects"], scope="module")
def made(request, tmp_path_factory, tiny_backbone, textdiff_once) -> tuple[Path, list[str]]:
    """A directory with the data, its cache and a run made while every image was held whole; and the kind's options."""
    root = tmp_path_factory.mktemp(request.param)
    make(root / "data", 3 if request.param == "classes" else 2, request.param == "objects")
    kind = {"binary": [], "classes": ["--classes", "a,b"], "objects": ["--instances"]}[request.param]
    textdiff_once(root, *extract(tiny_backbone, "--cache", "whole.zarr", *kind))
    textdiff_once(root, "fit", "--cache", "whole.zarr", "--epochs", "1", "--variant", "no-text")
    return root, kind


@pytest.fixture
def lowered(monkeypatch) -> None:
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", LIMIT)
    monkeypatch.setattr(bands, "BAND_BYTES", 20_000)
    monkeypatch.setattr("textdiff.pipeline.evaluation.image_predictions.PANEL_PIXELS", 60)


def test_a_cache_of_tiles_read_from_parts_is_the_cache_of_whole_images(made, lowered, tiny_backbone, textdiff_once):
    root, kind = made
    textdiff_once(root, *extract(tiny_backbone, "--cache", "parts.zarr", "--overwrite", *kind))
    one, other = FeatureCache.open(root / "whole.zarr"), FeatureCache.open(root / "parts.zarr")
    assert one.rows == other.rows
    assert one.fingerprint == other.fingerprint
    for row in range(len(one.rows)):
        # The entry is a digest over all that is stored of a row.
        entries = [(cache.path / "ledger" / f"c.{row}.0").read_bytes() for cache in (one, other)]
        assert entries[0] == entries[1]


@pytest.mark.parametrize("made", ["binary"], indirect=True)
def test_neighbouring_tiles_share_what_is_read(made, tiny_backbone, textdiff_once, monkeypatch):
    read: list[tuple[str, int]] = []
    opened = bands.open_tiff

    @contextmanager
    def counting(path: Path) -> Iterator[TiffImage]:
        with opened(path) as image:
            stored = image.rows
            image.rows = lambda *part: read.append((path.parent.name, part[1] - part[0])) or stored(*part)
            yield image

    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", LIMIT)
    monkeypatch.setattr(bands, "open_tiff", counting)
    textdiff_once(made[0], *extract(tiny_backbone, "--cache", "parts.zarr", "--overwrite", *made[1]))
    for folder, others in (("images", ("small",)), ("masks", ("small", "bare"))):
        large = [height for name, (height, _) in SIZE.items() if name not in others]
        tile_rows = sum(-(-(height - OVERLAP) // (TILE - OVERLAP)) for height in large)
        # Each file is looked at once, here in one band, and then each row of tiles is read once.
        heights = [height for name, height in read if name == folder]
        assert sorted(heights) == sorted([TILE] * tile_rows + large)


def test_scores_of_an_image_in_parts_are_those_of_the_whole(made, textdiff_once, monkeypatch):
    root, _ = made
    before = json.loads(textdiff_once(root, "score", "--json").stdout)
    shown = (root / "runs/latest/overlay.png").read_bytes()
    images = {image["id"]: image for image in json.loads((root / "runs/latest/scores.json").read_text())["images"]}
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", LIMIT)
    result = textdiff_once(root, "score", "--json")
    after = json.loads(result.stdout)
    assert (before["too_large"], after["too_large"]) == ([], ["test"])
    assert "1 of 2 images has more than 0.007 megapixels, too large for aji, pq, f1" in result.stderr
    scores = json.loads((root / "runs/latest/scores.json").read_text())
    for image in scores["images"]:
        for name, value in image.items():
            lost = image["id"] == "test" and name in ("aji_original", "pq_original", "f1_original")
            assert value == (None if lost else images[image["id"]][name])
    for name in ("clean", "paper", "original"):
        assert after["scores"][name]["dice"] == before["scores"][name]["dice"]
    assert after["scores"]["original"]["aji"] == {
        **{"mean": images["small"]["aji_original"], "low": None, "high": None, "n": 1}
    }
    lines = {line["id"]: line for line in csv.DictReader((root / "runs/latest/scores.csv").open())}
    assert lines["test"]["aji_original"] == ""
    assert (root / "runs/latest/overlay.png").read_bytes() == shown
    page = (root / "runs/latest/report.md").read_text()
    assert "it has Dice and IoU only" in page


@pytest.mark.parametrize("made", ["binary"], indirect=True)
def test_a_split_of_large_images_only_is_scored_and_reported(made, lowered, textdiff_once):
    root, _ = made
    textdiff_once(root, "score", "--split", "val")
    page = (root / "runs/latest/report-val.md").read_text()
    assert "AJI" not in page
    assert "too large for aji, pq, f1: it has Dice and IoU only" in page
    assert json.loads((root / "runs/latest/scores-val.json").read_text())["scores"]["original"]["aji"] is None
    textdiff_once(root, "report", "--run", "runs/latest", "--split", "val")
    assert "without scores of objects and outlines" in (root / "runs/latest/report-val.html").read_text()


@pytest.mark.parametrize("made", ["binary"], indirect=True)
def test_metrics_that_no_image_has_are_refused_before_any_work(made, lowered, textdiff_once):
    root, _ = made
    found = textdiff_once(root, "score", "--split", "val", "--metrics", "dice,hd95", status=2).stderr
    assert "--metrics hd95: 1 of 1 image has more than 0.007 megapixels, too large for hd95" in found
    assert "use --metrics dice,iou" in found
    textdiff_once(root, "score", "--split", "val", "--metrics", "dice,iou")


@pytest.mark.parametrize("made", ["binary"], indirect=True)
def test_the_check_takes_large_images_with_tiles_only(made, lowered, textdiff_once):
    root, kind = made
    check = ("data", "check", "--dataset", "folder", "--data", "data", "--json", *kind)
    without = json.loads(textdiff_once(root, *check, status=1).stdout)
    assert len(without["errors"]) == 7
    assert all("--tile" in error["fix"] for error in without["errors"])
    found = json.loads(textdiff_once(root, *check, "--tile", "64").stdout)
    assert found["sound"]
    assert found["splits"]["train"]["largest"] == [170, 150]


@pytest.mark.parametrize("made", ["binary"], indirect=True)
def test_the_panels_of_a_figure_are_thinned_tiles(made, lowered):
    cache = FeatureCache.open(made[0] / "whole.zarr")
    row = next(row for row, entry in enumerate(cache.rows) if entry.id == "test")
    image, truth = panels(cache, row)
    mask = tifffile.imread(made[0] / "data/masks/test.tif")[::5, ::5]
    np.testing.assert_array_equal(truth > 0, mask > 0)
    assert image.shape == (50, 30, 3)
    assert image[truth > 0].mean() < image[truth == 0].mean() - 60  # nuclei are dark


def test_what_scoring_holds_does_not_grow_with_the_height_of_a_large_image(monkeypatch):
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.1)
    monkeypatch.setattr("textdiff.pipeline.evaluation.image_predictions.PANEL_PIXELS", 100)
    width, tile, size = 2000, 128, 16

    def peak(height: int) -> int:
        grid = Grid(height, width, tile, 16)
        entries = [Row("a", "test", 0, -1, "a.tif", "", "", height, width, tile, y, x) for y, x in grid.places]
        cache = SimpleNamespace(
            rows=entries,
            image_size=size,
            classes=("foreground",),
            fingerprint={"overlap": 16},
            sparse=False,
            truth=lambda row: np.ones(entries[row].truth_shape, np.uint8),
        )
        items = (SimpleNamespace(row=row) for row in range(len(entries)))
        tracemalloc.start()
        try:
            half = np.full((1, 2, size, size), 0.5, np.float32)
            (found,) = image_predictions(cache, ((item.row, half) for item in items))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert found.full_size is None
            assert found.counts[0].false_negative == height * width

    assert peak(2000) - peak(500) < 1500 * width / 4  # a byte for every fourth pixel


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.sampled_from(["area", "bilinear"]), st.integers(3, 40), st.data())
def test_a_mask_resized_band_by_band_has_the_bytes_of_the_whole(seed, classes, rule, size, data):
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, classes, (draw.integers(1, 90), draw.integers(1, 60)), dtype=np.uint8)
    cuts = sorted({0, len(mask), *data.draw(st.lists(st.integers(0, len(mask)), max_size=5))})
    banded = BandedMask(len(mask), size, rule, classes)
    for first, end in pairwise(cuts):
        banded.add(first, mask[first:end])
    np.testing.assert_array_equal(banded.result(), resize_mask(mask, size, rule, classes))
    if rule == "area" and size <= min(mask.shape):
        # Every pixel cut into size x size equal pieces, which are then counted.
        pieces = mask.repeat(size, axis=0).repeat(size, axis=1).reshape(size, len(mask), size, -1)
        covered = np.stack([(pieces == label).sum(axis=(1, 3)) for label in range(classes)])
        np.testing.assert_array_equal(banded.result(), classes - 1 - covered[::-1].argmax(axis=0))
