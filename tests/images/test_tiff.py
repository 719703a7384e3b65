"""TIFFs in: the same numbers whatever the compression, the layout and the way of reading; others refused by name."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.errors import UserError
from textdiff.images.bands import open_image_bands, open_mask_bands
from textdiff.images.decode import decode
from textdiff.images.formats import open_stored
from textdiff.images.tiff import open_tiff
from textdiff.tests.tiff_cases import DRAW, RGB, H, W, with_tag, written

SMOOTH = np.cumsum(DRAW.integers(-3, 4, (H, W, 3)), axis=0).clip(-90, 90).astype(np.int16) + 128
SMOOTH = SMOOTH.astype(np.uint8)
ARRAYS = {
    "rgb": RGB,
    "grey": RGB[..., 0],
    "16-bit rgb": DRAW.integers(0, 65536, (H, W, 3), dtype=np.uint16),
    "32-bit": DRAW.integers(0, 2**32, (H, W), dtype=np.uint32),
    "signed": DRAW.integers(-99, 99, (H, W)).astype(np.int16),
    "float": DRAW.random((H, W)).astype(np.float32),
    "float rgb": DRAW.random((H, W, 3)),
    "one bit": DRAW.random((H, W)) > 0.5,
}
LAYOUTS = {
    "strips": {"rowsperstrip": 16},
    "tiles": {"tile": (16, 32)},
    "big-endian": {"byteorder": ">", "rowsperstrip": 16},
    "predicted": {"predictor": True, "tile": (16, 32)},
    "planes": {"planarconfig": "separate", "rowsperstrip": 16},
}
COMPRESSIONS = {
    "none": None,
    "lzw": "lzw",
    "deflate": "zlib",
    "packbits": "packbits",
    "lzma": "lzma",
    "zstd": "zstd",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_numbers_are_those_that_were_written(tmp_path, compression, kind, layout):
    if compression not in ("none", "deflate"):
        pytest.importorskip("imagecodecs", reason="writes this compression")
    pixels, options = ARRAYS[kind], dict(LAYOUTS[layout])
    if pixels.dtype == bool or compression == "none":
        options.pop("predictor", None)
    if "predictor" in options and pixels.dtype.kind == "f":
        pytest.importorskip("imagecodecs", reason="writes this predictor")
    if "planarconfig" in options:
        stored = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels
        options = options if pixels.ndim == 3 else {}
    else:
        stored = pixels
    data = written(np.ascontiguousarray(stored), compression=COMPRESSIONS[compression], **options)
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(open_stored("a.tif", data).shown(), pixels)
    with open_tiff(tmp_path / "a.tif") as tiff:
        for first, end in ((0, 1), (13, 41), (H - 1, H)):
            np.testing.assert_array_equal(np.squeeze(tiff.rows(first, end)), np.squeeze(pixels[first:end]))


@pytest.mark.parametrize(
    ("compression", "options", "mode"),
    [
        ("jpeg", {"photometric": "rgb", "rowsperstrip": 16}, "RGB"),
        ("jpeg", {"photometric": "ycbcr", "subsampling": (1, 1), "tile": (32, 32)}, "YCbCr"),
        ("jpeg", {"photometric": "ycbcr", "subsampling": (2, 2), "rowsperstrip": 16}, "YCbCr"),
        ("jpeg2000", {"tile": (32, 32)}, "RGB"),
        ("webp", {"tile": (32, 32)}, "RGB"),
    ],
)
def test_pieces_that_are_pictures_are_read_as_others_read_them(tmp_path, compression, options, mode):
    pytest.importorskip("imagecodecs", reason="writes this compression")
    stored = np.asarray(Image.fromarray(SMOOTH).convert(mode)) if mode == "RGB" else SMOOTH
    (tmp_path / "a.tif").write_bytes(written(stored, compression=compression, **options))
    read, notes = decode(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, tifffile.imread(tmp_path / "a.tif"))
    assert notes == []
    with open_image_bands(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(13, 41), read[13:41])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_jpeg_in_tiff_as_pillow_writes_it(tmp_path, mode):
    Image.fromarray(SMOOTH).convert(mode).save(tmp_path / "a.tif", compression="jpeg", quality=92)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"))
    np.testing.assert_array_equal(decode(tmp_path / "a.tif")[0], expected)


def test_aperios_jpeg2000_holds_ycbcr():
    coded = io.BytesIO()
    ycbcr = Image.fromarray(SMOOTH).convert("YCbCr")
    Image.frombytes("RGB", ycbcr.size, ycbcr.tobytes()).save(coded, "JPEG2000", no_jp2=True, mct=0)
    data = written(SMOOTH, rowsperstrip=H)
    at = data.index(SMOOTH.tobytes())
    data = with_tag(with_tag(data[:at] + coded.getvalue().ljust(SMOOTH.nbytes, b"\0"), 259, 33003), 279, at)
    data = with_tag(data, 279, coded.tell())
    np.testing.assert_array_equal(decode("a.tif", data)[0], np.asarray(ycbcr.convert("RGB")))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "tiff_lzw", "packbits"])
@pytest.mark.parametrize("backwards", [False, True])
def test_one_bit_as_pillow_writes_it(tmp_path, compression, backwards):
    bits = np.kron(DRAW.random((9, 11)) > 0.5, np.ones((7, 5), bool))
    order = {"tiffinfo": {266: 2}} if backwards else {}
    Image.fromarray(bits).save(tmp_path / "a.tif", compression=compression, **order)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif")[0][..., 1] == 255, bits)


def packed(numbers: np.ndarray, bits: int, photometric: int) -> bytes:
    """A little-endian TIFF of few bits a sample, made by hand."""
    height, width = numbers.shape
    digits = (numbers[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(height, -1)
    strip = np.packbits(digits, axis=1).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (278, height)]
    tags.append((279, len(strip)))
    colours = np.stack([np.arange(2**bits) * step for step in (9, 70, 4000)]).astype("<u2").tobytes()
    entries = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in tags)
    palette = 8 + len(strip)
    if photometric == 3:
        tags.append((320, palette))
        entries += struct.pack("<2H2I", 320, 3, 3 * 2**bits, palette)
    end = palette + len(colours)
    return struct.pack("<4sI", b"II*\0", end) + strip + colours + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14])
@pytest.mark.parametrize("inverted", [False, True])
def test_few_bits_are_shown_over_the_whole_range_and_stay_numbers(bits, inverted):
    numbers = DRAW.integers(0, 2**bits, (H, W))
    data = packed(numbers, bits, 0 if inverted else 1)
    full = 2**bits - 1
    expected = np.floor((full - numbers if inverted else numbers) * (255 / full) + 0.5)
    assert np.abs(decode("a.tif", data)[0][..., 0] - expected).max() <= (bits > 8)  # rounded to 16 bits on the way
    np.testing.assert_array_equal(open_stored("a.tif", data).pixels, numbers)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits(tmp_path, bits):
    numbers = DRAW.integers(0, 2**bits, (H, W))
    (tmp_path / "a.tif").write_bytes(packed(numbers, bits, 3))
    colours = np.stack([np.arange(2**bits) * step for step in (9, 70, 4000)], -1).astype(np.uint16) >> 8
    np.testing.assert_array_equal(decode(tmp_path / "a.tif")[0], colours[numbers])
    with open_image_bands(tmp_path / "a.tif") as image, open_mask_bands(tmp_path / "a.tif", True) as mask:
        np.testing.assert_array_equal(image.read(3, 9), colours[numbers][3:9])
        np.testing.assert_array_equal(mask.read(3, 9), numbers[3:9])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_turns_what_is_shown_and_no_number(compression, dtype):
    if compression not in (None, "zlib"):
        pytest.importorskip("imagecodecs", reason="writes this compression")
    numbers = DRAW.integers(0, 256, (H, W)).astype(dtype)
    data = written(numbers, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(open_stored("a.tif", data).shown(), np.iinfo(dtype).max - numbers)
    np.testing.assert_array_equal(open_stored("a.tif", data).pixels, numbers)


def test_palettes_with_8_bits_where_16_belong():
    colours = DRAW.integers(0, 256, (3, 256), dtype=np.uint16)
    data = written(RGB[..., 0], photometric="palette", colormap=colours)
    np.testing.assert_array_equal(decode("a.tif", data)[0], colours.T[RGB[..., 0]])


def test_16_bit_cmyk_is_that_of_8_bits():
    inks = np.asarray(Image.fromarray(SMOOTH).convert("CMYK"))
    deep, notes = decode("a.tif", written(inks.astype(np.uint16) * 257, photometric="separated"))
    np.testing.assert_array_equal(deep, decode("a.tif", written(inks, photometric="separated"))[0])
    assert notes == ["16-bit (scaled to 8)"]


# Pages that are channels

PLANES = np.ascontiguousarray(np.moveaxis(RGB, -1, 0))
SAID = {
    "ome": {"ome": True},
    "imagej": {"imagej": True},
    "tifffile's own": {},
}


@pytest.mark.parametrize("program", SAID)
def test_three_pages_that_are_channels_are_the_colours(tmp_path, program):
    said = {**SAID[program], "metadata": {"axes": "CYX"}, "photometric": "minisblack"}
    (tmp_path / "a.tif").write_bytes(written(PLANES, **said))
    read, notes = decode(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, RGB)
    assert notes == ["3 pages that are channels (read as red, green and blue)"]
    with open_image_bands(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(5, 9), RGB[5:9])
        assert list(source.notes) == notes


@pytest.mark.parametrize("program", SAID)
@pytest.mark.parametrize(
    ("axes", "pixels", "what"),
    [
        ("CYX", PLANES[:2], "has 2 channels in pages of their own; save it as RGB"),
        ("CYX", np.concatenate([PLANES, PLANES]), "has 6 channels"),
        ("ZCYX", np.stack([PLANES, PLANES]), "has 3 channels in pages of their own, 2 of each"),
    ],
)
def test_other_channels_are_refused(program, axes, pixels, what):
    data = written(pixels, **SAID[program], metadata={"axes": axes}, photometric="minisblack")
    with pytest.raises(UserError, match=f"a.tif: {what}"):
        decode("a.tif", data)


@pytest.mark.parametrize("program", SAID)
def test_a_stack_gives_its_first_page_and_a_note(program):
    data = written(PLANES, **SAID[program], metadata={"axes": "ZYX"}, photometric="minisblack")
    read, notes = decode("a.tif", data)
    np.testing.assert_array_equal(read[..., 0], PLANES[0])
    assert notes[0] == "3 pages (only the first is read)"


# Refused


def test_a_thumbnail_before_the_image_is_not_taken_for_it(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(RGB, photometric="rgb")
    with pytest.raises(UserError, match=r"a.tif: begins with a smaller copy of its image; save the image"):
        decode(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        for _ in range(2):
            file.write(RGB, photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(decode(tmp_path / "b.tif")[0], RGB)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (with_tag(written(RGB), 259, 34887), "is compressed with LERC, which is not read; save it anew with LZW"),
        (with_tag(written(RGB), 259, 50002), "is compressed with JPEGXL"),
        (with_tag(written(RGB), 259, 6), "is compressed with OJPEG"),
        (with_tag(written(RGB), 259, 12345), "is compressed with 12345"),
        (with_tag(written(RGB.astype(np.uint16)), 259, 7), "is compressed with JPEG of 3 x 16 bits"),
        (with_tag(written(RGB), 262, 8), "has colours of the kind CIELAB; save it as RGB"),
        (with_tag(written(RGB), 262, 6), "has colours of the kind YCBCR; save it as RGB"),
        (written(RGB[..., 0] * 1j), "has samples of 128 bits in the format COMPLEXIEEEFP"),
        (
            written(np.stack([RGB[..., 0]] * 4), photometric="minisblack", volumetric=True, tile=(2, 16, 16)),
            r"is not a flat image \(axes ZYX\)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_named(tmp_path, data, what):
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(UserError, match=f"a.tif: {what}") as raised:
        decode(tmp_path / "a.tif")
    assert "damaged" not in str(raised.value)
    with pytest.raises(UserError, match=f"a.tif: {what}"), open_image_bands(tmp_path / "a.tif"):
        pass


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "group4", "jpeg"])
def test_decoders_say_nothing_on_the_terminal(tmp_path: Path, compression, capfd):
    picture = Image.fromarray(SMOOTH)
    (picture.convert("1") if compression == "group4" else picture).save(tmp_path / "a.tif", compression=compression)
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start, count = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    for number in range(30):
        damaged = bytearray(data)
        damaged[start + number * count // 30 : start + number * count // 30 + 4] = b"\xff\x00\xa5\x5a"
        try:
            decode("a.tif", bytes(damaged))
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert capfd.readouterr() == ("", "")
