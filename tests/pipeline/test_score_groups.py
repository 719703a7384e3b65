"""Intervals of `score` and of experiments are over patients where the data say whose the images are."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from textdiff import open_run

NAMES = [("a", "train", "p1"), ("b", "train", "p2"), ("v", "val", "p3")]
NAMES += [(f"t{i}", "test", group) for i, group in enumerate(["p4", "p4", "p4", "p5", ""])]


@pytest.fixture(scope="module")
def scored(tmp_path_factory, textdiff_once):
    root = tmp_path_factory.mktemp("patients")
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, (name, _, _) in enumerate(NAMES):
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 12, 4 : 16 + number] = 255
        picture = np.where(mask[..., None], 90, 160) + rng.integers(0, 90, (32, 32, 3))
        Image.fromarray(picture.astype(np.uint8)).save(root / f"data/images/{name}.png")
        Image.fromarray(mask).save(root / f"data/masks/{name}.png")
    lines = ["image,text,split,group", *(f"{name},,{split},{group}" for name, split, group in NAMES)]
    (root / "data/texts.csv").write_text("\n".join(lines) + "\n")
    extract = (
        "extract",
        "--dataset",
        "folder",
        "--data",
        "data",
        "--preset",
        "rgb",
        "--views",
        "1",
        "--image-size",
        "32",
    )
    textdiff_once(root, *extract, "--text-encoder", "none", "--cache", "c.zarr")
    textdiff_once(root, "fit", "--cache", "c.zarr", "--variant", "no-text", "--epochs", "3")
    textdiff_once(root, "score")
    textdiff_once(root, "report")
    return root


def over_patients(values, seed=0):
    """Of five scores, the first three of one patient."""
    rng = np.random.default_rng(seed)
    members = [[0, 1, 2], [3], [4]]
    drawn = rng.integers(3, size=(40_000, 3))
    means = [np.concatenate([values[members[g]] for g in one]).mean() for one in drawn]
    return np.quantile(means, [0.025, 0.975])


def test_score_resamples_patients_and_says_so(scored):
    run = scored / "runs/latest"
    summary = json.loads((run / "scores.json").read_text())
    assert summary["bootstrap"]["over"] == "the 3 groups of the 5 images"
    assert [image.get("group", "") for image in summary["images"]] == ["p4", "p4", "p4", "p5", ""]
    for metric in ("dice", "iou"):
        values = np.array([image[f"{metric}_clean"] for image in summary["images"]])
        found = summary["scores"]["clean"][metric]
        assert found["mean"] == pytest.approx(values.mean())
        assert [found["low"], found["high"]] == pytest.approx(over_patients(values), abs=0.1 * values.std() + 1e-9)
    assert "bootstrap 95% intervals over the 3 groups of the 5 images" in (run / "report.md").read_text()
    assert "The intervals are over the 3 groups of the 5 images" in (run / "report.html").read_text()
    assert "group" in (run / "scores.csv").read_text().splitlines()[0].split(",")


def test_images_of_one_patient_have_no_interval_and_score_says_so(scored, tmp_path, textdiff_once):
    shutil.copytree(scored, tmp_path / "there", symlinks=True)
    table = tmp_path / "there/data/texts.csv"
    table.write_text(table.read_text().replace("p5", "p4").replace("t4,,test,", "t4,,test,p4"))
    said = textdiff_once(tmp_path / "there", "score", "--data", "data")
    run = tmp_path / "there/runs/latest"
    dice = json.loads((run / "scores.json").read_text())["scores"]["clean"]["dice"]
    assert (dice["low"], dice["high"], dice["n"]) == (None, None, 5)
    assert "Means over 5 images of one group, which have no interval." in (run / "report.md").read_text()
    assert "[" not in said.stdout.split("images\n")[1].split("\n\n")[0]


def test_copies_of_training_images_and_their_patients_are_named_where_they_are_scored(scored, tmp_path, textdiff_once):
    place = tmp_path / "there"
    shutil.copytree(scored, place, symlinks=True)
    assert "too good" not in textdiff_once(place, "score", "--cache", "c.zarr").stderr
    shutil.copy(place / "data/images/b.png", place / "data/images/t1.png")
    shutil.copy(place / "data/images/t2.png", place / "data/images/t4.png")
    table = place / "data/texts.csv"
    table.write_text(table.read_text().replace("t3,,test,p5", "t3,,test,p1"))
    textdiff_once(place, "extract", "--cache", "c.zarr", "--update")
    told = "1 of 5 test images is a copy of a training image (t1 of b), and 1 of 5 test images is of the group of "
    told += "training images (p1): the scores are too good. 1 of 5 test images is a copy of another (t4 of t2), and "
    told += "counts as one of its own."
    assert f"warning: {told}\n" in textdiff_once(place, "score", "--cache", "c.zarr").stderr
    run = place / "runs/latest"
    assert json.loads((run / "scores.json").read_text())["leaks"] == told
    assert told in (run / "report.md").read_text().replace("\n", " ")
    textdiff_once(place, "report", "--cache", "c.zarr")
    assert told in (run / "report.html").read_text()
    assert "too good" not in textdiff_once(place, "score", "--cache", "c.zarr", "--split", "train").stderr
    ablate = ("ablate", "--cache", "c.zarr", "--variants", "no-text", "--labels", "1", "--draws", "1", "--seeds", "1")
    textdiff_once(place, *ablate, "--epochs", "1", "--no-unet")
    (page,) = (place / "runs").glob("ablate-*/ablate.md")
    assert f"* {told}\n" in page.read_text()


def test_copies_of_images_that_a_run_learned_from_without_labels_are_named_too(scored, tmp_path, textdiff_once):
    place = tmp_path / "there"
    shutil.copytree(scored, place, symlinks=True)
    fit = ("fit", "--cache", "c.zarr", "--variant", "no-text", "--epochs", "1", "--labels", "1", "--unlabelled", "1")
    textdiff_once(place, *fit)
    (name,) = open_run(place / "runs/latest").config["unlabelled"]["images"]
    shutil.copy(place / f"data/images/{name}.png", place / "data/images/t1.png")
    textdiff_once(place, "extract", "--cache", "c.zarr", "--update")
    said = textdiff_once(place, "score", "--cache", "c.zarr").stderr
    assert f"is a copy of a training image (t1 of {name}): the scores are too good" in said


def test_experiments_resample_patients_and_say_so(scored, textdiff_once):
    ablate = ("ablate", "--cache", "c.zarr", "--variants", "no-text", "--labels", "2", "--draws", "1", "--seeds", "1")
    textdiff_once(scored, *ablate, "--epochs", "3", "--no-unet")
    (table,) = (scored / "runs").glob("ablate-*/ablate.json")
    note = (table.parent / "ablate.md").read_text()
    assert "seeds within draws, and the 3 groups of the 5 images" in note
    (images,) = table.parent.glob("no-text-*/images-test.json")
    values = np.array(json.loads(images.read_text())["scores"]["dice_clean"])
    (row,) = (
        row for row in json.loads(table.read_text())["rows"] if (row["metric"], row["truth"]) == ("dice", "clean")
    )
    assert [row["low"], row["high"]] == pytest.approx(over_patients(values), abs=0.1 * values.std() + 1e-9)
