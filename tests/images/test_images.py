"""Images in: every kind of file to the same pixels or to one line; resizing, symmetries and scaling exactly."""

import io
import itertools
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from textdiff.errors import UserError
from textdiff.images import formats
from textdiff.images.decode import decode
from textdiff.images.images import (
    read_image,
    resize_image,
    resize_mask,
    symmetry,
    unsymmetry,
)
from textdiff.images.masks import decode_mask

DRAW = np.random.default_rng(11)
RGB = DRAW.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = DRAW.integers(0, 65536, (20, 30, 3), dtype=np.uint16)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def scaled(deep: np.ndarray) -> np.ndarray:
    """16 -> 8 bits by the definition: the nearest whole number to x / 257."""
    return ((2 * deep.astype(np.int64) + 257) // 514).astype(np.uint8)


# Reading images


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


def test_12_bit_values_in_16_bits_are_said_to_come_out_dark(tmp_path):
    pixels, notes = decode(save(tmp_path / "a.png", DEEP[..., 0] // 16))
    assert pixels.max() <= 16
    assert "dark: the largest value is 40" in notes[0]


def test_16_bit_colour_png_is_within_one_level_and_noted(tmp_path):
    # Pillow writes no 16-bit colour PNG, so this one is put together by hand (filter 0, one chunk).
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP)
    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n")
    header = (30).to_bytes(4, "big") + (20).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    PngImagePlugin.putchunk(out, b"IHDR", header)
    PngImagePlugin.putchunk(out, b"IDAT", zlib.compress(rows))
    PngImagePlugin.putchunk(out, b"IEND")
    pixels, notes = decode("a.png", out.getvalue())
    assert np.abs(pixels.astype(int) - scaled(DEEP)).max() <= 1
    assert notes == ["16-bit (scaled to 8)"]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_is_shown_over_the_whole_range_and_keeps_its_numbers(bits):
    # Pillow writes no grey PNG of few bits.
    numbers = np.random.default_rng(2).integers(0, 2**bits, (20, 24)).astype(np.uint8)
    digits = (numbers[..., None] >> np.arange(bits)[::-1] & 1).reshape(20, -1)
    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(out, b"IHDR", (24).to_bytes(4, "big") + (20).to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0]))
    PngImagePlugin.putchunk(
        out, b"IDAT", zlib.compress(b"".join(b"\0" + bytes(r) for r in np.packbits(digits, axis=1)))
    )
    PngImagePlugin.putchunk(out, b"IEND")
    assert np.array_equal(decode("a.png", out.getvalue())[0][..., 0], numbers * (255 // (2**bits - 1)))
    assert np.array_equal(formats.open_stored("a.png", out.getvalue()).pixels, numbers)


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


def encoded(kind: str) -> bytes:
    smooth = np.cumsum(np.random.default_rng(1).integers(-3, 4, (48, 48, 3)), axis=0).astype(np.uint8)
    out = io.BytesIO()
    if kind.startswith("tif"):
        tifffile.imwrite(out, smooth, photometric="rgb", compression="zlib" if kind == "tif-zlib" else None)
    elif kind == "lzw":
        Image.fromarray(smooth).save(out, "TIFF", compression="tiff_lzw")
    else:
        Image.fromarray(smooth).save(out, kind.partition("-")[0].upper(), progressive=kind == "jpeg-progressive")
    return out.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "jpeg-progressive", "bmp", "tif", "tif-zlib", "lzw"])
def test_truncated_files_are_errors_or_whole_never_half_grey(kind):
    data = encoded(kind)
    whole = decode("a", data)[0]
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 150)):
        try:
            pixels, _ = decode("dir/cut.png", data[:length])
        except UserError as error:
            refused += 1
            assert "cut.png" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert np.array_equal(pixels, whole)
    assert refused > 100
    with pytest.raises(UserError, match="truncated or damaged"):
        decode("a", data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["png", "tif", "tif-zlib", "jpeg"])
def test_flipped_bytes_never_raise_anything_but_user_errors(kind):
    data = encoded(kind)
    whole = decode("a", data)[0]
    for at in range(0, len(data), max(1, len(data) // 300)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        try:
            pixels, _ = decode("a", bytes(damaged))
        except UserError:
            continue
        # Every byte of a PNG's pixels is under a checksum. The other formats have none.
        assert kind != "png" or np.array_equal(pixels, whole)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.png").write_text("<html>404</html>")
    for name, words in (("empty.png", "is empty"), ("page.png", "not a readable"), ("gone.png", "No such file")):
        with pytest.raises(UserError, match=f"{name}: .*{words}"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("GIF", "a GIF"), ("WEBP", "a WebP"), ("JPEG2000", "a JPEG 2000"), ("PPM", "a PNM"), ("PDF", "a PDF")],
)
def test_intact_files_of_another_kind_are_not_called_damaged(tmp_path, kind, name):
    Image.fromarray(RGB).save(tmp_path / "a.png", kind)
    with pytest.raises(UserError, match=f"a.png: is {name}, which is not read; save it as PNG or TIFF"):
        read_image(tmp_path / "a.png")


def test_jpeg_of_12_bits_is_not_called_damaged():
    coded = encoded("jpeg")
    frame = coded.index(b"\xff\xc0") + 4
    with pytest.raises(UserError, match="is a JPEG of 12 bits, which is not read"):
        decode("a.jpg", coded[:frame] + b"\x0c" + coded[frame + 1 :])


def test_images_of_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.0005)
    for suffix in ("png", "tif"):
        with pytest.raises(UserError, match=r"30x20 pixels, more than .* megapixels; cut regions out of it"):
            read_image(save(tmp_path / f"a.{suffix}", RGB))
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    with pytest.raises(UserError, match="too many pixels"):
        decode("bomb.png", bomb.getvalue())


def test_a_jpeg_of_scan_upon_scan_is_refused():
    out = io.BytesIO()
    Image.fromarray(GREY).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    assert decode("a.jpg", data[:-2] + last * 20 + data[-2:])[0].shape == (20, 30, 3)
    with pytest.raises(UserError, match=r"a.jpg: .*damaged"):
        decode("a.jpg", data[:-2] + last * 500 + data[-2:])


def test_a_file_too_large_to_be_held_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UserError, match=r"a.png: has 3072 MiB, too many"):
        read_image(tmp_path / "a.png")


# Resizing


def area_oracle(image: np.ndarray, size: int) -> np.ndarray:
    """Every new pixel as the exact mean over the rectangle it covers, with fractions, one at a time."""
    height, width = image.shape
    out = np.empty((size, size), object)
    for i, j in itertools.product(range(size), repeat=2):
        top, bottom = Fraction(i * height, size), Fraction((i + 1) * height, size)
        left, right = Fraction(j * width, size), Fraction((j + 1) * width, size)
        out[i, j] = sum(
            int(image[y, x]) * (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
            for y in range(int(top), -int(-bottom // 1))
            for x in range(int(left), -int(-right // 1))
        ) / ((bottom - top) * (right - left))
    return out


def bilinear_oracle(image: np.ndarray, size: int) -> np.ndarray:
    """Half-pixel centres, clamped edges, one pixel at a time, with fractions."""
    height, width = image.shape

    def at(y: int, x: int) -> int:
        return int(image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    out = np.empty((size, size), object)
    for i, j in itertools.product(range(size), repeat=2):
        y = (i + Fraction(1, 2)) * height / size - Fraction(1, 2)
        x = (j + Fraction(1, 2)) * width / size - Fraction(1, 2)
        v, u = y - y // 1, x - x // 1
        above = at(y // 1, x // 1) * (1 - u) + at(y // 1, x // 1 + 1) * u
        below = at(y // 1 + 1, x // 1) * (1 - u) + at(y // 1 + 1, x // 1 + 1) * u
        out[i, j] = above * (1 - v) + below * v
    return out


def rounded(values: np.ndarray) -> np.ndarray:
    return np.array([[int((value + Fraction(1, 2)) // 1) for value in row] for row in values])


SHRINK = [((7, 7), 3), ((12, 8), 4), ((9, 16), 5), ((10, 10), 10), ((13, 11), 1)]
GROW = [((3, 3), 7), ((5, 4), 12), ((1, 1), 4)]


@pytest.mark.parametrize(("shape", "size"), SHRINK)
def test_area_is_the_exact_mean_of_what_a_pixel_covers(shape, size):
    image = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size, "area"), rounded(area_oracle(image, size)))


@pytest.mark.parametrize(("shape", "size"), SHRINK + GROW)
def test_bilinear_has_half_pixel_centres_and_clamped_edges(shape, size):
    image = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size, "bilinear"), rounded(bilinear_oracle(image, size)))


@pytest.mark.parametrize(("shape", "size"), GROW)
def test_area_enlarges_bilinearly(shape, size):
    image = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size, "area"), rounded(bilinear_oracle(image, size)))


def test_area_takes_each_axis_by_its_own_direction():
    # Rows shrink by two, columns grow by two; all values are multiples of 8, so nothing is rounded on the way.
    image = np.random.default_rng(6).integers(0, 32, (12, 3), dtype=np.uint8) * np.uint8(8)
    halved = image.reshape(6, 2, 3).mean(axis=1)
    expected = np.stack([bilinear_oracle(np.tile(row.astype(int), (6, 1)), 6)[0] for row in halved])
    assert np.array_equal(resize_image(image, 6, "area"), rounded(expected))


@pytest.mark.parametrize("rule", ["area", "bilinear"])
def test_colours_are_resized_one_by_one(rule):
    small = resize_image(RGB, 8, rule)
    assert small.shape == (8, 8, 3)
    for channel in range(3):
        assert np.array_equal(small[..., channel], resize_image(RGB[..., channel], 8, rule))


@pytest.mark.parametrize("rule", ["area", "bilinear"])
def test_resizing_commutes_with_the_symmetries(rule):
    image = np.random.default_rng(8).integers(0, 256, (37, 23), dtype=np.uint8)
    for view in range(8):
        assert np.array_equal(
            resize_image(symmetry(image, view), 11, rule), symmetry(resize_image(image, 11, rule), view)
        )


@pytest.mark.parametrize(("shape", "size"), SHRINK)
def test_area_masks_are_foreground_where_half_is(shape, size):
    mask = np.random.default_rng(9).integers(0, 2, shape, dtype=np.uint8)
    expected = np.array([[value >= Fraction(1, 2) for value in row] for row in area_oracle(mask, size)])
    assert np.array_equal(resize_mask(mask, size, "area"), expected)


def test_a_pixel_that_is_exactly_half_covered_is_foreground():
    assert resize_mask(np.array([[1, 0], [0, 1]]), 1, "area").item() == 1


@pytest.mark.parametrize(("shape", "size"), SHRINK + GROW)
def test_bilinear_masks_are_what_the_papers_code_makes(shape, size):
    mask = (np.random.default_rng(10).random(shape) < 0.2).astype(np.uint8)
    assert np.array_equal(resize_mask(mask, size, "bilinear"), rounded(bilinear_oracle(mask * 255, size)) > 0)


def test_papers_rule_dilates_and_area_does_not():
    y, x = np.mgrid[:1000, :1000]
    nuclei = np.hypot(y % 41.3 - 20, x % 41.3 - 20) < 12
    share = {rule: resize_mask(nuclei, 256, rule).mean() / nuclei.mean() for rule in ("area", "bilinear")}
    assert share["area"] == pytest.approx(1, abs=0.03)
    assert share["bilinear"] > 1.1


def test_unknown_rules_are_refused():
    for call in (lambda: resize_image(RGB, 4, "cubic"), lambda: symmetry(RGB, 8)):
        with pytest.raises(ValueError, match=r"cubic|view 8"):
            call()


# Symmetries


def test_there_are_eight_symmetries_closed_under_composition():
    array = np.arange(16).reshape(4, 4)
    views = [symmetry(array, view).tobytes() for view in range(8)]
    assert len(set(views)) == 8
    assert views[0] == array.tobytes()
    for first, second in itertools.product(range(8), repeat=2):
        assert symmetry(symmetry(array, first), second).tobytes() in views


@pytest.mark.parametrize("view", range(8))
def test_unsymmetry_is_the_inverse(view):
    for shape, axes in (((5, 7), (0, 1)), ((5, 7, 3), (0, 1)), ((2, 3, 5, 7), (-2, -1))):
        array = np.arange(np.prod(shape)).reshape(shape)
        turned = symmetry(array, view, axes)
        assert np.array_equal(unsymmetry(turned, view, axes), array)
        assert np.array_equal(symmetry(unsymmetry(array, view, axes), view, axes), array)
        assert turned.flags.c_contiguous
        assert not np.shares_memory(turned, array)


@pytest.mark.parametrize("view", range(8))
def test_channels_first_turns_as_channels_last(view):
    first = symmetry(RGB.transpose(2, 0, 1), view, axes=(-2, -1))
    assert np.array_equal(first.transpose(1, 2, 0), symmetry(RGB, view))


def test_real_images_and_masks_are_read(real_monuseg):
    folder = real_monuseg / "Test_Folder"
    image, mask = next(folder.glob("img/*.tif")), next(folder.glob("labelcol/*.png"))
    assert np.array_equal(read_image(image), np.asarray(Image.open(image).convert("RGB")))
    assert np.array_equal(decode_mask(mask).labels, np.asarray(Image.open(mask)) > 0)
