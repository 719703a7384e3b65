"""Masks: two classes however they are stored, and never several classes taken for two."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from textdiff.errors import UserError
from textdiff.images.labels import stored_numbers
from textdiff.images.masks import decode_mask
from textdiff.tests.image_files import (
    BLACK,
    BLUE,
    GREEN,
    INSIDE,
    MASK,
    RED,
    SQUARES,
    TWO_CLASSES,
    WHITE,
    deep_png,
    jpeg,
    painted,
    palette,
    png,
    tiff,
)

RING = (np.hypot(*np.mgrid[-20:20, -24:24]) < 17) & ~INSIDE
LARGE = np.kron(SQUARES, np.ones((4, 4), np.uint8))


@pytest.mark.parametrize("kind", TWO_CLASSES)
def test_masks_of_two_classes_are_0_and_1_however_stored(tmp_path, kind):
    (tmp_path / "m").write_bytes(TWO_CLASSES[kind])
    mask = decode_mask(tmp_path / "m").labels
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("0 and 255", None),
        ("inverted by ImageJ", "white as 0: what is stored as 255 and shown black"),
        ("white is zero", "white as 0: what is shown white is"),
        ("a boolean array by tifffile", "white as 0: what is stored as 1 and shown black, as tifffile does"),
        ("shape in the alpha of white", "its shape in the alpha channel: that is read"),
        ("half transparent", "seen on black"),
        ("palette of which white is the background", "without black: what has the index 0 is background"),
    ],
)
def test_what_is_not_plain_to_see_is_noted(kind, note):
    notes = decode_mask("m", TWO_CLASSES[kind]).notes
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


NESTED = painted(MASK, 0, 1)
NESTED[RING] = 255
LINES = np.zeros((40, 48), np.uint8)
LINES[5], LINES[15, 9:], LINES[:, 40] = 1, 2, 3
GRADIENT = np.linspace(0, 1, 40 * 48, dtype=np.float32).reshape(40, 48)
HEAT = np.exp(-(np.hypot(*np.mgrid[-20:20, -24:24]) ** 2) / 200).astype(np.float32)
MORE = r"is not a mask of two classes \(values "
SEVERAL = {
    "a void border": (png(NESTED), MORE + r"0, 1, 255\); if 255 .* add --unlabelled-value 255, and name .*--classes"),
    "0 to 3": (png(SQUARES), MORE + r"0, 1, 2, 3\); .* say what 1\.\.3 are with --instances or --classes"),
    "85, 170, 255": (png(SQUARES * np.uint8(85)), MORE + r"0, 85, 170, 255\); .*--classes"),
    "few of 128": (png(painted(SQUARES, 0, 128, 255, 255)), MORE + r"0, 128, 255\); .*--classes"),
    "few of 254": (png(painted(SQUARES, 0, 254, 255, 255)), MORE + r"0, 254, 255\)"),
    "neighbouring numbers": (
        tiff(painted(SQUARES, 0, 12, 1045, 1046, dtype=np.uint16)),
        MORE + r"0, 12, 1045, 1046\); .*--instances|--classes",
    ),
    "numbers of 32 bits": (tiff(painted(SQUARES, 0, 70_001, 70_002, 70_003, dtype=np.uint32)), MORE + "0, 70001, "),
    "touching objects": (tiff(np.arange(40 * 48).reshape(40, 48) // 7), "--instances"),
    "objects of four pixels": (
        tiff(np.kron(np.arange(400).reshape(20, 20), np.pad(np.ones((2, 2)), 1)).astype(np.uint16)),
        MORE,
    ),
    "thin lines": (png(LINES * np.uint8(85)), MORE + "0, 85, 170, 255"),
    "a thin border of its own": (
        png(painted(2 * MASK + (RING & (np.hypot(*np.mgrid[-20:20, -24:24]) < 16)), 0, 128, 255)),
        MORE + "0, 128, 255",
    ),
    "signed": (tiff(-MASK.astype(np.int16)), "negative or not finite"),
    "not a number": (tiff(np.where(INSIDE, np.nan, 0).astype(np.float32)), "negative or not finite"),
    "no background": (png(MASK + np.uint8(1)), MORE + r"1, 2\); store 0 for the background"),
    "no background in grey": (png(painted(MASK, 128, 255)), MORE + r"128, 255\)"),
    "probabilities": (tiff(GRADIENT), "cut probabilities at a threshold"),
    "a map of heat": (tiff(HEAT), "cut probabilities at a threshold"),
    "red and green": (
        png(painted(SQUARES, BLACK, RED, GREEN, GREEN)),
        r"two classes \(colours #00ff00, #000000, #ff0000",
    ),
    "two reds": (
        png(painted(SQUARES, BLACK, RED, (128, 0, 0), RED)),
        r"two classes \(colours #ff0000, #000000, #800000",
    ),
    "red and a little white": (png(painted(SQUARES, BLACK, WHITE, RED, RED)), r"two classes \(colours"),
    "a blue background": (png(painted(MASK, BLUE, RED)), r"two classes \(colours #0000ff, #ff0000"),
    "a white background": (png(painted(MASK, WHITE, RED)), r"two classes \(colours #ffffff, #ff0000"),
    "a blue background in a jpeg": (jpeg(painted(MASK, BLUE, RED), 75), r"two classes \(colours #"),
    "red and green in a jpeg": (jpeg(painted(LARGE, BLACK, RED, GREEN, GREEN), 75), r"two classes \(colours #"),
    "greys in a jpeg": (jpeg(LARGE * np.uint8(85), 75), MORE),
    "0 and 1 in a jpeg": (jpeg(np.kron(MASK, np.ones((2, 2), np.uint8)), 75), MORE + r"0, 1\)"),
    "greys that were a jpeg": (png(np.asarray(Image.open(io.BytesIO(jpeg(LARGE * np.uint8(85), 75))))), MORE),
    "palette of several": (palette(SQUARES, BLACK, RED, GREEN, BLUE), MORE + r"0, 1, 2, 3\)"),
    "palette whose colours say the contrary": (palette(MASK, WHITE, BLACK), "contradicts its numbers"),
    "palette that merges two": (palette(SQUARES, BLACK, WHITE, WHITE, WHITE), MORE + r"0, 1, 2, 3\)"),
    "alpha that hides the foreground": (png(painted(MASK, (*WHITE, 0), (*BLACK, 255))), "another in its alpha"),
    "16-bit colours": (deep_png(np.stack([MASK.astype(np.uint16)] * 3, -1)), "16-bit"),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_masks_that_are_not_two_classes_are_refused_with_their_values(tmp_path, kind):
    stored, words = SEVERAL[kind]
    (tmp_path / "m").write_bytes(stored)
    with pytest.raises(UserError, match=f"m: .*{words}"):
        decode_mask(tmp_path / "m")


def test_a_transparent_sheet_of_one_colour_is_an_empty_mask_and_no_map_of_numbers():
    sheet = png(np.dstack([np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8), np.uint8)]))
    found = decode_mask("m", sheet)
    assert not found.labels.any()
    assert "its shape in the alpha channel" in found.notes[-1]
    with pytest.raises(UserError, match="m: has its shapes in the alpha channel"):
        stored_numbers("m", sheet)


@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)), data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_mask_is_read_back_from_any_encoding(mask, data):
    value = data.draw(st.integers(1, 255))
    mask[0, 0], mask[-1, -1] = False, mask.size > 1
    colour = data.draw(st.tuples(*[st.integers(0, 255)] * 3).filter(any))
    stored = {
        "grey": lambda: png(mask * np.uint8(value)),
        "1 bit": lambda: png(mask),
        "colour": lambda: png(painted(mask.astype(int), BLACK, colour)),
        "alpha": lambda: png(np.dstack([np.full((*mask.shape, 3), value, np.uint8), mask * np.uint8(255)])),
        "palette": lambda: palette(mask.astype(np.uint8), BLACK, colour),
        "16 bits": lambda: tiff(mask * np.uint16(value * 257)),
        "32 bits": lambda: tiff(mask * np.uint32(value * 2**24)),
        "floating point": lambda: tiff(mask * np.float32(value / 255)),
        "white is zero": lambda: tiff(255 - mask * np.uint8(255), photometric="miniswhite"),
    }[
        data.draw(
            st.sampled_from(
                ["grey", "1 bit", "colour", "alpha", "palette", "16 bits", "32 bits", "floating point", "white is zero"]
            )
        )
    ]()
    np.testing.assert_array_equal(decode_mask("m", stored).labels, mask)


@given(data=st.data(), depth=st.sampled_from([np.uint8, np.uint16, np.uint32]))
@settings(max_examples=80, deadline=None)
def test_any_third_value_that_fills_a_region_is_found_whatever_its_share(data, depth):
    most = int(np.iinfo(depth).max)
    values = data.draw(st.lists(st.integers(1, most), min_size=2, max_size=6, unique=True))
    pixels = np.zeros((60, 60), depth)
    pixels[:, 30:] = values[0] * data.draw(st.booleans())
    for number, value in enumerate(values):
        side, left = data.draw(st.integers(3, 9)), 10 * number
        pixels[20 : 20 + side, left : left + side] = value
    with pytest.raises(UserError, match="not a mask of two classes"):
        decode_mask("m", tiff(pixels))
