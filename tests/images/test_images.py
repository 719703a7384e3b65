"""Images in: every kind of file to the same pixels, with what was done to them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.errors import UserError
from textdiff.images import formats
from textdiff.images.decode import decode
from textdiff.images.images import read_image
from textdiff.images.masks import decode_mask
from textdiff.tests.image_files import GREY, RGB, deep_png, save, shallow_png

DEEP = np.random.default_rng(12).integers(0, 65536, (20, 30, 3), dtype=np.uint16)


def scaled(deep: np.ndarray) -> np.ndarray:
    """16 -> 8 bits by the definition: the nearest whole number to x / 257."""
    return ((2 * deep.astype(np.int64) + 257) // 514).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
def test_lossless_formats_give_their_pixels(tmp_path, suffix):
    assert np.array_equal(read_image(save(tmp_path / f"a.{suffix}", RGB)), RGB)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"planarconfig": "separate"},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 3},
        {"compression": "zlib", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("deep", [False, True])
def test_tiff_of_any_arrangement_gives_its_pixels(tmp_path, options, deep):
    pixels = DEEP if deep else RGB
    planar = options.get("planarconfig") == "separate"
    stored = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if planar else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    assert np.array_equal(read_image(tmp_path / "a.tif"), scaled(DEEP) if deep else RGB)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_of_pillows_compressions_gives_its_pixels(tmp_path, compression):
    assert np.array_equal(read_image(save(tmp_path / "a.tif", RGB, compression=compression)), RGB)
    deep = save(tmp_path / "b.tif", DEEP[..., 0], compression=compression)
    assert np.array_equal(read_image(deep)[..., 1], scaled(DEEP[..., 0]))


def test_jpeg_is_close_to_what_was_saved(tmp_path):
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    for mode in ("RGB", "L", "CMYK"):
        read = read_image(save(tmp_path / "a.jpg", smooth, mode, quality=95))
        assert np.abs(read.astype(int) - smooth).max() <= 6, mode


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_is_replicated(tmp_path, suffix):
    pixels, notes = decode(save(tmp_path / f"a.{suffix}", GREY))
    assert np.array_equal(pixels, np.stack([GREY] * 3, -1))
    assert notes == ["grey (replicated to RGB)"]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_by_the_full_range(tmp_path, suffix):
    pixels, notes = decode(save(tmp_path / f"a.{suffix}", DEEP[..., 0]))
    assert np.array_equal(pixels[..., 0], scaled(DEEP[..., 0]))
    assert notes[0] == "16-bit (scaled to 8)"


@pytest.mark.parametrize(("largest", "dark"), [(1.0, ""), (1.02, "1.02"), (20.0, "20"), (31.0, "31"), (200.0, "")])
def test_numbers_that_fill_little_of_0_to_255_are_said_to_come_out_dark(tmp_path, largest, dark):
    tifffile.imwrite(tmp_path / "a.tif", np.linspace(0, largest, 600, dtype=np.float32).reshape(20, 30))
    pixels, notes = decode(tmp_path / "a.tif")
    assert pixels.max() == np.floor(largest * (255 if largest <= 1 else 1) + 0.5)
    said = f", and dark: the largest value is {dark} of 0..255" if dark else ""
    assert notes[0] == f"floating point (scaled to 8 bits){said}"


def test_12_bit_values_in_16_bits_are_said_to_come_out_dark(tmp_path):
    pixels, notes = decode(save(tmp_path / "a.png", DEEP[..., 0] // 16))
    assert pixels.max() <= 16
    assert "dark: the largest value is 40" in notes[0]
    assert "dark: the largest value is 15 of 255" in decode("a.png", deep_png(DEEP // 16))[1][0]


def test_16_bit_colour_png_is_within_one_level_and_noted():
    pixels, notes = decode("a.png", deep_png(DEEP))
    assert np.abs(pixels.astype(int) - scaled(DEEP)).max() <= 1
    assert notes == ["16-bit (scaled to 8)"]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_is_shown_over_the_whole_range_and_keeps_its_numbers(bits):
    numbers = np.random.default_rng(2).integers(0, 2**bits, (20, 24)).astype(np.uint8)
    data = shallow_png(numbers, bits)
    assert np.array_equal(decode("a.png", data)[0][..., 0], numbers * (255 // (2**bits - 1)))
    assert np.array_equal(formats.open_stored("a.png", data).pixels, numbers)


def test_32_bit_integers_are_scaled_by_the_full_range(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 2**31, 2**32 - 1]], np.uint32), photometric="minisblack")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("top", "dtype"), [(1.0, np.float32), (255.0, np.float32), (1.0, np.float64)])
def test_floats_are_taken_as_0_to_1_or_0_to_255(tmp_path, top, dtype):
    tifffile.imwrite(tmp_path / "a.tif", (RGB / 255 * top).astype(dtype), photometric="rgb")
    pixels, notes = decode(tmp_path / "a.tif")
    assert np.array_equal(pixels, RGB)
    assert notes == ["floating point (scaled to 8 bits)"]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.array([[0, 300.0]], np.float32), "from 0 to 300"),
        (np.array([[-1, 1.0]], np.float32), "from -1 to 1"),
        (np.array([[0, np.nan]], np.float32), "NaN"),
        (np.array([[0, np.inf]], np.float32), "inf"),
        (np.array([[-1000, 400]], np.int16), "window"),
    ],
)
def test_values_without_a_natural_brightness_are_refused(tmp_path, pixels, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    with pytest.raises(UserError, match=f"a.tif: .*{words}"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_dropped_and_colours_kept(tmp_path, suffix):
    for alpha, note in ((np.full_like(GREY, 255), "alpha (dropped)"), (GREY, "alpha that is not opaque")):
        pixels, notes = decode(save(tmp_path / f"a.{suffix}", np.dstack([RGB, alpha])))
        assert np.array_equal(pixels, RGB)
        assert notes[0].startswith(note)
        assert len(notes) == 1


def test_grey_with_alpha_is_grey(tmp_path):
    path = tmp_path / "a.png"
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(RGB[..., 1])]).save(path)
    assert np.array_equal(read_image(path), np.stack([GREY] * 3, -1))


@pytest.mark.parametrize(("suffix", "transparent"), [("png", False), ("png", True), ("bmp", False), ("tif", False)])
def test_palettes_are_resolved(tmp_path, suffix, transparent):
    image = Image.fromarray(GREY % 4, "P")
    colours = [(10, 20, 30), (200, 100, 0), (0, 255, 7), (255, 255, 255)]
    image.putpalette([value for colour in colours for value in colour])
    options = {"transparency": bytes([0, 255, 128, 255])} if transparent else {}
    image.save(tmp_path / f"a.{suffix}", **options)
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), np.array(colours, np.uint8)[GREY % 4])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_bit_is_black_and_white(tmp_path, suffix):
    Image.fromarray(GREY > 100).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}")[..., 2], np.where(GREY > 100, 255, 0))


def test_white_is_zero_tiff_is_inverted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 0], 255 - GREY)


def test_first_page_of_several_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RGB, 255 - RGB]), photometric="rgb")
    pixels, notes = decode(tmp_path / "a.tif")
    assert np.array_equal(pixels, RGB)
    assert notes == ["2 pages (only the first is read)"]


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    pixels, notes = decode(tmp_path / "a.png")
    assert np.array_equal(pixels, RGB)
    assert notes == ["2 pages (only the first is read)"]


@pytest.mark.parametrize("before", [b"", b"\xff\xe8\0\4ab"], ids=["bare", "after a header"])
def test_lossless_jpeg_of_another_standard_is_named(before):
    with pytest.raises(UserError, match=r"a.jpg: is a JPEG-LS, which is not read"):
        decode("a.jpg", b"\xff\xd8" + before + b"\xff\xf7\0\x0b\x08\0\x08\0\x08\1\1\x11\0" + bytes(99))


def test_further_channels_are_noted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([RGB, RGB[..., :2]]), photometric="minisblack", planarconfig=1)
    pixels, notes = decode(tmp_path / "a.tif")
    assert np.array_equal(pixels[..., 0], GREY)
    assert notes[0] == "5 channels (only the first 1 read)"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_orientation_is_applied_alike_to_all_formats(tmp_path, orientation, suffix):
    # What a viewer shows: a bright top left corner, then the stored pixels turned away from it as the standard says.
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :16] = 255
    upright[:8, 16:] = 120
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = np.ascontiguousarray(turn(upright))
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    pixels, notes = decode(path)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 2
    assert notes == ([] if orientation == 1 else ["EXIF orientation (applied)"])


def test_content_counts_and_not_the_extension(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", format="PNG")
    tifffile.imwrite(tmp_path / "b.png", RGB, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), RGB)
    assert np.array_equal(read_image(tmp_path / "b.png"), RGB)


def test_real_images_and_masks_are_read(real_monuseg):
    folder = real_monuseg / "Test_Folder"
    image, mask = next(folder.glob("img/*.tif")), next(folder.glob("labelcol/*.png"))
    assert np.array_equal(read_image(image), np.asarray(Image.open(image).convert("RGB")))
    assert np.array_equal(decode_mask(mask).labels, np.asarray(Image.open(mask)) > 0)
