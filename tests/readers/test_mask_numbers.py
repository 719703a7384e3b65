"""Numbers of classes and objects are those that are stored, and never those of one mask of several in a file."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.errors import UserError
from textdiff.images.masks import decode_mask
from textdiff.readers.decoding import load_mask
from textdiff.readers.sample import Sample
from textdiff.tests.image_files import BLACK, MASK, RED, SQUARES, TWO_CLASSES, WHITE, palette, png, shallow_png, tiff


@pytest.mark.parametrize(
    "stored",
    [
        png(SQUARES),
        shallow_png(SQUARES, 2),
        shallow_png(SQUARES, 4),
        palette(SQUARES, WHITE, BLACK, RED, RED),
        tiff(SQUARES, photometric="miniswhite"),
        tiff(SQUARES, photometric="miniswhite", compression="lzw"),
        tiff(SQUARES.astype(np.int64)),
        tiff(SQUARES.astype(np.float32)),
    ],
    ids=["8 bits", "2 bits", "4 bits", "palette", "white is zero", "white is zero, lzw", "64 bits", "floating point"],
)
def test_numbers_are_those_that_are_stored_however_they_are_shown(tmp_path, stored):
    (tmp_path / "m").write_bytes(stored)
    for known in ({"classes": ("a", "b", "c")}, {"instances": True}):
        mask = load_mask(Sample("m", "train", tmp_path / "m", tmp_path / "m", "", **known), 40, 48)
        np.testing.assert_array_equal(mask.labels if "classes" in known else mask.instances, SQUARES)


def test_numbers_are_not_looked_for_in_colours_when_the_shape_is_in_alpha(tmp_path):
    (tmp_path / "m").write_bytes(TWO_CLASSES["shape in the alpha of black"])
    with pytest.raises(UserError, match="has its shapes in the alpha channel"):
        load_mask(Sample("m", "train", tmp_path / "m", tmp_path / "m", "", instances=True), 40, 48)


CHANNELS = np.eye(4, dtype=np.uint8)[MASK * 3] * 255
TOGETHER = {
    "2 channels": tiff(CHANNELS[..., ::3], planarconfig="contig"),
    "2 planes": tiff(np.moveaxis(CHANNELS[..., ::3], -1, 0), planarconfig="separate"),
    "4 channels": tiff(CHANNELS, planarconfig="contig"),
    "4 channels, three of them colours": tiff(CHANNELS, photometric="rgb", extrasamples=["unspecified"]),
    "2 frames": png(255 - MASK * 255, save_all=True, append_images=[Image.fromarray(MASK * 255)]),
    "2 pages": tiff(np.stack([255 - MASK * 255, MASK * 255])),
}


@pytest.mark.parametrize("options", [{}, {"classes": ("a",)}, {"instances": True}], ids=["plain", "classes", "objects"])
@pytest.mark.parametrize("data", TOGETHER.values(), ids=TOGETHER)
def test_the_first_of_several_masks_in_a_file_is_not_taken_for_all(tmp_path, data, options):
    path = tmp_path / "mask.tif"
    path.write_bytes(data)
    sample = Sample("a", "train", path, path, "", "", **options)
    with pytest.raises(UserError, match=r"mask.tif: has \d (channels|pages), and not a single mask; save one mask"):
        load_mask(sample, 40, 48)


def test_smaller_copies_of_a_mask_and_channels_of_one_number_say_nothing(tmp_path):
    with tifffile.TiffWriter(path := tmp_path / "mask.tif") as file:
        file.write(MASK * 255)
        file.write(MASK[::2, ::2] * 255, subfiletype=1)
    np.testing.assert_array_equal(decode_mask(path).labels, MASK)
    opaque = np.dstack([MASK * 255] * 3 + [np.full_like(MASK, 255)])
    path.write_bytes(tiff(opaque, photometric="rgb", extrasamples=["unspecified"]))
    np.testing.assert_array_equal(decode_mask(path).labels, MASK)


@pytest.mark.parametrize("option", [{"classes": ("a",)}, {"instances": True}], ids=["classes", "objects"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tiff(MASK * np.uint64(2**63 + 5)), "has the (class|object) number 9223372036854775813"),
        (tiff(MASK * np.float32(2**40)), "has the (class|object) number 1099511627776"),
        (png(np.dstack([1 - MASK, MASK])), "has one shape in its numbers and another in its alpha"),
    ],
    ids=["beyond 63 bits", "floating point", "alpha"],
)
def test_numbers_that_would_be_cut_off_or_hidden_are_refused(tmp_path, data, what, option):
    path = tmp_path / "mask"
    path.write_bytes(data)
    with pytest.raises(UserError, match=what):
        load_mask(Sample("a", "train", path, path, "", "", **option), 40, 48)
