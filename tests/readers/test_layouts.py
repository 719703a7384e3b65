"""Data sets in layouts that are known elsewhere: read, or named with what to do."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import inspect, read_dataset


def fill(root: Path, *files: str) -> Path:
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(path)
        else:
            path.write_text("ImageId,EncodedPixels\n" if path.suffix == ".csv" else "{}")
    return root


NAMED = {
    "Pascal VOC": (
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        "is laid out as Pascal VOC; rename JPEGImages to images",
    ),
    "Cityscapes": (("leftImg8bit/a.png", "gtFine/a.png"), "is laid out as Cityscapes; copy its images to images/"),
    "nnU-Net": (("imagesTr/a_0000.png", "labelsTr/a.png"), "is laid out as nnU-Net; rename imagesTr to images"),
    "Decathlon": (("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"), "the Medical Segmentation Decathlon; save slices"),
    "COCO": (
        ("train2017/a.jpg", "annotations/instances_train2017.json"),
        "is laid out as COCO; put the images in images/",
    ),
    "COCO beside images": (("images/a.jpg", "annotations/all.json"), "is laid out as COCO; put the images in images/"),
    "Roboflow": (("train/a.jpg", "train/_annotations.coco.json"), "is laid out as COCO; put the images in images/"),
    "YOLO": (("images/train/a.jpg", "labels/train/a.txt"), "is laid out as YOLO; draw its polygons"),
    "other names": (("img/a.png", "mask/a.png"), "rename img to images, mask to masks"),
    "other names in splits": (
        ("train/img/a.png", "train/gt/a.png"),
        "rename train/gt to train/masks, train/img to train/im",
    ),
    "splits in names": (
        ("test_images/a.png", "test_masks/a.png"),
        "rename test_images to test/images, test_masks to test/",
    ),
    "masks beside images": (
        ("a.png", "a_mask.png"),
        r"has images beside their masks; move the masks \(such as a_mask\)",
    ),
    "images alone": (("a.png", "b.png"), "has 2 images of its own; move them to images/"),
    "Kaggle": (("train/a.png", "train.csv"), "has run lengths of masks in train.csv; decode them"),
    "the folder above": (("x/1/images/1.png", "x/1/masks/0.png"), "has no folder images; did you mean .*/x?"),
}


@pytest.mark.parametrize("case", NAMED)
def test_a_known_layout_is_named_with_what_to_do(tmp_path, case):
    files, words = NAMED[case]
    with pytest.raises(UserError, match=re.escape(str(tmp_path)) + f": .*{words}") as raised:
        read_dataset("folder", fill(tmp_path, *files))
    assert "\n" not in str(raised.value)


def test_folders_called_as_masks_are_pointed_out(tmp_path):
    fill(tmp_path, "images/a.png", "labels/a.png").joinpath("texts.csv").write_text("image,text\na,x\n")
    problems = [str(problem) for problem in read_dataset("folder", tmp_path)[1]]
    assert "labels: is not read: masks are looked for in masks/; rename it to masks, if they are these" in problems


def bowl(root: Path) -> Path:
    """Four images with three objects each, the third over the second."""
    for number in range(4):
        fill(root, f"{number:02}/images/{number:02}.png")
        Image.fromarray(np.full((16, 16, 3), 9 * number, np.uint8)).save(root / f"{number:02}/images/{number:02}.png")
        (root / f"{number:02}/masks").mkdir()
        for part, rows in enumerate((slice(0, 4), slice(6, 10), slice(8, 14))):
            mask = np.zeros((16, 16), np.uint8)
            mask[rows, :5] = 255
            Image.fromarray(mask).save(root / f"{number:02}/masks/{part}.png")
    return root


def test_a_mask_for_each_object_becomes_one_map_of_objects(tmp_path, textdiff_once):
    bowl(tmp_path / "data")
    arguments = ("--dataset", "folder", "--data", "data", "--val", "0.25", "--test", "0.25")
    said = textdiff_once(
        tmp_path,
        "extract",
        *arguments,
        "--preset",
        "rgb",
        "--text-encoder",
        "none",
        "--image-size",
        "32",
        "--views",
        "1",
    ).stderr
    assert "data/00/masks: 10 pixels are in several objects: the first one keeps them (and 3 others like it)" in said
    cache = FeatureCache.open(tmp_path / "cache/data.zarr")
    assert sorted(row.split for row in cache.rows) == ["test", "train", "train", "val"]
    expected = np.zeros((16, 16), np.uint32)
    expected[0:4, :5], expected[6:10, :5], expected[10:14, :5] = 1, 2, 3
    for row in range(4):
        np.testing.assert_array_equal(cache.instances(row), expected)


def test_texts_splits_and_missing_masks_of_object_folders(tmp_path):
    bowl(tmp_path)
    for mask in (tmp_path / "03/masks").iterdir():
        mask.unlink()
    (tmp_path / "texts.csv").write_text("image,text,split\n00,x,train\n01.png,y,val\n02,z,test\n03,,train\n")
    samples, problems = read_dataset("folder", tmp_path)
    assert [(s.id, s.text, s.split, s.mask is None) for s in samples] == [
        ("00", "x", "train", False),
        ("03", "", "train", True),
        ("01", "y", "val", False),
        ("02", "z", "test", False),
    ]
    assert list(map(str, problems)) == ["03/images/03.png: has no masks: it is unlabelled"]


@pytest.mark.parametrize("spared", ["no image", "00"])
def test_folders_with_one_mask_each_are_told_to_hold_one_object_each(tmp_path, spared):
    for mask in bowl(tmp_path).glob("*/masks/[12].png"):
        if mask.parts[-3] != spared:
            mask.unlink()
    said = [problem.what for problem in read_dataset("folder", tmp_path)[1]]
    assert ("has one mask for each image, which is taken for a single object" in said) == (spared == "no image")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda r: fill(r, "00/images/other.png"), "00: holds 2 images in images/; keep one in each folder"),
        (
            lambda r: fill(r, "00/masks/other.png"),
            "00/masks: holds other.png, which is 8x8 pixels, but its image 16x16",
        ),
        (lambda r: (r / "00/masks/1.png").write_bytes(b""), "00/masks: holds 1.png, which is empty"),
        (
            lambda r: (r / "01/images/01.png").rename(r / "01/images/00.png"),
            "01/images/00.png: has the name of 00/images/00.png; name each image as its folder",
        ),
        (lambda r: (r / "texts.csv").write_text("image,text\nghost,x\n"), "line 2 is a text for ghost, an image that"),
    ],
)
def test_what_is_wrong_in_object_folders_is_named(tmp_path, damage, words):
    damage(bowl(tmp_path))
    samples, problems = read_dataset("folder", tmp_path)
    said = [str(problem) for problem in [*problems, *inspect(samples)[1]] if problem.severity == "error"]
    assert len(said) == 1
    assert words in said[0]


def test_classes_are_refused_where_masks_tell_objects_apart(tmp_path):
    with pytest.raises(UserError, match=r"--classes: the masks in .* tell objects apart"):
        read_dataset("folder", bowl(tmp_path), ReadOptions(classes=("x",)))


@pytest.mark.parametrize("kind", ["folder", "objects", "monuseg"])
def test_names_that_are_not_utf8_are_errors_of_one_line(tmp_path, kind, textdiff_once):
    root = tmp_path / "data"
    if kind == "objects":
        bowl(root)
        os.rename(root / "03", os.fsencode(root) + b"/caf\xe9")  # noqa: PTH104
    else:
        fill(root, "images/a.png", "images/b.tif")
        (root / "texts.csv").write_text("image,text\na,x\n")
        os.rename(root / "images/b.tif", os.fsencode(root) + b"/images/caf\xe9.tif")  # noqa: PTH104
        if kind == "monuseg":
            (root / "a.xml").write_text("<Annotations/>")
            (root / "images/a.png").rename(root / "images/a.tif")
    dataset = "monuseg" if kind == "monuseg" else "folder"
    said = textdiff_once(tmp_path, "data", "check", "--dataset", dataset, "--data", "data", status=1).stdout
    assert "caf\\udce9" in said
    assert "has a name that is not UTF-8; rename it" in said
