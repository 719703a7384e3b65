"""What ``predict`` cannot read, write or do is named, and everything else is done."""

import errno
import importlib
import json
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import textdiff
from textdiff.tests.file_tools import files, read_csv

predicting = importlib.import_module("textdiff.pipeline.predict")


def test_an_unreadable_image_is_named_once_and_the_others_are_done(made, images, tmp_path, textdiff_once):
    good = (images / "test_002.tif").read_bytes()
    (images / "test_002.tif").write_bytes(good[: len(good) // 2])
    out = tmp_path / "out"
    result = textdiff_once(made, "predict", str(images), "--out", str(out), status=2)
    assert result.stderr.count("test_002.tif") == 1
    assert "1 of 3 images could not be segmented" in result.stderr
    assert (out / "test_000.png").is_file()
    assert (out / "deeper/test_000.png").is_file()
    assert {row["image"]: bool(row["error"]) for row in read_csv(out / "images.csv")} == {
        "test_000": False,
        "deeper/test_000": False,
        "test_002": True,
    }
    (images / "test_002.tif").write_bytes(good)
    mended = textdiff_once(made, "predict", str(images), "--out", str(out))
    assert "2 of 3" in mended.stderr
    assert not any(row["error"] for row in read_csv(out / "images.csv"))


@pytest.mark.parametrize(("of_images", "of_masks"), [("images", "masks"), ("img", "labelcol")])
def test_masks_beside_images_are_no_images_and_copies_are_named(
    made, images, tmp_path, textdiff_once, of_images, of_masks
):
    data, out = tmp_path / "data", tmp_path / "out"
    for folder in (of_images, of_masks):
        (data / folder).mkdir(parents=True)
    shutil.copy(images / "test_000.tif", data / of_images / "a.tif")
    shutil.copy(images / "test_000.tif", data / of_images / "b.tif")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(data / of_masks / "a.png")
    told = textdiff_once(made, "predict", str(data), "--out", str(out)).stderr
    assert f"{data}: 1 file passed over, masks beside images ({of_masks}/a.png)" in told
    copy = f"1 of 2 images is a copy of another ({of_images}/b of {of_images}/a), and counts as one of its own"
    assert f"warning: {out}: {copy}\n" in told
    assert [row["image"] for row in read_csv(out / "images.csv")] == [f"{of_images}/a", f"{of_images}/b"]
    # A folder of masks that is named itself is what is meant, and so is one that stands alone.
    textdiff_once(made, "predict", str(data / of_masks), "--out", str(tmp_path / "masks"))
    shutil.rmtree(data / of_images)
    textdiff_once(made, "predict", str(data), "--out", str(tmp_path / "alone"))


def test_other_settings_do_not_mix_in_one_folder(made, images, tmp_path, textdiff_once):
    arguments = ("predict", str(images / "test_000.tif"), "--out", str(tmp_path / "out"))
    textdiff_once(made, *arguments)
    refused = textdiff_once(made, *arguments, "--min-area", "30", status=2)
    assert "min_area" in refused.stderr
    assert "--overwrite" in refused.stderr
    textdiff_once(made, *arguments, "--min-area", "30", "--overwrite")
    assert all(int(row["area"]) >= 30 for row in read_csv(tmp_path / "out/predictions.csv"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to segment"),
        (("{images}", "--format", "svg"), "--format svg"),
        (("{images}", "--objects", "voronoi"), "watershed"),
        (("{images}", "--min-area", "-1"), "--min-area"),
        (("{images}/test_000.tif", "{images}/deeper/test_000.tif"), "both would write test_000.png;"),
        (("{images}", "{images}/test_000.tif"), "test_000.tif: is named twice; name it once"),
        (("",), "is empty; give a path"),
        (("--list", "{images}/gone.csv"), "gone.csv"),
        (("--list", "{images}/notes.txt"), "not an image: no such image file"),
        (("--dataset", "monuseg"), "--data"),
        (("--dataset", "monuseg", "--data", "data"), "every image has a mask"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(arguments, words, made, images, tmp_path, textdiff_once):
    arguments = [argument.format(images=images) for argument in arguments]
    result = textdiff_once(made, "predict", *arguments, "--out", str(tmp_path / "out"), status=2)
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_data_set_in_one_file_that_has_all_masks_has_no_directory_to_give(made, tmp_path, textdiff_once):
    with h5py.File(path := tmp_path / "d.h5", "w") as file:
        file["images"], file["masks"] = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)
    result = textdiff_once(made, "predict", "--dataset", "hdf5", "--data", str(path), status=2)
    assert "every image has a mask; to segment them all the same, copy its images into a file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "out", "words"),
    [
        (("own/a.png",), "own", "a.png: is an image to be segmented"),
        (("own/a.png", "--overwrite"), "link", "a.png: is an image to be segmented"),
        (("own/a.png",), "tables", "images.csv: is there already"),
        (("own/a.png",), "masks", "a.png: is there already"),
        (("own",), "own", "own: is where the results go (--out)"),
    ],
)
def test_neither_images_nor_files_of_others_are_written_over(made, tmp_path, textdiff_once, arguments, out, words):
    for folder in ("own", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/images.csv").write_text("image\na.png\n")
    (tmp_path / "link").symlink_to("own")
    before = files(tmp_path)
    run = ("--run", str(made / "runs/latest"))
    assert words in textdiff_once(tmp_path, "predict", *arguments, "--out", out, *run, status=2).stderr
    assert files(tmp_path) == before


def test_a_result_that_others_wrote_is_named_and_stays(made, images, tmp_path, textdiff_once):
    out = tmp_path / "out"
    command = ("predict", str(images), "--out", str(out))
    (out / ".records").mkdir(parents=True)
    (out / "test_000.png").write_bytes(b"a mask of another program")
    first = textdiff_once(made, *command, status=2)
    textdiff_once(made, *command, "--overwrite")
    whole = files(out)
    (out / "deeper/test_000.png").write_bytes(whole["deeper/test_000.png"][:-9])
    Image.fromarray(np.zeros((72, 97), np.uint8)).save(out / "test_002.png")
    before = {path: (out / path).read_bytes() for path in ("deeper/test_000.png", "test_002.png")}
    second = textdiff_once(made, *command, status=2)
    for result, names in ((first, ("test_000",)), (second, before)):
        passed = [line for line in result.stderr.splitlines() if "is not as `textdiff predict` wrote it" in line]
        assert len(passed) == len(names)
        assert f"{len(names)} of 3 images could not be segmented" in result.stderr
    assert "1 of 3 images is done already" in second.stderr
    assert {path: (out / path).read_bytes() for path in before} == before
    for path in before:
        (out / path).unlink()
    textdiff_once(made, *command)
    assert files(out) == whole


def test_records_that_keep_no_contents_say_nothing_against_the_files(made, images, tmp_path, textdiff_once):
    out = tmp_path / "out"
    command = ("predict", str(images), "--out", str(out))
    textdiff_once(made, *command)
    for path in (out / ".records/images").rglob("*.json"):
        record = json.loads(path.read_text())
        del record["files"]
        path.write_text(json.dumps(record))
    (out / "test_000.png").write_bytes(b"corrected")
    assert "3 of 3 images are done already" in textdiff_once(made, *command).stderr
    assert (out / "test_000.png").read_bytes() == b"corrected"


def test_files_that_a_stopped_command_wrote_or_was_to_replace_are_its_own(
    made, images, tmp_path, textdiff_once, monkeypatch
):
    write, written = predicting.write_output, []

    def until_full(*arguments, **more):
        written.append(write(*arguments, **more))
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "full", "disk")

    command = ("predict", str(images), "--out", str(tmp_path / "out"))
    textdiff_once(made, *command, "--min-area", "30")
    monkeypatch.setattr(predicting, "write_output", until_full)
    assert "the disk is full" in textdiff_once(made, *command, "--overwrite", status=2).stderr
    assert "1 of 3 images is done already" in textdiff_once(made, *command).stderr


def test_results_inside_the_directory_are_not_images(made, images, textdiff_once):
    for _ in range(2):
        textdiff_once(made, "predict", str(images), "--out", str(images / "predictions"))
    assert len(read_csv(images / "predictions/images.csv")) == 3


def test_a_picture_beyond_a_format_is_named_and_everything_else_is_done(made, tmp_path, textdiff_once):
    (tmp_path / "in").mkdir()
    for name, width in (("aa", 32768), ("zz", 64)):
        Image.fromarray(np.full((8, width, 3), 200, np.uint8)).save(tmp_path / f"in/{name}.png")
    arguments = ("predict", str(tmp_path / "in"), "--format", "nifti,geojson,roi", "--out", str(tmp_path / "out"))
    for times in range(2):
        result = textdiff_once(made, *arguments, status=2)
        for title in ("NIfTI-1", "an ImageJ ROI"):
            reason = f"aa: 32768x8 pixels, and {title} holds 32767 a side; use --format geojson or ome-zarr"
            assert result.stderr.count(f"not written: {reason}\n") == 1
            assert reason in read_csv(tmp_path / "out/images.csv")[0]["error"]
        assert "1 of 2 images does not fit a format" in result.stderr
        assert ("2 of 2 images are done already" in result.stderr) == bool(times)
    first, second = read_csv(tmp_path / "out/images.csv")
    assert (first["image"], first["width"], second["image"], second["error"]) == ("aa", "32768", "zz", "")
    written = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    ends = (".png", ".nii.gz", ".geojson", ".roi.zip")
    tables = {"images.csv", "predictions.csv", "summary.csv"}
    assert written == {*tables, "aa.png", "aa.geojson", *(f"zz{end}" for end in ends)}


def test_an_image_whose_results_cannot_be_written_is_named_and_the_others_are_done(
    made, images, tmp_path, textdiff_once
):
    out = tmp_path / "out"
    long = "a" * 251
    (images / "test_000.tif").rename(images / f"{long}.tif")
    (out / "test_002.ome.zarr").mkdir(parents=True)
    (out / "test_002.ome.zarr/thesis.tex").write_text("irreplaceable")
    result = textdiff_once(made, "predict", str(images), "--format", "ome-zarr", "--out", str(out), status=2)
    assert "its name is too long" in result.stderr
    assert "test_002.ome.zarr: is not as `textdiff predict` wrote it, and stays" in result.stderr
    assert "2 of 3 images could not be segmented" in result.stderr
    assert {row["image"]: bool(row["error"]) for row in read_csv(out / "images.csv")} == {
        "deeper/test_000": False,
        long: True,
        "test_002": True,
    }
    assert (out / "deeper/test_000.ome.zarr/zarr.json").is_file()


def save_dicom(path, picture):
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Rows, file.Columns = picture.shape
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelData = 7, picture.tobytes()
    file.save_as(path, enforce_file_format=True)


def test_a_directory_is_read_as_a_data_set_is_and_what_is_passed_over_is_named(made, images, tmp_path, textdiff_once):
    grey = np.asarray(Image.open(images / "test_000.tif").convert("L"))
    save_dicom(images / "x.dcm", grey)
    Image.fromarray(grey.astype(np.uint16) * 16).save(images / "dark.PNG")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(images / "clear.png")
    # Results of before, and what file managers leave, are neither images nor worth a word.
    textdiff_once(made, "predict", str(images / "test_000.tif"), "--out", str(images / "earlier"))
    (images / ".DS_Store").write_bytes(b"x")
    (images / "storage").symlink_to(tmp_path)
    (images / "gone.png").symlink_to("nowhere.png")
    (images / ".venv").mkdir()
    (images / ".venv/lib64").symlink_to(tmp_path)
    (images / "latest").symlink_to(tmp_path)
    out = tmp_path / "out"
    result = textdiff_once(made, "predict", str(images), "--out", str(out))
    lines = {row["image"]: row for row in read_csv(out / "images.csv")}
    assert set(lines) == {"test_000", "test_002", "deeper/test_000", "x", "dark", "clear"}
    assert "1 file passed over, not called as images are (notes.txt)" in result.stderr
    assert "links to a directory or to nothing are not followed (gone.png, storage);" in result.stderr
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for path in (images / "x.dcm", images / "dark.PNG", images / "clear.png"):
        shutil.copy(path, data / "images")
    (data / "texts.csv").write_text("image,text\n" + "".join(f"{name},x\n" for name in ("x", "dark", "clear")))
    checked = textdiff_once(made, "data", "check", "--dataset", "folder", "--data", str(data), status=1).stdout
    for name, words in (("x", "DICOM without a window"), ("dark", "and dark: the largest"), ("clear", "alpha that is")):
        assert words in lines[name]["notes"]
        assert words in result.stderr
        assert words in checked
    textdiff_once(made, "predict", str(images / "x.dcm"), "--out", str(tmp_path / "alone"))
    assert (tmp_path / "alone/x.png").read_bytes() == (out / "x.png").read_bytes()


def test_a_predictor_remarks_on_a_file_once(made, images, capsys):
    grey = np.asarray(Image.open(images / "test_000.tif").convert("L"))
    Image.fromarray(grey).save(images / "grey.png")
    predictor = textdiff.Predictor(runs=made / "runs")
    for _ in range(2):
        predictor(images / "grey.png")
    said = capsys.readouterr().err
    assert said.count("grey.png: grey (replicated to RGB)") == 1
    assert said.count("grey.png: is not square (96x72)") == 1


def test_a_damaged_record_is_made_anew(made, images, tmp_path, textdiff_once):
    command = ("predict", str(images), "--out", str(tmp_path / "out"))
    textdiff_once(made, *command)
    before = files(tmp_path / "out")
    record = tmp_path / "out/.records/images/test_002.json"
    record.write_text("{")
    other = textdiff_once(made, "predict", str(images / "test_000.tif"), "--out", str(tmp_path / "out"), status=2)
    assert "test_002.json: damaged" in other.stderr
    textdiff_once(made, *command)
    assert files(tmp_path / "out") == before


def test_remarks_of_one_kind_are_said_when_the_first_comes_and_counted(made, tmp_path, textdiff_once):
    for number in range(3):
        dark = np.full((64, 64), 100 + number, np.uint16)
        dark[number:] += 20
        Image.fromarray(dark).save(tmp_path / f"{number}.png")
    said = textdiff_once(made, "predict", str(tmp_path), "--out", str(tmp_path / "out")).stderr
    assert said.index("0.png: 16-bit") < said.index("predict: 1/3")
    assert said.count("16-bit") == 2
    assert "0.png: 16-bit (scaled to 8), and dark: the largest value is 120 of 65535, as from a camera of fewer bits " \
        "(and 2 others like it)" in said  # fmt: skip
