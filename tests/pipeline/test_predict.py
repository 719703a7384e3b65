"""``predict`` over directories, lists and data sets: what is written, passed over, and gone on with; and ``score``."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from scipy import ndimage

import textdiff
from textdiff.metrics.objects import aji
from textdiff.metrics.surfaces import hd95
from textdiff.outputs.colours import class_colours


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, textdiff_once, tiny_backbone) -> Path:
    """A data set with its cache and a run, the quickest there is."""
    root = tmp_path_factory.mktemp("predict")
    make_lvit_once(root / "data", n_train=2, n_val=1, n_test=3, size=(72, 96))
    arguments = ("--data", "data", "--backbone", str(tiny_backbone), "--text-encoder", "none")
    smallest = ("--image-size", "64", "--blocks", "6,8", "--steps", "50,150")
    textdiff_once(root, "extract", "--dataset", "monuseg", *arguments, *smallest, "--cache", "cache.zarr")
    textdiff_once(root, "fit", "--cache", "cache.zarr", "--epochs", "2", "--variant", "no-text")
    return root


@pytest.fixture
def images(made, tmp_path) -> Path:
    """Three images, one in a subdirectory, and something that is none."""
    folder = tmp_path / "images"
    shutil.copytree(made / "data/Test_Folder/img", folder)
    (folder / "deeper").mkdir()
    (folder / "test_001.tif").rename(folder / "deeper/test_000.tif")
    (folder / "notes.txt").write_text("not an image")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_directory_gives_masks_and_tables_that_agree(made, images, tmp_path, textdiff_once):
    out = tmp_path / "out"
    result = textdiff_once(made, "predict", str(images), "--out", str(out), "--objects", "watershed")
    listed = [Path(line) for line in result.stdout.splitlines()]
    assert all(path.is_file() for path in listed)
    names = {"test_000", "test_002", "deeper/test_000"}
    summary = {row["image"]: row for row in table(out / "images.csv")}
    assert set(summary) == names
    rows = table(out / "predictions.csv")
    for name in names:
        mask = np.asarray(Image.open(out / f"{name}.png"))
        objects = np.asarray(Image.open(out / f"{name}_objects.png"))
        assert mask.shape == (72, 96)
        assert ((objects > 0) == (mask == 255)).all()
        mine = [row for row in rows if row["image"] == name]
        assert [int(row["object"]) for row in mine] == list(range(1, objects.max() + 1))
        assert [int(row["area"]) for row in mine] == np.bincount(objects.ravel())[1:].tolist()
        assert int(summary[name]["objects"]) == len(mine)
        assert int(summary[name]["area"]) == (mask > 0).sum()


def test_every_format_is_written_and_a_second_run_keeps_all(made, images, tmp_path, textdiff_once):
    out = tmp_path / "out"
    arguments = ("predict", str(images), "--out", str(out), "--format", "geojson,nifti", "--format", "ome-zarr,roi")
    textdiff_once(made, *arguments)
    for suffix in (".png", ".geojson", ".nii.gz", ".ome.zarr/labels/objects/0/zarr.json", ".roi.zip"):
        assert (out / f"deeper/test_000{suffix}").is_file()
    before, times = content(out), {path: path.stat().st_mtime_ns for path in out.glob("test_*")}
    again = textdiff_once(made, *arguments)
    assert "3 of 3 images are done already" in again.stderr
    assert content(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("test_*")}
    textdiff_once(made, *arguments, "--overwrite")
    assert content(out) == before
    assert all(path.stat().st_mtime_ns > time for path, time in times.items())
    (out / "test_002.roi.zip").unlink()
    assert "2 of 3" in textdiff_once(made, *arguments).stderr
    assert content(out) == before


def test_an_unreadable_image_is_named_once_and_the_others_are_done(made, images, tmp_path, textdiff_once):
    good = (images / "test_002.tif").read_bytes()
    (images / "test_002.tif").write_bytes(good[: len(good) // 2])
    out = tmp_path / "out"
    result = textdiff_once(made, "predict", str(images), "--out", str(out), status=2)
    assert result.stderr.count("test_002.tif") == 1
    assert "1 of 3 images could not be segmented" in result.stderr
    assert (out / "test_000.png").is_file()
    assert (out / "deeper/test_000.png").is_file()
    assert {row["image"]: bool(row["error"]) for row in table(out / "images.csv")} == {
        "test_000": False,
        "deeper/test_000": False,
        "test_002": True,
    }
    (images / "test_002.tif").write_bytes(good)
    mended = textdiff_once(made, "predict", str(images), "--out", str(out))
    assert "2 of 3" in mended.stderr
    assert not any(row["error"] for row in table(out / "images.csv"))


def test_stopped_it_goes_on_to_the_same_files(made, images, tmp_path, textdiff_once):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["predict", str(images), "--format", "geojson", "--out"]
    textdiff_once(made, *arguments, str(whole))
    code = (
        "import os, signal, sys; from textdiff.pipeline.prediction import records; write = records.write_json\n"
        "def once(path, value):\n    write(path, value)\n"
        "    if path.parent.name == 'images': os.kill(os.getpid(), signal.SIGINT)\n"
        "records.write_json = once\n"
        "from textdiff import cli; sys.argv = ['textdiff', *sys.argv[1:]]; cli.main()"
    )
    command = [sys.executable, "-c", code, *arguments, str(cut)]
    stopped = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert stopped.returncode == 130
    assert "again" in stopped.stderr
    done = len(table(cut / "images.csv"))
    assert 1 <= done < 3
    assert f"{done} of 3" in textdiff_once(made, *arguments, str(cut)).stderr
    assert content(cut) == content(whole)


def test_other_settings_do_not_mix_in_one_folder(made, images, tmp_path, textdiff_once):
    arguments = ("predict", str(images / "test_000.tif"), "--out", str(tmp_path / "out"))
    textdiff_once(made, *arguments)
    refused = textdiff_once(made, *arguments, "--min-area", "30", status=2)
    assert "min_area" in refused.stderr
    assert "--overwrite" in refused.stderr
    textdiff_once(made, *arguments, "--min-area", "30", "--overwrite")
    assert all(int(row["area"]) >= 30 for row in table(tmp_path / "out/predictions.csv"))


def test_lists_name_images_relative_to_themselves(made, images, tmp_path, textdiff_once):
    (images / "list.csv").write_text("Image,Text\ndeeper/test_000.tif,The nuclei are dense.\ntest_002.tif,\n")
    (images / "list.txt").write_text("# two of them\n\ntest_000.tif\n")
    out = tmp_path / "out"
    textdiff_once(made, "predict", "--list", str(images / "list.csv"), "--text", "Some.", "--out", str(out))
    records = {p.relative_to(out / ".records/images").as_posix(): json.loads(p.read_text())["text"]
               for p in (out / ".records/images").rglob("*.json")}  # fmt: skip
    assert records == {"deeper/test_000.json": "The nuclei are dense.", "test_002.json": "Some."}
    textdiff_once(made, "predict", "--list", str(images / "list.txt"), "--out", str(out))
    assert len(table(out / "images.csv")) == 3


def test_images_are_summed_up_by_the_groups_of_a_list_which_may_change(made, images, tmp_path, textdiff_once):
    names = ("test_000.tif", "deeper/test_000.tif", "test_002.tif")
    out = tmp_path / "out"

    def predicted(*groups):
        rows = [f"{name},{group}" for name, group in zip(names, groups, strict=True)]
        (images / "list.csv").write_text("\n".join(["image,group", *rows]) + "\n")
        arguments = ("--list", str(images / "list.csv"), "--mpp", "0.5", "--out", str(out))
        return textdiff_once(made, "predict", *arguments), {row["group"]: row for row in table(out / "groups.csv")}

    first, groups = predicted("anna", "anna", "bert")
    assert {str(out / "groups.csv"), str(out / "summary.csv")} <= set(first.stdout.splitlines())
    assert {name: row["images"] for name, row in groups.items()} == {"anna": "2", "bert": "1"}
    mask = np.asarray(Image.open(out / "test_002.png"))
    assert float(groups["bert"]["share"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
    square = mask.size * 0.25 / 1e6
    assert float(groups["bert"]["objects_per_mm2"]) == pytest.approx(int(groups["bert"]["objects"]) / square, rel=1e-6)
    assert {row["over"] for row in table(out / "summary.csv")} == {"groups"}
    second, groups = predicted("anna", "bert", "bert")
    assert "3 of 3 images are done already" in second.stderr
    assert {name: row["images"] for name, row in groups.items()} == {"anna": "1", "bert": "2"}


def test_a_data_set_gives_its_images_without_a_mask(made, tmp_path, textdiff_once):
    data = Path(shutil.copytree(made / "data", tmp_path / "data"))
    (data / "Train_Folder/labelcol/train_001.png").unlink()
    result = textdiff_once(made, "predict", "--dataset", "monuseg", "--data", str(data), "--out", str(tmp_path / "out"))
    assert "1 of 6 images have no mask" in result.stderr
    assert [row["image"] for row in table(tmp_path / "out/images.csv")] == ["train_001"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to segment"),
        (("{images}", "--format", "svg"), "--format svg"),
        (("{images}", "--objects", "voronoi"), "watershed"),
        (("{images}", "--min-area", "-1"), "--min-area"),
        (("{images}/test_000.tif", "{images}/deeper/test_000.tif"), "both would write test_000"),
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
    before = content(tmp_path)
    run = ("--run", str(made / "runs/latest"))
    assert words in textdiff_once(tmp_path, "predict", *arguments, "--out", out, *run, status=2).stderr
    assert content(tmp_path) == before


def test_results_inside_the_directory_are_not_images(made, images, textdiff_once):
    for _ in range(2):
        textdiff_once(made, "predict", str(images), "--out", str(images / "predictions"))
    assert len(table(images / "predictions/images.csv")) == 3


def test_score_measures_objects_and_outlines_of_the_predicted_masks(made, tmp_path, textdiff_once):
    test = made / "data/Test_Folder"
    textdiff_once(made, "predict", str(test / "img"), "--out", str(tmp_path / "out"))
    result = textdiff_once(made, "score", "--metrics", "aji,hd95,nsd", "--json")
    run = made / "runs" / (made / "runs/latest").readlink()
    scores = table(run / "scores.csv")
    corners = np.ones((3, 3))
    for row in scores:
        mask = np.asarray(Image.open(tmp_path / "out" / f"{row['id']}.png")) > 0
        truth = np.asarray(Image.open(test / "labelcol" / f"{row['id']}.png")) > 127
        expected = aji(ndimage.label(mask, corners)[0], ndimage.label(truth, corners)[0])
        assert float(row["aji_original"]) == pytest.approx(expected, abs=1e-9)
        assert float(row["hd95_original"]) == pytest.approx(hd95(mask, truth))
    summary = json.loads(result.stdout)["scores"]["original"]
    assert [name for name in summary if "present" not in name] == ["dice", "iou", "aji", "hd95", "nsd"]
    shown = textdiff_once(made, "score").stdout
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("AJI", "PQ", "F1"))] == [
        "AJI",
        "PQ",
        "F1",
    ]
    assert max(map(len, shown.splitlines())) <= 80
    assert "--metrics auc" in textdiff_once(made, "score", "--metrics", "auc", status=2).stderr


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
            assert reason in table(tmp_path / "out/images.csv")[0]["error"]
        assert "1 of 2 images do not fit a format" in result.stderr
        assert ("2 of 2 images are done already" in result.stderr) == bool(times)
    first, second = table(tmp_path / "out/images.csv")
    assert (first["image"], first["width"], second["image"], second["error"]) == ("aa", "32768", "zz", "")
    written = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    ends = (".png", ".nii.gz", ".geojson", ".roi.zip")
    tables = {"images.csv", "predictions.csv", "summary.csv"}
    assert written == {*tables, "aa.png", "aa.geojson", *(f"zz{end}" for end in ends)}


def test_an_image_whose_results_cannot_be_written_is_named_and_the_others_are_done(
    made, images, tmp_path, textdiff_once
):
    out = tmp_path / "out"
    long = "a" * 250
    (images / "test_000.tif").rename(images / f"{long}.tif")
    (out / "test_002.ome.zarr").mkdir(parents=True)
    (out / "test_002.ome.zarr/thesis.tex").write_text("irreplaceable")
    result = textdiff_once(made, "predict", str(images), "--format", "ome-zarr", "--out", str(out), status=2)
    assert "its name is too long" in result.stderr
    assert "no OME-Zarr" in result.stderr
    assert "2 of 3 images could not be segmented" in result.stderr
    assert {row["image"]: bool(row["error"]) for row in table(out / "images.csv")} == {
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
    out = tmp_path / "out"
    result = textdiff_once(made, "predict", str(images), "--out", str(out))
    lines = {row["image"]: row for row in table(out / "images.csv")}
    assert set(lines) == {"test_000", "test_002", "deeper/test_000", "x", "dark", "clear"}
    assert "1 file passed over, not called as images are (notes.txt)" in result.stderr
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
    before = content(tmp_path / "out")
    record = tmp_path / "out/.records/images/test_002.json"
    record.write_text("{")
    other = textdiff_once(made, "predict", str(images / "test_000.tif"), "--out", str(tmp_path / "out"), status=2)
    assert "test_002.json: damaged" in other.stderr
    textdiff_once(made, *command)
    assert content(tmp_path / "out") == before


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


def test_each_image_is_listed_with_the_text_it_was_given(made, images, tmp_path, textdiff_once):
    (images / "list.csv").write_text('image,text\ntest_000.tif,"Dense, round."\ntest_002.tif,\n')
    command = ("predict", "--list", str(images / "list.csv"), "--text", "Some.", "--out", str(tmp_path / "out"))
    textdiff_once(made, *command)
    assert {row["image"]: row["text"] for row in table(tmp_path / "out/images.csv")} == {
        "test_000": "Dense, round.",
        "test_002": "Some.",
    }


def test_an_overlay_outlines_every_object_and_changes_nothing_else(made, images, tmp_path, textdiff_once):
    options = ("--overlay", "--objects", "watershed", "--out", str(tmp_path / "out"))
    textdiff_once(made, "predict", str(images / "test_000.tif"), *options)
    image, drawn, mask, objects = (
        np.asarray(Image.open(path))
        for path in (
            images / "test_000.tif",
            *(tmp_path / f"out/test_000{end}.png" for end in ("_overlay", "", "_objects")),
        )
    )
    changed = (drawn != image).any(axis=2)
    assert changed.any()
    assert not changed[mask == 0].any()
    for number in range(1, objects.max() + 1):
        inner = ndimage.binary_erosion(objects == number, np.ones((3, 3)), border_value=1)
        assert not changed[inner].any()
        assert (drawn[(objects == number) & ~inner] == class_colours(1)[0]).all()
