"""DICOM in: rescaling, window and photometric interpretation, checked against pydicom's own functions."""

import io
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.images.decode import decode
from textdiff.images.masks import decode_mask
from textdiff.readers.datasets import inspect, read_dataset

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels.processing import apply_modality_lut, apply_windowing  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)


def dicom(pixels: np.ndarray, bits: int = 16, **attributes) -> Dataset:
    """A secondary capture of these pixels, (H, W) or (H, W, 3) or with ``NumberOfFrames`` (F, H, W)."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    colour = pixels.ndim == 3 and "NumberOfFrames" not in attributes
    file.Rows, file.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    file.BitsAllocated = 8 * pixels.itemsize
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(file, name, value)
    return file


def data_of(file: Dataset) -> bytes:
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


SLICE = np.random.default_rng(0).integers(-1000, 2000, (12, 16)).astype(np.int16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -24, "WindowCenter": 40, "WindowWidth": 400}


def grey(file: Dataset) -> np.ndarray:
    image, _ = decode("a.dcm", data_of(file))
    assert (image == image[..., :1]).all()
    return image[..., 0]


def levels(shown: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.floor((np.asarray(shown, float) - low) / (high - low) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_rescaling_and_window_are_those_of_the_standard(function):
    file = dicom(SLICE, VOILUTFunction=function, **CT)
    hounsfield = apply_modality_lut(SLICE, file)
    shown = apply_windowing(hounsfield, file)
    ends = -32768 - 24, 32767 - 24
    np.testing.assert_allclose(grey(file).astype(int), levels(shown, *ends).astype(int), atol=1)
    # 40 +- 200 Hounsfield units are all that is seen.
    if function != "SIGMOID":
        assert (grey(file)[hounsfield <= -161] == 0).all()
        assert (grey(file)[hounsfield >= 240] == 255).all()


def test_monochrome1_is_inverted():
    file = dicom(SLICE, PhotometricInterpretation="MONOCHROME1", **CT)
    np.testing.assert_array_equal(grey(file), 255 - grey(dicom(SLICE, **CT)))


def test_without_a_window_the_stored_bits_are_the_range():
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    image, notes = decode("a.dcm", data_of(dicom(pixels, bits=12)))
    np.testing.assert_array_equal(image[..., 0], np.floor(pixels / 4095 * 255 + 0.5))
    assert "DICOM without a window (12 bits scaled to 8)" in notes


def test_colour_and_the_first_of_several_frames_are_read():
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode("a.dcm", data_of(dicom(pixels, bits=8)))[0], pixels)
    frames = np.stack([SLICE, SLICE // 2])
    file = dicom(frames, NumberOfFrames=2, **CT)
    np.testing.assert_array_equal(grey(file), grey(dicom(SLICE, **CT)))
    assert "2 frames (only the first is read)" in decode("a.dcm", data_of(file))[1]


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"RescaleSlope": None, "RescaleIntercept": "0"},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": "40"},
        {"VOILUTSequence": [], "ModalityLUTSequence": []},
    ],
    ids=str,
)
def test_elements_that_are_empty_or_alone_change_nothing(attributes):
    np.testing.assert_array_equal(grey(dicom(SLICE, **attributes)), grey(dicom(SLICE)))


@pytest.mark.parametrize(
    ("centre", "width"),
    [(["40", "500"], "400"), ("40", ["400", "2000"]), (["40", "500"], ["400", "2000"]), (["40", ""], "400")],
)
def test_the_first_of_several_windows_is_applied_and_said_also_where_their_numbers_differ(centre, width):
    file = dicom(SLICE, **CT | {"WindowCenter": centre, "WindowWidth": width})
    np.testing.assert_array_equal(grey(file), grey(dicom(SLICE, **CT)))
    assert "2 DICOM windows (the first applied)" in decode("a.dcm", data_of(file))[1]


def test_a_slope_without_an_intercept_is_applied():
    file = dicom(SLICE, RescaleSlope=2, WindowCenter=80, WindowWidth=800, VOILUTFunction="LINEAR_EXACT")
    plain = dicom(SLICE, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(grey(file), grey(plain))


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_enhanced_files_have_their_window_in_the_groups_of_their_frames(groups):
    rescaling, window, group = Dataset(), Dataset(), Dataset()
    rescaling.RescaleSlope, rescaling.RescaleIntercept = CT["RescaleSlope"], CT["RescaleIntercept"]
    window.WindowCenter, window.WindowWidth = CT["WindowCenter"], CT["WindowWidth"]
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescaling], [window]
    np.testing.assert_array_equal(grey(dicom(SLICE, **{groups: [group]})), grey(dicom(SLICE, **CT)))


@pytest.mark.parametrize("meta", [True, False], ids=["with its meta information", "without"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_files_without_the_preamble_are_read(meta, syntax):
    file = dicom(SLICE, **CT)
    file.file_meta.TransferSyntaxUID = syntax
    data = data_of(file)
    start = 132 if meta else 144 + int.from_bytes(data[140:144], "little")
    np.testing.assert_array_equal(decode("a.dcm", data[start:])[0], decode("a.dcm", data)[0])


def test_few_levels_of_many_bits_are_said_to_come_out_dark():
    image, notes = decode("a.dcm", data_of(dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64))))
    assert image.max() == 16
    assert "DICOM without a window (16 bits scaled to 8), and dark: the largest value is 4095 of 65535" in notes[0]


def test_deflated_files_are_read_but_not_to_any_size():
    file = dicom(SLICE, **CT)
    expected = grey(file)
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = data_of(file)
    np.testing.assert_array_equal(decode("a.dcm", data)[0][..., 0], expected)
    with pytest.raises(UserError, match=r"a.dcm: has more than 512 MiB"):
        decode("a.dcm", data[: 144 + int.from_bytes(data[140:144], "little")] + deflated_zeros(600 << 20))


def deflated_zeros(size: int) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = bytes(1 << 20)
    return b"".join(stream.compress(block) for _ in range(size >> 20)) + stream.flush()


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "whose RescaleSlope is 0"),
        ({"RescaleSlope": "NaN"}, "whose RescaleSlope is nan"),
        ({"RescaleIntercept": "1e400"}, "whose RescaleIntercept is inf"),
        ({"WindowCenter": 40, "WindowWidth": 0}, "whose WindowWidth is 0"),
        ({"WindowCenter": 40, "WindowWidth": -400, "VOILUTFunction": "SIGMOID"}, "whose WindowWidth is -400"),
        ({"WindowCenter": "NaN", "WindowWidth": 400}, "whose WindowCenter is nan"),
        ({"PhotometricInterpretation": "HSV"}, "with 1 samples of the kind 'HSV'"),
        ({"PhotometricInterpretation": "RGB"}, "with 1 samples of the kind 'RGB'"),
    ],
    ids=str,
)
def test_numbers_that_would_make_any_picture_black_and_other_colours_are_named(attributes, what):
    with pytest.raises(UserError, match=f"a.dcm: is DICOM {what}"):
        decode("a.dcm", data_of(dicom(SLICE, **attributes)))


def test_numbers_of_64_bits_are_refused():
    with pytest.raises(UserError, match=r"a.dcm: is DICOM of 64 bits, which are not read; export it with 16 bits"):
        decode("a.dcm", data_of(dicom(SLICE.astype(np.uint64), bits=64)))


@pytest.mark.parametrize("bits", [8, 16], ids=["described as 8 bits", "as 16 bits"])
def test_palettes_of_8_bits_in_words_of_16_keep_their_colours(bits):
    numbers, tables = np.arange(16, dtype=np.uint8).reshape(4, 4), {}
    for factor, colour in enumerate(("Red", "Green", "Blue"), 1):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tables[f"{colour}PaletteColorLookupTableData"] = (np.arange(256) * factor % 256).astype("<u2").tobytes()
    file = dicom(numbers, bits=8, PhotometricInterpretation="PALETTE COLOR", **tables)
    np.testing.assert_array_equal(decode("a.dcm", data_of(file))[0], np.stack([numbers, numbers * 2, numbers * 3], -1))


def test_dicom_in_place_of_a_mask_is_named():
    with pytest.raises(UserError, match=r"a.dcm: is DICOM, which is not read; save it as PNG or TIFF"):
        decode_mask("a.dcm", data_of(dicom(SLICE)))


def without(name: str) -> Callable[[Dataset], bytes]:
    def damage(file: Dataset) -> bytes:
        delattr(file, name)
        return data_of(file)

    return damage


def high_bits(file: Dataset) -> bytes:
    file.BitsStored = 12
    return data_of(file)


def truncated(file: Dataset) -> bytes:
    return data_of(file)[:-50]


def without_pixels(file: Dataset) -> bytes:
    del file.PixelData
    return data_of(file)


def compressed(file: Dataset) -> bytes:
    file.file_meta.TransferSyntaxUID = JPEG2000Lossless
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    return data_of(file)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "is not a readable DICOM image"),
        (without_pixels, "is DICOM without an image"),
        (without("PhotometricInterpretation"), "is DICOM without PhotometricInterpretation, which its pixels need"),
        (without("BitsStored"), "is DICOM without BitsStored, which its pixels need"),
        (high_bits, "is DICOM whose HighBit is not that of its BitsStored"),
        (compressed, "is compressed as JPEG 2000 .*, which cannot be decoded here"),
    ],
)
def test_bad_dicom_files_get_one_line(damage, words):
    with pytest.raises(UserError, match=f"a.dcm: ({words})") as raised:
        decode("a.dcm", damage(dicom(SLICE, **CT)))
    assert "\n" not in str(raised.value)


def test_without_pydicom_the_extra_is_named(monkeypatch):
    data = data_of(dicom(SLICE, **CT))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r'a.dcm: is DICOM, which needs pydicom; pip install "textdiff\[dicom\]"'):
        decode("a.dcm", data)


def test_a_folder_of_dicom_files_is_a_data_set(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/slice.dcm").write_bytes(data_of(dicom(SLICE, **CT)))
    (tmp_path / "texts.csv").write_text("image,text\nslice.dcm,Ground glass.\n")
    samples, _ = read_dataset("folder", tmp_path)
    facts, problems = inspect(samples)
    assert (facts[0].image.height, facts[0].image.width, facts[0].usable) == (12, 16, True)
    assert [str(problem) for problem in problems if problem.severity == "error"] == []
