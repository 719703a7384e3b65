"""Large TIFFs: rows read alone are those of the whole image, what is written is whole, and memory stays bounded."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from textdiff.errors import UserError
from textdiff.images import formats
from textdiff.images.bands import large_size, open_image_bands
from textdiff.images.images import read_image
from textdiff.images.stains import kind_of
from textdiff.images.tiff_writer import tiff_writer
from textdiff.images.tiles import Grid
from textdiff.metrics.calibration import tempered
from textdiff.metrics.instances import components
from textdiff.metrics.pixels import jensen_shannon
from textdiff.pipeline.prediction.in_parts import Streaming, segment_streamed

RGB = np.random.default_rng(0).integers(0, 256, (301, 187, 3), dtype=np.uint8)
KINDS = {
    "contiguous": {},
    "strips": {"rowsperstrip": 64, "compression": "zlib"},
    "tiles": {"tile": (64, 48), "compression": "zlib", "predictor": True},
    "bigtiff": {"bigtiff": True, "byteorder": ">"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [0, 3, 4])
def test_rows_are_those_of_the_whole_image(tmp_path, kind, channels):
    pixels = RGB[..., 0] if channels == 0 else np.dstack([RGB, RGB[..., :1]])[..., :channels]
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"] * (channels - 3)} if channels else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **KINDS[kind])
    with open_image_bands(tmp_path / "a.tif") as source:
        assert (source.height, source.width) == (301, 187)
        for first, end in ((0, 301), (0, 1), (60, 200), (300, 301)):
            np.testing.assert_array_equal(source.read(first, end), read_image(tmp_path / "a.tif")[first:end])


def test_white_is_zero_is_turned_as_in_small_files(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., 0], photometric="miniswhite")
    with open_image_bands(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(5, 9), read_image(tmp_path / "a.tif")[5:9])


@pytest.mark.parametrize(
    ("pixels", "options", "what"),
    [
        (RGB.astype(np.uint16), {"photometric": "rgb"}, "not plain"),
        (RGB, {"photometric": "rgb", "extratags": [(274, 3, 1, 6, True)]}, "not plain"),
    ],
    ids=["16 bits", "turned"],
)
def test_what_cannot_be_read_in_parts_is_refused(tmp_path, pixels, options, what):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(UserError, match=rf"a\.tif.*{what}"), open_image_bands(tmp_path / "a.tif"):
        pass


def test_a_file_that_ends_too_early_is_refused_when_it_is_opened(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"a\.tif.*beyond the end of the file"), open_image_bands(tmp_path / "a.tif"):
        pass


def test_only_large_tiffs_are_read_in_parts(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", RGB)
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    (tmp_path / "c.tif").write_bytes(b"II*\0damaged")
    assert not large_size(tmp_path / "a.tif")
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.05)
    assert large_size(tmp_path / "a.tif")
    assert not large_size(tmp_path / "b.png")
    assert not large_size(tmp_path / "c.tif")


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (600, 300), (255, 513)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_written_by_rows_holds_them(tmp_path, shape, dtype):
    image = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    with tiff_writer(tmp_path / "new" / "a.tif", shape, dtype) as write:
        for y in range(0, shape[0], 256):
            write(image[y : y + 256])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "a.tif"), image)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.tif"]


def test_what_lies_beside_the_columns_that_are_given_is_filled(tmp_path):
    image = np.full((600, 1300), 7, np.uint16)
    image[256:512, 300:900] = np.random.default_rng(1).integers(0, 60000, (256, 600))
    with tiff_writer(tmp_path / "a.tif", image.shape, np.uint16, 7) as write:
        write(np.zeros((256, 0), np.uint16), 0)
        write(image[256:512, 300:900], 300)
        write(image[512:, 1299:], 1299)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image)


def test_a_file_that_is_not_finished_is_not_there(tmp_path):
    def wrong() -> None:
        with tiff_writer(tmp_path / "a.tif", (600, 9), np.uint8) as write:
            write(np.zeros((256, 9), np.uint8))
            write(np.zeros((9, 9), np.uint8))

    with pytest.raises(ValueError, match="for the rows from 256"):
        wrong()
    with pytest.raises(ValueError, match="256 rows"), tiff_writer(tmp_path / "a.tif", (600, 9), np.uint8) as write:
        write(np.zeros((256, 9), np.uint8))
    assert list(tmp_path.iterdir()) == []


def by_threshold(grid) -> Streaming:
    def predict(pixels: np.ndarray) -> np.ndarray:
        red = pixels[..., 0].astype(np.float32) / 255
        return np.stack([1 - red, red])[None]

    return Streaming(
        name="a",
        class_names=("red",),
        grid=grid,
        predict=predict,
        together=lambda block: block[0],
        pictures=lambda block: {"_p": block[0, 1]},
        told=lambda p: tempered(p, 2),
    )


def test_a_large_image_is_segmented_as_a_small_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(64, 64), compression="zlib")
    asked = by_threshold(lambda height, width: Grid(height, width, 96, 20))
    (mask, probability, _), line = segment_streamed(tmp_path / "a.tif", tmp_path / "out/a", tmp_path / "o", asked)
    assert (mask.name, probability.name) == ("a.tif", "a_p.tif")
    np.testing.assert_allclose(tifffile.imread(probability), RGB[..., 0] / np.float32(255), atol=1e-6)
    np.testing.assert_array_equal(tifffile.imread(mask), np.where(RGB[..., 0] > 127, 255, 0))
    likely = tempered(np.stack([1 - RGB[..., 0] / np.float32(255), RGB[..., 0] / np.float32(255)]), 2)
    found = RGB[..., 0] > 127
    assert line["probability"] == pytest.approx(likely[1][found].mean(), abs=1e-5)
    assert line["expected_dice"] == pytest.approx(
        2 * likely[1][found].sum() / (likely[1].sum() + found.sum()), abs=1e-5
    )
    assert line["area"] == np.count_nonzero(RGB[..., 0] > 127)
    assert line["objects"] == components(RGB[..., 0] > 127).max() == len((tmp_path / "o").read_text().splitlines())


@pytest.mark.parametrize("tint", [2, 40])
def test_a_grey_image_has_shapes_and_no_stain(tmp_path, tint):
    pixels = np.repeat(RGB[..., :1].clip(0, 200), 3, 2) + np.uint8([tint, 0, 0])
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    asked = by_threshold(lambda height, width: Grid(height, width, 96, 20))
    _, line = segment_streamed(tmp_path / "a.tif", tmp_path / "out/a", tmp_path / "o", asked)
    objects = [json.loads(each) for each in (tmp_path / "o").read_text().splitlines()]
    assert all({"eccentricity", "solidity"} < one.keys() for one in objects)
    assert ({"haematoxylin" in one for one in objects}, "mean_haematoxylin" in line) == ({tint == 40}, tint == 40)


def test_few_cells_on_much_glass_have_a_stain(tmp_path):
    pixels = np.full((301, 187, 3), 250, np.uint8)
    pixels[40:60, 30:50] = (150, 80, 170)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    assert kind_of(pixels) == "H&E"
    asked = by_threshold(lambda height, width: Grid(height, width, 96, 20))
    _, line = segment_streamed(tmp_path / "a.tif", tmp_path / "out/a", tmp_path / "o", asked)
    assert "mean_haematoxylin" in line


def test_a_map_of_all_members_but_the_first_has_one_to_look_at_where_there_is_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(64, 64))
    asked = by_threshold(lambda height, width: Grid(height, width, 96, 20))
    of_two = replace(
        asked,
        predict=lambda pixels: np.repeat(asked.predict(pixels), 3, 0),
        pictures=lambda block: {"_d": jensen_shannon(block[1:])},
    )
    (_, spread, _), _ = segment_streamed(tmp_path / "a.tif", tmp_path / "out/a", tmp_path / "o", of_two)
    assert np.abs(tifffile.imread(spread)).max() < 1e-6


def test_a_run_without_tiles_refuses_a_large_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    with pytest.raises(UserError, match="extract --tile"):
        segment_streamed(tmp_path / "a.tif", tmp_path / "a", tmp_path / "o", by_threshold(lambda h, w: None))


MEMORY = """
import json, pathlib, runpy, sys
large = runpy.run_path(sys.argv[1])
folder = pathlib.Path(sys.argv[2])
for height in (1000, 14000):
    large["make"](folder / "a.tif", height, 700, "contiguous")
    print(json.dumps(large["measure"](folder / "a.tif", folder / "out", 256, 32)))
"""


def test_memory_does_not_grow_with_the_height_of_the_image(tmp_path):
    program = Path(__file__).parents[2] / "benchmarks/large.py"
    command = [sys.executable, "-c", MEMORY, str(program), str(tmp_path)]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    short, tall = map(json.loads, output.splitlines())
    assert (short["image_mb"], tall["image_mb"]) == (2, 29)
    assert tall["peak_mb"] - short["peak_mb"] < 10


def test_what_is_stopped_halfway_leaves_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(64, 64), compression="zlib")
    asked, seen = by_threshold(lambda height, width: Grid(height, width, 96, 20)), []

    def stopped(pixels: np.ndarray) -> np.ndarray:
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return asked.predict(pixels)

    def segment(predict) -> list[str]:
        more = replace(asked, predict=predict, formats=("geojson", "ome-zarr"))
        segment_streamed(tmp_path / "a.tif", tmp_path / "out/a", tmp_path / "out/o", more)
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    with pytest.raises(KeyboardInterrupt):
        segment(stopped)
    assert not list((tmp_path / "out").glob("*"))
    assert segment(asked.predict) == ["a.geojson", "a.ome.zarr", "a.tif", "a_p.tif", "a_summary.json", "o"]
