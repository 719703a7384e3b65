"""Files looked at and read in parts: the facts, the rows and the complaints are those of reading them whole."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from textdiff.errors import UserError
from textdiff.images import bands, formats
from textdiff.images.bands import open_image_bands
from textdiff.images.tiff import TiffImage
from textdiff.readers.datasets import Inspected, inspect
from textdiff.readers.decoding import load_image, load_mask
from textdiff.readers.sample import Sample
from textdiff.readers.slides import PartReader

H, W = 301, 187
RGB = np.random.default_rng(0).integers(3, 250, (H, W, 3), dtype=np.uint8)
INSIDE = np.random.default_rng(1).random((H, W)) < 0.3
DISC = np.hypot(*np.mgrid[-120:181, -90:97]) < 70
LABELS = np.random.default_rng(2).integers(0, 3, (H, W), dtype=np.uint8)
OBJECTS = np.where(INSIDE, np.arange(H * W).reshape(H, W), 0)
LAYOUTS = {
    "contiguous": {},
    "strips": {"rowsperstrip": 64, "compression": "zlib"},
    "tiles": {"tile": (64, 48), "compression": "zlib", "predictor": True},
    "bigtiff": {"bigtiff": True, "byteorder": ">"},
}
MASKS = {
    "0 and 255": (INSIDE.astype(np.uint8) * 255, {}),
    "0 and 1": (INSIDE.astype(np.uint8), {}),
    "0 and 65535": (INSIDE.astype(np.uint16) * 65535, {}),
    "one bit": (INSIDE, {"photometric": "miniswhite"}),
    "classes": (LABELS, {"classes": ("a", "b")}),
    "classes of a palette": (LABELS, {"classes": ("a", "b"), "photometric": "palette", "colormap": True}),
    "objects": (OBJECTS.astype(np.uint16), {"instances": True}),
    "many objects": (OBJECTS.astype(np.int32), {"instances": True}),
    "empty": (np.zeros((H, W), np.uint8), {}),
    "full": (np.full((H, W), 255, np.uint8), {}),
    "smoothed": (np.rint(255 * gaussian_filter(DISC.astype(float), 1)).astype(np.uint8), {}),
    "white is zero": (255 - DISC * np.uint8(255), {"photometric": "miniswhite"}),
    "inverted by ImageJ": (DISC * np.uint8(255), {"photometric": "miniswhite", "description": "ImageJ=1.54f\n"}),
    "one object": (INSIDE.astype(np.uint8) * 255, {"instances": True}),
}


@pytest.fixture
def in_bands(monkeypatch):
    """Makes every image a large one, of which few rows are read at a time."""

    def lower() -> None:
        monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
        monkeypatch.setattr(bands, "BAND_BYTES", 20_000)

    return lower


def write(path: Path, pixels: np.ndarray, layout: str = "contiguous", **options: object) -> Path:
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 and pixels.shape[2] >= 3 else "minisblack")
    options |= LAYOUTS[layout]
    if pixels.dtype == bool and "predictor" in options:
        del options["predictor"]
    tifffile.imwrite(path, pixels, **options)
    return path


def sample_of(folder: Path, kind: str, layout: str) -> Sample:
    pixels, options = MASKS[kind]
    options = dict(options)
    known = {name: options.pop(name) for name in ("classes", "instances") if name in options}
    if options.pop("colormap", False):
        options["colormap"] = np.random.default_rng(3).integers(0, 65536, (3, 256), dtype=np.uint16)
    image, mask = write(folder / "a.tif", RGB, layout), write(folder / "mask.tif", pixels, layout, **options)
    return Sample("a", "train", image, mask, "", **known)


def as_whole(fact: Inspected) -> Inspected:
    """The same facts without those that tell how the files were read."""
    mask = fact.mask and replace(fact.mask, in_bands=False, threshold=0.0)
    return replace(fact, image=replace(fact.image, in_bands=False), mask=mask)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", MASKS)
def test_a_look_in_parts_shows_what_a_look_at_the_whole_shows(tmp_path, in_bands, kind, layout):
    sample = sample_of(tmp_path, kind, layout)
    (whole,), said = inspect([sample], tiled=True)
    in_bands()
    (parts,), said_in_parts = inspect([sample], tiled=True)
    assert (whole.image.in_bands, parts.image.in_bands, whole.usable) == (False, True, True)
    assert as_whole(parts) == whole
    assert said_in_parts == said


@pytest.mark.parametrize(
    ("pixels", "options", "note"),
    [
        (RGB[..., 0], {}, "grey"),
        (RGB[..., 0], {"photometric": "miniswhite"}, "grey"),
        (np.dstack([RGB, np.full((H, W), 9, np.uint8)]), {"extrasamples": ["unassalpha"]}, r"alpha \(dropped"),
        (np.dstack([RGB, RGB[..., :1]]), {"extrasamples": ["unassalpha"]}, "not opaque"),
        (np.dstack([RGB, RGB[..., :2]]), {"extrasamples": ["unspecified"] * 2}, "5 channels"),
        (
            np.dstack([RGB[..., 0], RGB[..., 1]]),
            {"extrasamples": ["unassalpha"], "photometric": "minisblack", "planarconfig": "contig"},
            "grey.*not opaque",
        ),
        (np.zeros((H, W, 3), np.uint8), {}, "flat"),
    ],
    ids=["grey", "white is zero", "opaque", "alpha", "more channels", "grey with alpha", "flat"],
)
def test_what_is_remarked_of_an_image_is_the_same_in_parts(tmp_path, in_bands, pixels, options, note):
    path = write(tmp_path / "a.tif", pixels, "strips", **options)
    with tifffile.TiffWriter(path, append=True) as tiff:
        tiff.write(RGB[:10, :10], photometric="rgb")
    sample = Sample("a", "train", path, None, "")
    (whole,), said = inspect([sample], tiled=True)
    in_bands()
    (parts,), said_in_parts = inspect([sample], tiled=True)
    assert as_whole(parts) == whole
    assert said_in_parts == said
    words = " ".join(problem.what for problem in said)
    assert "2 pages" in words
    assert re.search(note, words)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", MASKS)
def test_rows_read_alone_are_those_of_the_whole(tmp_path, in_bands, kind, layout):
    sample = sample_of(tmp_path, kind, layout)
    image, mask = load_image(sample.image).pixels, load_mask(sample, H, W)
    in_bands()
    (facts,), _ = inspect([sample], tiled=True)
    read = PartReader()
    for first, end in ((0, 1), (60, 200), (300, 301)):
        part = read(facts, first, 0, end - first, W)
        np.testing.assert_array_equal(part.labels, mask.labels[first:end])
        np.testing.assert_array_equal(part.image, image[first:end])
        if mask.instances is not None:
            np.testing.assert_array_equal(part.instances, mask.instances[first:end])
        else:
            assert part.instances is None


@pytest.mark.parametrize(
    ("mask", "options", "what"),
    [
        (INSIDE[:300].astype(np.uint8), {}, "mask.tif: is 187x300 pixels, but its image .* is 187x301"),
        (LABELS, {}, r"is not a mask of two classes \(values 0, 1, 2\)"),
        (np.where(DISC, 1, LABELS // 2 * 255).astype(np.uint8), {}, r"two classes \(values 0, 1, 255\)"),
        (DISC.astype(np.uint16) * 1046 - (DISC & INSIDE), {}, r"two classes \(values 0, 1045, 1046\)"),
        (LABELS + 1, {"classes": ("a", "b")}, r"has the value 3, and --classes names 1..2"),
        (RGB, {}, "save it as one upright channel of 8 bits"),
        (INSIDE.astype(np.float32), {}, "save it as one upright channel of 8 bits"),
    ],
    ids=["another size", "unnamed classes", "a void border", "16 bits", "too few names", "colours", "fractions"],
)
def test_a_bad_mask_of_a_large_image_is_one_line(tmp_path, in_bands, mask, options, what):
    in_bands()
    sample = Sample("a", "train", write(tmp_path / "a.tif", RGB), write(tmp_path / "mask.tif", mask), "", **options)
    (facts,), (problem,) = inspect([sample], tiled=True)
    assert not facts.usable
    assert re.search(what, str(problem))


def test_outlines_of_a_large_image_are_refused(tmp_path, in_bands):
    in_bands()
    (tmp_path / "a.xml").write_text("<Annotations/>")
    sample = Sample("a", "train", write(tmp_path / "a.tif", RGB), tmp_path / "a.xml", "")
    _, (problem,) = inspect([sample], tiled=True)
    assert "save the mask as a TIFF" in str(problem)


@pytest.mark.parametrize("layout", ["strips", "tiles"])
@pytest.mark.parametrize("broken", ["image", "mask"])
def test_a_damaged_piece_in_the_middle_is_found_and_its_rows_are_named(tmp_path, in_bands, layout, broken):
    sample = sample_of(tmp_path, "0 and 255", layout)
    path = getattr(sample, broken)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        middle = len(page.dataoffsets) // 2
        offset, count = page.dataoffsets[middle], page.databytecounts[middle]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    in_bands()
    (facts,), (problem,) = inspect([sample], tiled=True)
    assert not facts.usable
    assert problem.where.endswith(path.name)
    assert "cannot be read at rows" in problem.what


def test_a_piece_that_was_never_written_is_not_taken_for_black(tmp_path, in_bands):
    sample = sample_of(tmp_path, "0 and 255", "strips")
    sample.image.write_bytes(sample.image.read_bytes())
    with tifffile.TiffFile(sample.image, mode="r+") as tiff:
        counts = list(tiff.pages.first.databytecounts)
        counts[2] = 0
        tiff.pages.first.tags["StripByteCounts"].overwrite(counts)
    in_bands()
    _, (problem,) = inspect([sample], tiled=True)
    assert "is truncated" in problem.what


def test_without_tiles_a_large_image_is_refused_unread_and_told_the_way(tmp_path, in_bands, monkeypatch):
    sample = sample_of(tmp_path, "0 and 255", "strips")
    in_bands()
    monkeypatch.setattr("textdiff.readers.inspection.load_image", lambda path: pytest.fail("was read"))
    (facts,), said = inspect([replace(sample, mask=None)])
    assert not facts.usable
    assert [problem.what for problem in said] == ["has 187x301 pixels, more than 0.01 megapixels"]
    assert "--tile" in said[0].fix


def test_no_more_than_a_band_is_read_at_once(tmp_path, in_bands, monkeypatch):
    sample = sample_of(tmp_path, "0 and 255", "strips")
    in_bands()
    largest = 0
    read = TiffImage.rows

    def counting(tiff: TiffImage, first: int, end: int) -> np.ndarray:
        nonlocal largest
        largest = max(largest, end - first)
        return read(tiff, first, end)

    monkeypatch.setattr(TiffImage, "rows", counting)
    inspect([sample], tiled=True)
    assert largest == 64  # one strip of the image or the mask


def test_the_errors_of_reading_are_those_of_users(tmp_path):
    with pytest.raises(UserError, match="cannot be read"), open_image_bands(tmp_path / "gone.tif"):
        pass
    (tmp_path / "page.tif").write_text("<html>")
    with pytest.raises(UserError, match="not a readable TIFF"), open_image_bands(tmp_path / "page.tif"):
        pass
