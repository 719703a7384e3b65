"""What is no image, or a damaged, other or too large one, gets one line and never wrong pixels."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.errors import UserError
from textdiff.images import formats
from textdiff.images.decode import decode
from textdiff.images.images import read_image
from textdiff.tests.image_files import GREY, RGB, save


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
    for name, words in (
        ("empty.png", "is empty"),
        ("page.png", "a web page in place of an image"),
        ("gone.png", "No such file"),
    ):
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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a pointer of Git LFS in place of an image",
        ),
        (b"\xda\xce\xbe\x0a" + bytes(60), "an ND2, which is not read"),
    ],
)
def test_pointers_and_microscopes_files_are_not_called_damaged(data, words):
    with pytest.raises(UserError, match=f"a.png: is {words}"):
        decode("a.png", data)


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
