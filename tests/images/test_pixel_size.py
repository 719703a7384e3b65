"""How large a pixel is: what files of every kind say, what is no calibration, and where the micrometres come out."""

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from textdiff.images.pixel_size import file_pixel_size

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def tiff(**options):
    return lambda path: tifffile.imwrite(path.with_suffix(".tif"), PIXELS, photometric="rgb", **options)


def ome(**sizes):
    return lambda path: tifffile.imwrite(
        path.with_name("x.ome.tif"), PIXELS[..., 0], metadata={"axes": "YX", **sizes}, ome=True
    )


def imagej(unit, resolution=(4, 2)):
    return tiff(imagej=True, resolution=resolution, metadata={"unit": unit})


def saved(suffix, **options):
    return lambda path: Image.fromarray(PIXELS).save(path.with_suffix(suffix), **options)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path.with_suffix(".png"), dpi=(25400, 12700), exif=exif)


def dicom(spacing, **places):
    def write(path):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        for name, value in places.items():
            setattr(file, name, value)
        if spacing:
            file.PixelSpacing = spacing
        file.save_as(path.with_suffix(".dcm"), enforce_file_format=True)

    return write


def measures(row, column):
    group, inner = Dataset(), Dataset()
    inner.PixelSpacing = [row, column]
    group.PixelMeasuresSequence = Sequence([inner])
    return Sequence([group])


APERIO = "Aperio Image Library v12.0.15\n46000x32914 [0,100 46000x32814] |AppMag = 40|MPP = 0.2520|Left = 25"


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (tiff(resolution=(40_000, 20_000), resolutionunit="CENTIMETER"), (0.25, 0.5)),
        (tiff(resolution=(101_600, 101_600), resolutionunit="INCH"), (0.25, 0.25)),
        (tiff(resolution=(40_000, 40_000), resolutionunit="NONE"), None),
        (tiff(description=APERIO, metadata=None), (0.252, 0.252)),
        (ome(PhysicalSizeX=0.5, PhysicalSizeY=0.25), (0.5, 0.25)),
        (ome(PhysicalSizeX=325, PhysicalSizeXUnit="nm", PhysicalSizeY=0.325, PhysicalSizeYUnit="µm"), (0.325, 0.325)),
        (ome(PhysicalSizeX=2, PhysicalSizeXUnit="pixel", PhysicalSizeY=2, PhysicalSizeYUnit="pixel"), None),
        (ome(), None),
        (imagej("micron"), (0.25, 0.5)),
        (imagej("mm"), (250, 500)),
        (imagej("pixel"), None),
        # What ImageJ makes of a scan at 300 dots an inch that it opened and saved again.
        *((imagej(unit, (dots, dots)), None) for unit, dots in (("inch", 300), ("cm", 118.11))),
        (imagej("inch", (25_400, 12_700)), (1.0, 2.0)),
        (saved(".png", dpi=(101_600, 50_800)), (0.25, 0.5)),
        (saved(".bmp", dpi=(50_800, 50_800)), (0.5, 0.5)),
        (turned, (2.0, 1.0)),
        (dicom([0.2, 0.1]), (100.0, 200.0)),
        (dicom(None, SharedFunctionalGroupsSequence=measures(0.0005, 0.00025)), (0.25, 0.5)),
        # What the detector's pixels measure is not what a patient measures.
        (dicom(None, ImagerPixelSpacing=[0.1, 0.1]), None),
        *((saved(".png", dpi=(dots, dots)), None) for dots in (72, 96, 300, 1200)),
        *((saved(".jpg", dpi=(dots, dots)), None) for dots in (72, 300)),
        (tiff(resolution=(72, 72), resolutionunit="INCH"), None),
        (tiff(resolution=((0, 1), (0, 1)), resolutionunit="CENTIMETER"), None),
        (saved(".png"), None),
        (saved(".jpg"), None),
    ],
)
def test_a_file_says_its_pixel_size_or_nothing_that_is_no_calibration(write, expected, tmp_path):
    write(tmp_path / "x")
    (path,) = tmp_path.iterdir()
    found = file_pixel_size(path)
    assert (found is None) if expected is None else (found == pytest.approx(expected, rel=1e-3))


def test_a_damaged_description_says_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "x.ome.tif", PIXELS, photometric="rgb", description="<OME", metadata=None)
    (tmp_path / "y.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    assert file_pixel_size(tmp_path / "x.ome.tif") is None
    assert file_pixel_size(tmp_path / "y.dcm") is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_lvit_once, textdiff_once):
    root = tmp_path_factory.mktemp("pixels")
    make_lvit_once(root / "data", n_train=2, n_val=0, n_test=0, size=64)
    options = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1", "--cache", "c.zarr")
    textdiff_once(root, "extract", "--dataset", "monuseg", "--data", "data", *options)
    textdiff_once(root, "fit", "--cache", "c.zarr", "--epochs", "20", "--variant", "no-text")
    return root


def test_micrometres_come_from_the_file_or_the_option_into_every_output(runs, tmp_path, textdiff_once):
    source = runs / "data/Train_Folder/img"
    for name, dots in (("a", 101_600), ("b", 96)):
        with Image.open(source / "train_000.png") as picture:
            picture.resize((120, 120)).save(tmp_path / f"{name}.png", dpi=(dots, dots))
    arguments = ("--format", "geojson,ome-zarr", "--overlay")

    def lines(name):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    textdiff_once(runs, "predict", str(tmp_path), *arguments, "--out", str(tmp_path / "own"))
    first, second = lines("own/images.csv")
    assert (first["pixel_width_um"], second["pixel_width_um"]) == ("0.25", "")
    assert float(first["area_um2"]) == pytest.approx(int(first["area"]) / 16)
    found = lines("own/predictions.csv")
    assert {row["area_um2"] == "" for row in found if row["image"] == "b"} == {True}
    assert sum(float(row["area_um2"]) for row in found if row["image"] == "a") == pytest.approx(int(first["area"]) / 16)
    shown = {name: json.loads((tmp_path / f"own/{name}.geojson").read_text())["features"] for name in "ab"}
    assert ["Area µm^2" in shown[name][0]["properties"]["measurements"] for name in "ab"] == [True, False]
    axes = [
        zarr.open_group(tmp_path / f"own/{name}.ome.zarr", mode="r").attrs["ome"]["multiscales"][0]["axes"][-1]
        for name in "ab"
    ]
    assert [axis.get("unit") for axis in axes] == ["micrometer", None]
    # The same picture with and without a scale bar.
    first, second = (np.asarray(Image.open(tmp_path / f"own/{name}_overlay.png")) for name in "ab")
    differs = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert len(differs)
    assert differs.min() > 80

    given = ("--own-mpp", "0.5", "--out", str(tmp_path / "given"))
    result = textdiff_once(runs, "predict", str(tmp_path), *arguments, *given)
    assert {row["pixel_width_um"] for row in lines("given/images.csv")} == {"0.5"}
    assert "a.png: says 0.25 x 0.25 µm per pixel itself (--own-mpp 0.5 counts)" in result.stderr
    refused = textdiff_once(runs, "predict", str(tmp_path), *arguments, "--out", str(tmp_path / "given"), status=2)
    assert "own_mpp 0.5, now None" in refused.stderr
    assert "--own-mpp 0" in textdiff_once(runs, "predict", str(tmp_path), "--own-mpp", "0", status=2).stderr
