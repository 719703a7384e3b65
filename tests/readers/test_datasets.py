"""Data sets in: what is listed, what is refused, what is said, all before any work."""

import hashlib
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook, load_workbook
from PIL import Image

from textdiff.errors import UserError
from textdiff.readers.datasets import Problem, inspect, read_dataset, report


def table(path: Path, rows: list[list[object]]) -> None:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def add_row(path: Path, *cells: object) -> None:
    book = load_workbook(path)
    book.active.append(cells)
    book.save(path)


def errors(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems if problem.severity == "error"]


def notes(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems if problem.severity == "note"]


def grey(path: Path, *size: int) -> None:
    Image.fromarray(np.arange(np.prod(size) * 3, dtype=np.uint8).reshape(*size, 3)).save(path)


# Listing


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
    assert {(fact.height, fact.width) for fact in facts} == {(1000, 1000)}


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
    table(
        root / "Train_Folder/Train_text.xlsx",
        [["Image", "Description"], ["train_000.jpg", "a"], ["mask_train_001.PNG", "b"], ["img/train_002", "c"]],
    )
    samples, problems = read_dataset("qata", root)
    assert problems == []
    assert [sample.text for sample in samples[:3]] == ["a", "b", "c"]


def test_table_headers_columns_and_blank_rows_are_tolerated(make_lvit):
    root = make_lvit(n_train=2)
    table(
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
    table(folder / "Train_text.xlsx", [["Image", "Description"], [12.0, "a"], ["Müller.png", "b"]])
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
    table(
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
    assert inspect(samples)[0][0].mask_sha256 is None


# Mismatches: all of them in one go


def mask_without_image(root: Path) -> None:
    shutil.copy(root / "Train_Folder/labelcol/train_000.png", root / "Train_Folder/labelcol/lost.png")


def text_without_image(root: Path) -> None:
    add_row(root / "Test_Folder/Test_text.xlsx", "ghost.png", "There is no such image.")


def image_without_row(root: Path) -> None:
    table(root / "Val_Folder/Val_text.xlsx", [["Image", "Description"]])


def two_texts(root: Path) -> None:
    add_row(root / "Train_Folder/Train_text.xlsx", "train_000.png", "Another text.")


def same_stem(root: Path) -> None:
    grey(root / "Train_Folder/img/train_001.tif", 64, 64)


def two_masks(root: Path) -> None:
    shutil.copy(root / "Train_Folder/labelcol/train_002.png", root / "Train_Folder/labelcol/mask_train_002.png")


def id_in_two_splits(root: Path) -> None:
    grey(root / "Val_Folder/img/test_000.png", 64, 64)
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


# Directories and tables that are none


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
    table(root / "Test_Folder/Test_text.xlsx", [["file", "text"], ["test_000.png", "a"]])
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


# Looking into the files


def test_facts_are_sizes_and_digests_of_the_files_in_the_order_of_the_samples(make_lvit):
    samples, _ = read_dataset("monuseg", make_lvit(n_train=9, size=32))
    seen: list[int] = []
    facts, problems = inspect(samples, seen.append)
    assert problems == []
    assert [fact.sample for fact in facts] == samples
    assert seen == [1] * len(samples)
    for fact in facts:
        assert (fact.height, fact.width, fact.usable) == (32, 32, True)
        assert fact.image_sha256 == hashlib.sha256(fact.sample.image.read_bytes()).hexdigest()
        assert fact.sample.mask is not None
        assert fact.mask_sha256 == hashlib.sha256(fact.sample.mask.read_bytes()).hexdigest()


def truncated_image(root: Path) -> None:
    path = root / "Train_Folder/img/train_000.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_mask(root: Path) -> None:
    path = root / "Train_Folder/labelcol/train_000.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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
    ):
        assert line in said
    assert len(notes(found)) == 9


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

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect(samples * 100, interrupt)
    assert len(opened) < 200


# Reporting


def test_a_problem_is_one_line_whatever_the_file_is_called():
    assert str(Problem("error", "img/a\nb.png", "is  odd", "mend\tit")) == "img/a b.png: is odd; mend it"
    assert str(Problem("note", "a.png", "grey", "")) == "a.png: grey"


def test_alike_notes_are_one_warning_and_nothing_is_raised(capsys):
    report([Problem("note", f"img/{n}.png", f"{n} pages (only the first is read)", "") for n in range(2, 9000)])
    assert capsys.readouterr().err == "warning: img/2.png: 2 pages (only the first is read) (and 8997 others like it)\n"


def test_many_errors_are_cut_short_and_counted(capsys):
    with pytest.raises(UserError, match="500 errors in the data set"):
        report([Problem("error", f"img/{n}.png", f"is {'damaged ' * n}", "replace it") for n in range(500)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 480 more kinds"


def test_errors_of_one_kind_are_one_line(capsys):
    """Whatever numbers and names they hold."""
    what = ("is 16x16 pixels, but its image img/{}.png is 32x32", "line {} has 3 cells and the header 2")
    with pytest.raises(UserError, match="40 errors in the data set"):
        report([Problem("error", f"{n}.png", what[n % 2].format(n), "mend it") for n in range(40)])
    assert capsys.readouterr().err.splitlines() == [
        "error: 0.png: is 16x16 pixels, but its image img/0.png is 32x32; mend it (and 19 others like it)",
        "error: 1.png: line 1 has 3 cells and the header 2; mend it (and 19 others like it)",
    ]


def test_nothing_is_said_of_a_whole_data_set(capsys):
    report([])
    assert capsys.readouterr().err == ""
