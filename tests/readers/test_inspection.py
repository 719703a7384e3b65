"""Looking into the files of a data set: sizes, digests, and what is wrong or unusual with each."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.console import Progress
from textdiff.errors import UserError
from textdiff.readers.datasets import inspect, read_dataset, report
from textdiff.tests.file_tools import halve
from textdiff.tests.reader_cases import errors, notes


def test_facts_are_sizes_and_digests_of_the_files_in_the_order_of_the_samples(make_lvit):
    samples, _ = read_dataset("monuseg", make_lvit(n_train=9, size=32))
    facts, problems = inspect(samples)
    assert problems == []
    assert [fact.sample for fact in facts] == samples
    for fact in facts:
        assert (fact.image.height, fact.image.width, fact.usable) == (32, 32, True)
        assert fact.image.sha256 == hashlib.sha256(fact.sample.image.read_bytes()).hexdigest()
        assert fact.sample.mask is not None
        assert fact.mask.sha256 == hashlib.sha256(fact.sample.mask.read_bytes()).hexdigest()


def truncated_image(root: Path) -> None:
    halve(root / "Train_Folder/img/train_000.png")


def truncated_mask(root: Path) -> None:
    halve(root / "Train_Folder/labelcol/train_000.png")


def other_size(root: Path) -> None:
    Image.new("L", (48, 32)).save(root / "Train_Folder/labelcol/train_000.png")


def instances(root: Path) -> None:
    labels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) // 64
    Image.fromarray(labels).save(root / "Train_Folder/labelcol/train_000.png")


FAULTS = {
    truncated_image: "Train_Folder/img/train_000.png: is not a readable .*truncated or damaged.*; replace it",
    truncated_mask: "Train_Folder/labelcol/train_000.png: is not a readable .*truncated or damaged.*; replace it",
    other_size: "labelcol/train_000.png: is 48x32 pixels, but its image .*img/train_000.png is 64x64; export",
    instances: "Train_Folder/labelcol/train_000.png: is not a mask of two classes",
}


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_bad_files_are_errors_and_their_samples_unusable(make_lvit, damage):
    root = make_lvit()
    damage(root)
    samples, problems = read_dataset("monuseg", root)
    facts, found = inspect(samples)
    assert errors(problems) == []
    with pytest.raises(UserError, match=FAULTS[damage]):
        report(found)
    assert [fact.sample.id for fact in facts if not fact.usable] == ["train_000"]
    assert len(facts) == 6


def test_all_bad_files_are_reported_together(make_lvit):
    root = make_lvit()
    truncated_image(root)
    truncated_mask(root)
    _, found = inspect(read_dataset("monuseg", root)[0])
    assert [error.split(":")[0] for error in errors(found)] == [
        "Train_Folder/img/train_000.png",
        "Train_Folder/labelcol/train_000.png",
    ]


def test_unusual_files_are_noted_and_used(make_lvit):
    root = make_lvit(n_train=7, n_val=0, n_test=0)
    images, masks = root / "Train_Folder/img", root / "Train_Folder/labelcol"
    Image.fromarray(np.full((64, 64), 60000, np.uint16)).save(images / "train_000.png")
    Image.open(images / "train_001.png").convert("RGBA").save(images / "train_001.png")
    Image.open(images / "train_002.png").convert("L").save(images / "train_002.png")
    Image.new("L", (64, 64)).save(masks / "train_003.png")
    Image.new("L", (64, 64), 255).save(masks / "train_004.png")
    for folder in (images, masks):
        Image.open(folder / "train_005.png").crop((0, 0, 64, 40)).save(folder / "train_005.png")
    (images / "train_006.png").unlink()
    page = Image.new("RGB", (64, 64), (1, 2, 3))
    page.save(images / "train_006.tif", save_all=True, append_images=[page])
    facts, found = inspect(read_dataset("monuseg", root)[0])
    assert errors(found) == []
    assert all(fact.usable for fact in facts)
    said = "\n".join(notes(found))
    for line in (
        "img/train_000.png: 16-bit (scaled to 8)",
        "img/train_000.png: grey",
        "img/train_001.png: alpha (dropped)",
        "img/train_002.png: grey (replicated to RGB)",
        "labelcol/train_003.png: is an empty mask",
        "labelcol/train_004.png: is all foreground",
        "img/train_005.png: is not square (64x40)",
        "img/train_006.tif: 2 pages (only the first is read)",
        "img/train_000.png: is flat: every value is 233",
        "img/train_006.tif: shows next to nothing: its levels are 1 to 3 of 255",
    ):
        assert line in said
    assert len(notes(found)) == 10


def test_one_image_in_two_splits_is_noted(make_lvit):
    root = make_lvit()
    shutil.copy(root / "Train_Folder/img/train_000.png", root / "Test_Folder/img/test_000.png")
    (root / "Test_Folder/img/test_000.tif").unlink()
    _, found = inspect(read_dataset("monuseg", root)[0])
    assert notes(found) == [
        "Test_Folder/img/test_000.png: is the same image as Train_Folder/img/train_000.png: scores would be too good; "
        "keep it in one split"
    ]


def test_inspect_stops_at_once_when_interrupted(make_lvit, monkeypatch):
    samples, _ = read_dataset("monuseg", make_lvit(n_train=1))
    opened: list[Path] = []
    monkeypatch.setattr("textdiff.readers.decoding.read_bytes", lambda path: opened.append(path) or path.read_bytes())

    def interrupt(progress: Progress, count: int = 1) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inspect(samples * 100)
    assert len(opened) < 200
