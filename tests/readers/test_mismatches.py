"""Images, masks and texts that do not belong together: each is named, and all of them in one go."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.errors import UserError
from textdiff.readers.datasets import read_dataset, report
from textdiff.tests.reader_cases import add_row, errors, write_book


def save_image(path: Path, *size: int) -> None:
    Image.fromarray(np.arange(np.prod(size) * 3, dtype=np.uint8).reshape(*size, 3)).save(path)


def mask_without_image(root: Path) -> None:
    shutil.copy(root / "Train_Folder/labelcol/train_000.png", root / "Train_Folder/labelcol/lost.png")


def text_without_image(root: Path) -> None:
    add_row(root / "Test_Folder/Test_text.xlsx", "ghost.png", "There is no such image.")


def image_without_row(root: Path) -> None:
    write_book(root / "Val_Folder/Val_text.xlsx", [["Image", "Description"]])


def two_texts(root: Path) -> None:
    add_row(root / "Train_Folder/Train_text.xlsx", "train_000.png", "Another text.")


def same_stem(root: Path) -> None:
    save_image(root / "Train_Folder/img/train_001.tif", 64, 64)


def two_masks(root: Path) -> None:
    shutil.copy(root / "Train_Folder/labelcol/train_002.png", root / "Train_Folder/labelcol/mask_train_002.png")


def id_in_two_splits(root: Path) -> None:
    save_image(root / "Val_Folder/img/test_000.png", 64, 64)
    add_row(root / "Val_Folder/Val_text.xlsx", "test_000.png", "x")


MISMATCHES = {
    mask_without_image: ("Train_Folder/labelcol/lost.png: is a mask without an image; ", ()),
    text_without_image: (
        "Test_Folder/Test_text.xlsx: row 4 of sheet Sheet is a text for ghost.png, an image that is not there; ",
        (),
    ),
    image_without_row: (
        "Val_Folder/img/val_000.png: has no row in Val_Folder/Val_text.xlsx; add its row",
        ("val_000",),
    ),
    two_texts: (
        "Train_Folder/Train_text.xlsx: row 5 of sheet Sheet is another text for train_000.png; ",
        ("train_000",),
    ),
    same_stem: ("Train_Folder/img/train_001.tif: has the name of Train_Folder/img/train_001.png; ", ("train_001",)),
    two_masks: (
        "Train_Folder/labelcol/train_002.png: is a second mask of Train_Folder/img/train_002.png",
        ("train_002",),
    ),
    id_in_two_splits: ("Test_Folder/img/test_000.tif: has the name of Val_Folder/img/test_000.png; ", ("test_000",)),
}


@pytest.mark.parametrize("damage", MISMATCHES, ids=lambda damage: damage.__name__)
def test_mismatches_are_named_and_their_samples_left_out(make_lvit, damage):
    root = make_lvit()
    whole = {sample.id for sample in read_dataset("monuseg", root)[0]}
    damage(root)
    samples, problems = read_dataset("monuseg", root)
    line, lost = MISMATCHES[damage]
    (error,) = errors(problems)
    assert error.startswith(line)
    assert "; " in error
    assert {sample.id for sample in samples} == whole - set(lost)
    with pytest.raises(UserError) as raised:
        report(problems)
    assert str(raised.value) == error


def test_all_mismatches_are_reported_together(make_lvit, capsys):
    root = make_lvit()
    for damage in MISMATCHES:
        if damage is not image_without_row:  # it would take the row of the one that comes in twice
            damage(root)
    _, problems = read_dataset("monuseg", root)
    assert len(errors(problems)) == len(MISMATCHES) - 1
    with pytest.raises(UserError, match="6 errors in the data set"):
        report(problems)
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in said) == 5  # two images have the name of another one


def test_same_text_twice_is_harmless(make_lvit):
    root = make_lvit()
    add_row(root / "Train_Folder/Train_text.xlsx", "train_000.png", "The nuclei are dense.")
    assert read_dataset("monuseg", root)[1] == []
