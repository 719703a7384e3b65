"""``predict`` over directories, lists and data sets: what is written, and gone on with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from textdiff.metrics.objects import aji
from textdiff.metrics.surfaces import hd95
from textdiff.outputs.colours import class_colours
from textdiff.tests.file_tools import files, read_csv
from textdiff.tests.run_cases import newest


def test_a_directory_gives_masks_and_tables_that_agree(made, images, tmp_path, textdiff_once):
    out = tmp_path / "out"
    result = textdiff_once(made, "predict", str(images), "--out", str(out), "--objects", "watershed")
    listed = [Path(line) for line in result.stdout.splitlines()]
    assert all(path.is_file() for path in listed)
    names = {"test_000", "test_002", "deeper/test_000"}
    summary = {row["image"]: row for row in read_csv(out / "images.csv")}
    assert set(summary) == names
    rows = read_csv(out / "predictions.csv")
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
    before, times = files(out), {path: path.stat().st_mtime_ns for path in out.glob("test_*")}
    again = textdiff_once(made, *arguments)
    assert "3 of 3 images are done already" in again.stderr
    assert files(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("test_*")}
    textdiff_once(made, *arguments, "--overwrite")
    assert files(out) == before
    assert all(path.stat().st_mtime_ns > time for path, time in times.items())
    (out / "test_002.roi.zip").unlink()
    assert "2 of 3" in textdiff_once(made, *arguments).stderr
    assert files(out) == before


def test_stopped_it_goes_on_to_the_same_files(made, images, tmp_path, textdiff_once):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["predict", str(images), "--format", "geojson", "--out"]
    textdiff_once(made, *arguments, str(whole))
    code = (
        "import os, signal, sys; from textdiff.pipeline.prediction import records; write = records.write_json\n"
        "def once(path, value):\n    write(path, value)\n"
        "    if 'image' in value: os.kill(os.getpid(), signal.SIGINT)\n"
        "records.write_json = once\n"
        "from textdiff import cli; sys.argv = ['textdiff', *sys.argv[1:]]; cli.main()"
    )
    command = [sys.executable, "-c", code, *arguments, str(cut)]
    stopped = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert stopped.returncode == 130
    assert "again" in stopped.stderr
    done = len(read_csv(cut / "images.csv"))
    assert 1 <= done < 3
    assert f"{done} of 3" in textdiff_once(made, *arguments, str(cut)).stderr
    assert files(cut) == files(whole)


def test_lists_name_images_relative_to_themselves(made, images, tmp_path, textdiff_once):
    (images / "list.csv").write_text("Image,Text\ndeeper/test_000.tif,The nuclei are dense.\ntest_002.tif,\n")
    (images / "list.txt").write_text("# two of them\n\ntest_000.tif\n")
    out = tmp_path / "out"
    textdiff_once(made, "predict", "--list", str(images / "list.csv"), "--text", "Some.", "--out", str(out))
    records = {p.relative_to(out / ".records/images").as_posix(): json.loads(p.read_text())["text"]
               for p in (out / ".records/images").rglob("*.json")}  # fmt: skip
    assert records == {"deeper/test_000.json": "The nuclei are dense.", "test_002.json": "Some."}
    textdiff_once(made, "predict", "--list", str(images / "list.txt"), "--out", str(out))
    assert len(read_csv(out / "images.csv")) == 3
    (images / "list.txt").write_text("test_000.tif\ntest_002.tif\n")
    told = textdiff_once(made, "predict", "--list", str(images / "list.txt"), "--text", "Some.", "--out", str(out))
    assert "1 of 3 images is here from before, and in the tables too (deeper/test_000); choose another" in told.stderr


def test_images_are_summed_up_by_the_groups_of_a_list_which_may_change(made, images, tmp_path, textdiff_once):
    names = ("test_000.tif", "deeper/test_000.tif", "test_002.tif")
    out = tmp_path / "out"

    def predicted(*groups):
        rows = [f"{name},{group}" for name, group in zip(names, groups, strict=True)]
        (images / "list.csv").write_text("\n".join(["image,group", *rows]) + "\n")
        arguments = ("--list", str(images / "list.csv"), "--own-mpp", "0.5", "--out", str(out))
        return textdiff_once(made, "predict", *arguments), {row["group"]: row for row in read_csv(out / "groups.csv")}

    first, groups = predicted("anna", "anna", "bert")
    assert {str(out / "groups.csv"), str(out / "summary.csv")} <= set(first.stdout.splitlines())
    assert {name: row["images"] for name, row in groups.items()} == {"anna": "2", "bert": "1"}
    mask = np.asarray(Image.open(out / "test_002.png"))
    assert float(groups["bert"]["share"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
    square = mask.size * 0.25 / 1e6
    assert float(groups["bert"]["objects_per_mm2"]) == pytest.approx(int(groups["bert"]["objects"]) / square, rel=1e-6)
    assert {row["over"] for row in read_csv(out / "summary.csv")} == {"groups"}
    second, groups = predicted("anna", "bert", "bert")
    assert "3 of 3 images are done already" in second.stderr
    assert {name: row["images"] for name, row in groups.items()} == {"anna": "1", "bert": "2"}


def test_a_data_set_gives_its_images_without_a_mask(made, tmp_path, textdiff_once):
    data = Path(shutil.copytree(made / "data", tmp_path / "data"))
    (data / "Train_Folder/labelcol/train_001.png").unlink()
    result = textdiff_once(made, "predict", "--dataset", "monuseg", "--data", str(data), "--out", str(tmp_path / "out"))
    assert "1 of 6 images has no mask" in result.stderr
    assert [row["image"] for row in read_csv(tmp_path / "out/images.csv")] == ["train_001"]
    shutil.move(data / "Test_Folder/img", tmp_path / "own/images")
    arguments = ("--dataset", "folder", "--data", str(tmp_path / "own"), "--out", str(tmp_path / "of-folder"))
    result = textdiff_once(made, "predict", *arguments)
    assert "3 of 3 images have no mask" in result.stderr
    assert not [what for what in ("is unlabelled", "has no splits") if what in result.stderr]


def test_score_measures_objects_and_outlines_of_the_predicted_masks(made, tmp_path, textdiff_once):
    test = made / "data/Test_Folder"
    textdiff_once(made, "predict", str(test / "img"), "--out", str(tmp_path / "out"))
    result = textdiff_once(made, "score", "--metrics", "aji,hd95,nsd", "--json")
    run = newest(made / "runs").path
    scores = read_csv(run / "scores.csv")
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


def test_each_image_is_listed_with_the_text_it_was_given(made, images, tmp_path, textdiff_once):
    (images / "list.csv").write_text('image,text\ntest_000.tif,"Dense, round."\ntest_002.tif,\n')
    command = ("predict", "--list", str(images / "list.csv"), "--text", "Some.", "--out", str(tmp_path / "out"))
    textdiff_once(made, *command)
    assert {row["image"]: row["text"] for row in read_csv(tmp_path / "out/images.csv")} == {
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
