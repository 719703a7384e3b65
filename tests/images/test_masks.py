"""Masks: two classes however they are stored, and never several classes taken for two."""

import io
import json
import re
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw

from textdiff.errors import UserError
from textdiff.images.masks import decode_mask
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.readers.decoding import load_image, load_mask
from textdiff.readers.sample import Sample

MASK = (np.hypot(*np.mgrid[-20:20, -24:24]) < 14).astype(np.uint8)
INSIDE = MASK.astype(bool)
RING = (np.hypot(*np.mgrid[-20:20, -24:24]) < 17) & ~INSIDE
SQUARES = np.zeros((40, 48), np.uint8)
SQUARES[3:9, 3:9], SQUARES[12:18, 30:36], SQUARES[22:38, 4:40] = 1, 2, 3
LARGE = np.kron(SQUARES, np.ones((4, 4), np.uint8))


def painted(labels: np.ndarray, *values: object, dtype: type = np.uint8) -> np.ndarray:
    """``labels`` with the value, or the colour, of each number."""
    return np.array(values, dtype)[labels]


def png(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return png(pixels, format="JPEG", quality=quality)


def palette(indices: np.ndarray, *colours: tuple[int, ...], **options: object) -> bytes:
    image, file = Image.fromarray(indices, "P"), io.BytesIO()
    image.putpalette([level for colour in colours for level in colour])
    image.save(file, "PNG", **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "minisblack", **options})
    return file.getvalue()


def png_by_hand(rows: list[bytes], width: int, bits: int, kind: int) -> bytes:
    """A PNG that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    )
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + data


def shallow_png(numbers: np.ndarray, bits: int) -> bytes:
    """Grey of 2 or 4 bits."""
    spread = (numbers[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(len(numbers), -1), axis=1)
    return png_by_hand([row.tobytes() for row in rows], numbers.shape[1], bits, 0)


def deep_png(colours: np.ndarray) -> bytes:
    """Colours of 16 bits."""
    return png_by_hand([row.astype(">u2").tobytes() for row in colours], colours.shape[1], 16, 2)


BLACK, WHITE, RED, GREEN, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)

TWO_CLASSES = {
    "0 and 255": png(MASK * 255),
    "0 and 1": png(MASK),
    "0 and 128": png(MASK * np.uint8(128)),
    "1 bit": png(INSIDE),
    "2 bits": shallow_png(MASK * 3, 2),
    "4 bits": shallow_png(MASK, 4),
    "bmp": png(MASK * 255, format="BMP"),
    "1-bit bmp": png(INSIDE, format="BMP"),
    "rgb": png(np.stack([MASK * 255] * 3, -1)),
    "dark red": png(painted(MASK, BLACK, (128, 0, 0))),
    "a pale colour": png(painted(MASK, BLACK, (240, 200, 120))),
    "opaque green": png(painted(MASK, (*BLACK, 255), (*GREEN, 255))),
    "0 and 1 of 16 bits": tiff(MASK.astype(np.uint16)),
    "0 and 65535": tiff(MASK.astype(np.uint16) * 65535),
    "1000 of 16 bits": tiff(MASK.astype(np.uint16) * 1000),
    "32 bits": tiff(MASK.astype(np.uint32) * 70_000),
    "signed": tiff(MASK.astype(np.int16)),
    "floating point": tiff(MASK.astype(np.float32)),
    "half precision": tiff(MASK.astype(np.float16)),
    "1-bit tiff": tiff(INSIDE),
    "lzw": png(MASK * 255, format="TIFF", compression="tiff_lzw"),
    "palette": palette(MASK, BLACK, (128, 0, 0)),
    "palette of which white is the background": palette(MASK, WHITE, RED),
    "palette whose numbers begin at 1": palette(MASK + np.uint8(1), RED, BLACK, WHITE),
    "palette with transparency": palette(MASK, BLACK, WHITE, transparency=bytes([0, 255])),
    "shape in the alpha of white": png(np.dstack([np.full((40, 48, 3), 255, np.uint8), MASK * 255])),
    "shape in the alpha of black": png(np.dstack([np.zeros((40, 48, 3), np.uint8), MASK * 255])),
    "shape in the alpha of grey": png(np.dstack([np.full((40, 48), 9, np.uint8), MASK * 255])),
    "white on transparent black": png(painted(MASK, (*BLACK, 0), (*WHITE, 255))),
    "half transparent": png(painted(MASK, (*BLACK, 0), (*WHITE, 128))),
    "white is zero": tiff(255 - MASK * 255, photometric="miniswhite"),
    "white is zero, 1 bit": tiff(~INSIDE, photometric="miniswhite"),
    "white is zero, lzw": tiff(255 - MASK * 255, photometric="miniswhite", compression="lzw"),
    "inverted by ImageJ": tiff(MASK * 255, photometric="miniswhite", description="ImageJ=1.54f\n"),
}


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


# Soft edges


def vessels(width: int) -> np.ndarray:
    image, draw = Image.new("L", (300, 300)), np.random.default_rng(4)
    for _ in range(12):
        steps = draw.uniform(0, 300, 2) + np.cumsum(draw.normal(0, 25, (12, 2)), axis=0)
        ImageDraw.Draw(image).line([tuple(step) for step in steps], fill=255, width=width)
    return np.asarray(image)


DRAWN = {
    "a disc": np.kron(MASK, np.ones((6, 6), np.uint8)) * 255,
    "discs": np.tile(np.kron(MASK, np.ones((2, 2), np.uint8)) * 255, (3, 3)),
    "rectangles": np.kron(SQUARES > 0, np.full((5, 5), 255, np.uint8)),
    "thin vessels": vessels(2),
    "thick vessels": vessels(5),
    "a hole": 255 - np.kron(MASK, np.ones((6, 6), np.uint8)) * 255,
}


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("how", [Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.3, 2, 4])
def test_resized_masks_are_cut_at_half(drawn, how, scale):
    image = Image.fromarray(DRAWN[drawn])
    resized = np.asarray(image.resize([round(side * scale) for side in image.size], how))
    np.testing.assert_array_equal(decode_mask("m", png(resized)).labels, resized > 127)


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("quality", [50, 75, 95])
def test_jpeg_masks_are_free_of_noise(drawn, quality):
    stored = jpeg(DRAWN[drawn], quality)
    mask = decode_mask("m", stored).labels
    assert (mask != DRAWN[drawn] // 255).sum() < 0.01 * mask.sum()
    again = decode_mask("m", png(np.asarray(Image.open(io.BytesIO(stored))))).labels
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("colour", [RED, (255, 255, 0), (30, 160, 90)])
def test_jpeg_masks_may_be_in_one_colour(drawn, colour):
    mask = decode_mask("m", jpeg(painted(DRAWN[drawn] // 255, BLACK, colour), 85)).labels
    assert (mask != DRAWN[drawn] // 255).sum() < 0.06 * mask.sum()


def test_an_empty_jpeg_with_noise_is_empty():
    noise = np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)
    for quality in (30, 75, 95):
        assert decode_mask("m", jpeg(noise, quality)).labels.sum() == 0


def test_empty_and_full_masks():
    for value, stored in ((0, MASK * 0), (1, MASK * 0 + 255), (1, MASK * 0 + 1)):
        for encoded in (png(stored), tiff(stored.astype(np.uint16)), tiff(stored.astype(np.float32))):
            assert np.all(decode_mask("m", encoded).labels == value)


# Numbers


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


# Whole data sets


def folder(root: Path, masks: list[bytes]) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    rows = ["image,text,split"]
    for number, mask in enumerate(masks):
        pixels = np.random.default_rng([1, number]).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        (root / f"masks/{number}.{'tif' if mask[:1] in b'IM' else 'png'}").write_bytes(mask)
        rows.append(f"{number},,{('train', 'val', 'test')[number % 3]}")
    (root / "texts.csv").write_text("\n".join(rows))
    return root


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (
            [png(MASK * np.uint8(n)) for n in (1, 1, 2, 4)],
            r"2.png: has the foreground 2 \(1 mask\), and .*0.png has the foreground 1 \(2 masks\)",
        ),
        ([png(MASK), png(MASK * 255)], "1.png: has the foreground 255 .*, and .*0.png has the foreground 1 "),
        ([png(MASK * 255), png(MASK), png(MASK), png(MASK)], "0.png: has the foreground 255"),
        ([png(MASK * np.uint8(n)) for n in (85, 170, 255)], "1.png: has the foreground 170"),
        ([tiff(MASK.astype(np.uint16) * n) for n in (1045, 1046, 1045)], "1.tif: has the foreground 1046"),
        (
            [png(painted(MASK, BLACK, colour)) for colour in (RED, GREEN)],
            "has the foreground #00ff00 .* has the foreground #ff0000",
        ),
        ([palette(MASK, BLACK, (128, 0, 0)), palette(MASK * np.uint8(2), BLACK, RED, GREEN)], "#00ff00"),
    ],
    ids=["classes", "1 and 255", "255 and 1", "greys", "16 bits", "colours", "palettes"],
)
def test_masks_that_differ_in_their_foreground_are_refused(tmp_path, textdiff_once, masks, words):
    folder(tmp_path / "d", masks)
    check = textdiff_once(tmp_path, "data", "check", "--dataset", "folder", "--data", "d", "--json", status=1)
    errors = json.loads(check.stdout)["errors"]
    assert any(re.search(words, f"{error['where']}: {error['what']}") for error in errors)
    assert all("--classes" in error["fix"] for error in errors)


def test_masks_of_one_foreground_in_many_encodings_are_one_data_set(tmp_path):
    masks = [png(MASK * 255), png(INSIDE), jpeg(MASK * 255, 80), png(MASK * 0), tiff(MASK.astype(np.uint16) * 65535)]
    masks += [png(painted(MASK, BLACK, WHITE)), tiff(MASK.astype(np.float32)), TWO_CLASSES["inverted by ImageJ"]]
    masks += [png(np.asarray(Image.fromarray(MASK * 255).resize((96, 80)).resize((48, 40))))]
    facts, problems = inspect(read_dataset("folder", folder(tmp_path / "d", masks))[0])
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert all(fact.usable for fact in facts)


def test_with_skip_bad_only_masks_of_the_usual_foreground_are_left(tmp_path, textdiff_once):
    folder(tmp_path / "d", [png(MASK * np.uint8(n)) for n in (1, 1, 1, 2)])
    options = ("--preset", "rgb", "--image-size", "32", "--views", "1", "--skip-bad", "--cache", "c.zarr")
    result = textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "d", *options)
    assert "left out: d/masks/3.png: has the foreground 2" in result.stdout + result.stderr
    assert "3 " in textdiff_once(tmp_path, "cache", "info", "c.zarr").stdout


# HDF5


def h5(path: Path, masks: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
        file["masks"] = masks
        file["split"] = ["train", "val", "test"]
    return path


STACK = np.stack([MASK, np.roll(MASK, 3, 0), np.roll(MASK, 3, 1)])


@pytest.mark.parametrize(
    "masks",
    [
        STACK,
        STACK.astype(bool),
        STACK.astype(np.int64),
        STACK.astype(np.float16),
        STACK[..., None],
        STACK[:, None],
        np.stack([STACK * 255] * 3, -1),
        STACK[..., None] * np.array(RED, np.uint8),
    ],
    ids=["8 bits", "bool", "64 bits", "half", "last axis of 1", "first axis of 1", "rgb", "red"],
)
def test_hdf5_masks_may_have_an_axis_of_channels_that_says_nothing(tmp_path, masks):
    samples, _ = read_dataset("hdf5", h5(tmp_path / "d.h5", masks))
    for sample in samples:
        np.testing.assert_array_equal(load_mask(sample, 40, 48).labels, STACK[int(sample.id)])


ONE_HOT = np.stack([STACK == 0, STACK == 1], -1).astype(np.uint8)
HALVES = np.broadcast_to(np.arange(48) < 24, STACK.shape)
THREE = np.stack([STACK == 0, (STACK == 1) & HALVES, (STACK == 1) & ~HALVES], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("masks", "shape"),
    [
        (ONE_HOT, r"\(3, 40, 48, 2\)"),
        (np.moveaxis(ONE_HOT, -1, 1), r"\(3, 2, 40, 48\)"),
        (THREE, r"\(40, 48, 3\)"),
        (np.moveaxis(THREE, -1, 1), r"\(3, 3, 40, 48\)"),
        (THREE.astype(np.float32) * 0.8 + 0.1, r"\(40, 48, 3\)"),
        (np.concatenate([THREE, ONE_HOT * 0], -1), r"\(3, 40, 48, 5\)"),
        (np.concatenate([THREE, ONE_HOT[..., :1] * 0], -1), r"\(3, 40, 48, 4\)"),
    ],
    ids=["2 last", "2 first", "3 last", "3 first", "soft", "5 last", "4 last"],
)
@pytest.mark.parametrize(
    "options", [{}, {"classes": ("a", "b")}, {"instances": True}], ids=["plain", "classes", "instances"]
)
def test_hdf5_masks_with_a_channel_for_each_class_are_refused_by_their_shape(tmp_path, masks, shape, options):
    path = h5(tmp_path / "d.h5", masks)
    with pytest.raises(UserError, match=f"shape {shape}.*argmax.*--classes"):
        load_mask(read_dataset("hdf5", path, ReadOptions(**options))[0][0], 40, 48)


def test_hdf5_channels_of_zeros_and_ones_are_no_colours_where_a_region_has_none(tmp_path):
    masks = THREE.copy()
    masks[:, :5] = 0
    masks[..., 1:] = 0
    with pytest.raises(UserError, match=r"shape \(40, 48, 3\).*argmax"):
        load_mask(read_dataset("hdf5", h5(tmp_path / "d.h5", masks), ReadOptions())[0][0], 40, 48)


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


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.arange(60, dtype=np.uint8).reshape(1, 1, 20, 3), (1, 20)),
        (np.arange(20, dtype=np.uint8).reshape(1, 1, 20, 1), (1, 20)),
        (np.arange(60, dtype=np.uint8).reshape(1, 20, 1, 3), (20, 1)),
        (np.arange(4, dtype=np.uint8).reshape(1, 1, 1, 4), (1, 1)),
    ],
    ids=["a row of colours", "a row of grey", "a column", "a pixel"],
)
def test_hdf5_images_of_one_row_are_not_turned(tmp_path, images, expected):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["images"] = images
    image = load_image(read_dataset("hdf5", path)[0][0].image)
    assert image.pixels.shape == (*expected, 3)
    np.testing.assert_array_equal(image.pixels[..., 0], images[0, ..., 0])
    assert ("alpha (dropped)" in image.notes) == (images.shape[-1] == 4)


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (np.zeros((2, 8, 8, 2), np.uint8), r"has the shape \(8, 8, 2\), two channels"),
        (np.uint8(3), r"images has the shape \(\); store images as \(N, H, W\)"),
    ],
    ids=["two channels", "a number"],
)
def test_hdf5_images_of_another_shape_are_named(tmp_path, images, what):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["images"] = images
    with pytest.raises(UserError, match=what):
        load_image(read_dataset("hdf5", path)[0][0].image)
