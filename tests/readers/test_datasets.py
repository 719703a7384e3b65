"""Data sets in the LViT layout: what is listed, and which directories are none."""

import shutil
import unicodedata
from pathlib import Path

import pytest

from textdiff.errors import UserError
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.tests.reader_cases import errors, notes, write_book


def test_real_monuseg_is_whole(real_monuseg):
    samples, problems = read_dataset("monuseg", real_monuseg)
    assert problems == []
    split = {name: [s for s in samples if s.split == name] for name in ("train", "val", "test")}
    assert [len(part) for part in split.values()] == [24, 6, 14]
    assert [len({sample.text for sample in part}) for part in split.values()] == [9, 5, 5]
    assert all(sample.mask is not None and sample.mask.stem == sample.image.stem for sample in samples)
    assert split["test"][0].image.suffix == ".tif"
    facts, found = inspect(samples)
    assert found == []
    assert {(fact.image.height, fact.image.width) for fact in facts} == {(1000, 1000)}


@pytest.mark.parametrize("name", ["monuseg", "qata"])
def test_image_mask_and_text_are_matched_by_name_without_extension(make_lvit, name):
    root = make_lvit(qata=name == "qata")
    samples, problems = read_dataset(name, root)
    assert problems == []
    assert [sample.id for sample in samples] == [
        "train_000",
        "train_001",
        "train_002",
        "val_000",
        "test_000",
        "test_001",
    ]
    assert [sample.split for sample in samples] == ["train"] * 3 + ["val"] + ["test"] * 2
    prefix = "mask_" if name == "qata" else ""
    for sample in samples:
        assert sample.image.stem == sample.id
        assert sample.mask is not None
        assert sample.mask.stem == prefix + sample.id
    assert [sample.text for sample in samples[:2]] == ["The nuclei are dense.", "The nuclei are sparse."]


def test_qata_table_may_name_images_or_masks_with_any_extension(make_lvit):
    root = make_lvit(qata=True)
    write_book(
        root / "Train_Folder/Train_text.xlsx",
        [["Image", "Description"], ["train_000.jpg", "a"], ["mask_train_001.PNG", "b"], ["img/train_002", "c"]],
    )
    samples, problems = read_dataset("qata", root)
    assert problems == []
    assert [sample.text for sample in samples[:3]] == ["a", "b", "c"]


def test_a_table_may_say_whose_the_images_are(make_lvit):
    root = make_lvit(n_train=2, n_val=1, n_test=2)
    for split, groups in (("Train", ["anna", "bert"]), ("Val", ["carl"]), ("Test", ["anna", "Bert"])):
        rows = [[f"{split.lower()}_{number:03d}", "some", group] for number, group in enumerate(groups)]
        write_book(root / f"{split}_Folder/{split}_text.xlsx", [["Image", "Description", "Group"], *rows])
    samples, problems = read_dataset("monuseg", root)
    assert [sample.group for sample in samples] == ["anna", "bert", "carl", "anna", "Bert"]
    assert [(problem.where, problem.what.split(":")[0]) for problem in problems] == [
        ("test_000", "is in test and train_000 of the same group anna in train"),
        ("test_001", "is of the group Bert in test, and train_001 of bert in train"),
    ]


def test_mosmed_is_read_in_the_lvit_layout(make_lvit):
    assert len(read_dataset("mosmed", make_lvit(qata=True))[0]) == 6


def test_table_headers_columns_and_blank_rows_are_tolerated(make_lvit):
    root = make_lvit(n_train=2)
    write_book(
        root / "Train_Folder/Train_text.xlsx",
        [
            [None, None],
            ["No.", " DESCRIPTION ", "image"],
            [1, "  two \n lines ", "train_000.png"],
            [None, "  ", None],
            [None, None, None],
            [2, "b", "train_001.png"],
        ],
    )
    samples, problems = read_dataset("monuseg", root)
    assert problems == []
    assert [sample.text for sample in samples[:2]] == ["two lines", "b"]


def test_numeric_and_accented_names_are_matched(make_lvit):
    root = make_lvit(n_train=2)
    folder = root / "Train_Folder"
    for part in ("img", "labelcol"):
        (folder / part / "train_000.png").rename(folder / part / "12.png")
        (folder / part / "train_001.png").rename(folder / part / (unicodedata.normalize("NFD", "Müller") + ".png"))
    write_book(folder / "Train_text.xlsx", [["Image", "Description"], [12.0, "a"], ["Müller.png", "b"]])
    samples, problems = read_dataset("monuseg", root)
    assert problems == []
    assert [sample.id for sample in samples[:2]] == ["12", "Müller"]


def test_hidden_files_are_ignored_silently_and_others_noted(make_lvit):
    root = make_lvit()
    for name in (".DS_Store", "Thumbs.db", "._train_000.png", "notes.txt"):
        (root / "Train_Folder/img" / name).write_text("x")
    (root / "Train_Folder/~$Train_text.xlsx").write_text("x")
    samples, problems = read_dataset("monuseg", root)
    assert len(samples) == 6
    assert [str(p) for p in problems] == ["Train_Folder/img/notes.txt: is not an image: it is ignored"]


def test_table_of_another_name_is_taken_if_it_is_the_only_one(make_lvit):
    root = make_lvit()
    path = root / "Train_Folder/Train_text.xlsx"
    path.rename(path.with_name("Train_text_for_Covid19.xlsx"))
    assert len(read_dataset("monuseg", root)[0]) == 6
    shutil.copy(path.with_name("Train_text_for_Covid19.xlsx"), path.with_name("old_text.xlsx"))
    with pytest.raises(UserError, match=r"several tables \(Train_text_for_Covid19.xlsx, old_text.xlsx\)"):
        read_dataset("monuseg", root)


def test_missing_val_and_test_are_noted(make_lvit):
    samples, problems = read_dataset("monuseg", make_lvit(n_val=0, n_test=0))
    assert [sample.split for sample in samples] == ["train"] * 3
    assert [p.where for p in problems] == ["Val_Folder", "Test_Folder"]
    assert errors(problems) == []


def test_images_without_mask_or_description_are_kept_and_noted(make_lvit):
    root = make_lvit(n_train=2)
    (root / "Train_Folder/labelcol/train_000.png").unlink()
    write_book(
        root / "Train_Folder/Train_text.xlsx",
        [["Image", "Description"], ["train_000.png", "a"], ["train_001.png", None]],
    )
    samples, problems = read_dataset("monuseg", root)
    assert samples[0].mask is None
    assert samples[1].text == ""
    assert notes(problems) == [
        "Train_Folder/img/train_000.png: has no mask: it is unlabelled",
        "Train_Folder/img/train_001.png: has no description in Train_text.xlsx: its text is empty",
    ]
    assert inspect(samples)[0][0].mask is None


def test_unknown_data_sets_are_answered_with_the_known(tmp_path):
    with pytest.raises(UserError, match="cityscapes: unknown data set; known are folder, hdf5, monuseg"):
        read_dataset("cityscapes", tmp_path)


def parent(root: Path) -> Path:
    return root.parent


def one_part(root: Path) -> Path:
    return root / "Train_Folder"


def other_layout(root: Path) -> Path:
    (root / "Train_Folder").rename(root / "training")
    return root


def empty(root: Path) -> Path:
    (root / "new").mkdir()
    (root / "new/.DS_Store").write_text("")
    return root / "new"


def no_img(root: Path) -> Path:
    (root / "Val_Folder/img").rename(root / "Val_Folder/images")
    return root


def no_labels(root: Path) -> Path:
    (root / "Train_Folder/labelcol").rename(root / "Train_Folder/masks")
    return root


def no_images(root: Path) -> Path:
    shutil.rmtree(root / "Val_Folder/img")
    (root / "Val_Folder/img").mkdir()
    return root


def no_table(root: Path) -> Path:
    (root / "Test_Folder/Test_text.xlsx").unlink()
    return root


def broken_table(root: Path) -> Path:
    path = root / "Test_Folder/Test_text.xlsx"
    path.write_bytes(path.read_bytes()[:1000])
    return root


def csv_table(root: Path) -> Path:
    (root / "Test_Folder/Test_text.xlsx").write_text("Image,Description\na,b\n")
    return root


def other_columns(root: Path) -> Path:
    write_book(root / "Test_Folder/Test_text.xlsx", [["file", "text"], ["test_000.png", "a"]])
    return root


LAYOUTS = {
    lambda root: root / "gone": "gone: no such directory",
    lambda root: root / "Train_Folder/Train_text.xlsx": "Train_text.xlsx: is a file; give the data set's directory",
    empty: "new: is an empty directory; expected Train_Folder",
    parent: "has no Train_Folder; did you mean .*/data?",
    one_part: "Train_Folder: is one part of a data set; give its parent directory .*/data",
    other_layout: r"expected Train_Folder .*; found Test_Folder/, Val_Folder/, training/",
    no_img: "Val_Folder: has no folder img with the images; found Val_text.xlsx, images/, labelcol/",
    no_labels: "Train_Folder: has no folder labelcol with the masks; found Train_text.xlsx, img/, masks/",
    no_images: "img: holds no images",
    no_table: "Test_text.xlsx: no such file; it is the table of texts",
    broken_table: "Test_text.xlsx: is not a readable Excel table",
    csv_table: "Test_text.xlsx: is not a readable Excel table",
    other_columns: "Test_text.xlsx: has no columns image and description; found file, text",
}


@pytest.mark.parametrize("damage", LAYOUTS, ids=lambda damage: damage.__name__)
def test_other_directories_get_one_line_that_says_what_was_expected(make_lvit, damage):
    path = damage(make_lvit())
    with pytest.raises(UserError, match=LAYOUTS[damage]) as raised:
        read_dataset("monuseg", path)
    assert "\n" not in str(raised.value)
