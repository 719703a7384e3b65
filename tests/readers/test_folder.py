"""A lab's own folder: images, masks and a table of texts, whatever their formats and splits."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import Problem, inspect, read_dataset, report
from textdiff.readers.sample import Sample
from textdiff.readers.splits import draw_splits

IDS = ("a", "b", "c", "d")
SPLITS = ("train", "train", "val", "test")
TEXTS = ("Dense nuclei.", 'A "quoted", long one; with signs', "Läsionen: 3 µm", "")


def picture(number: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng([3, number]).integers(0, 256, (size, size, 3), dtype=np.uint8)


def mask_of(number: int, size: int = 32) -> np.ndarray:
    return (np.random.default_rng([4, number]).random((size, size)) < 0.3).astype(np.uint8) * 255


def write_table(root: Path, ending: str, rows: list[dict[str, str]]) -> Path:
    path, titles = root / f"texts.{ending}", list(rows[0])
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows), encoding="utf-8")
    elif ending == "xlsx":
        book = Workbook()
        for row in [titles, *(list(row.values()) for row in rows)]:
            book.active.append(row)
        book.save(path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig" if ending == "csv" else "utf-8") as file:
            writer = csv.DictWriter(file, titles, delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """``make(root="data", ending="csv", split=True, group=None, size=32)``: four images with masks and texts."""

    def make(root: str = "data", ending: str = "csv", split: bool = True, group: list[str] | None = None) -> Path:
        base = tmp_path / root
        for name in ("images", "masks"):
            (base / name).mkdir(parents=True)
        rows = []
        for number, name in enumerate(IDS):
            Image.fromarray(picture(number)).save(base / f"images/{name}.png")
            Image.fromarray(mask_of(number)).save(base / f"masks/{name}.png")
            row = {"image": f"{name}.png", "text": TEXTS[number]}
            row |= {"split": SPLITS[number]} if split else {}
            rows.append(row | ({"group": group[number]} if group else {}))
        write_table(base, ending, rows)
        return base

    return make


def load(root: Path, **options) -> tuple[list[Sample], list[Problem]]:
    return read_dataset("folder", root, ReadOptions(**options))


def errors(root: Path, **options) -> list[str]:
    samples, problems = load(root, **options)
    found = inspect(samples)[1]
    return [str(problem) for problem in [*problems, *found] if problem.severity == "error"]


# What is read


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "jsonl"])
def test_texts_splits_and_groups_come_from_any_table(make, ending):
    samples, problems = load(make(ending=ending, group=["p1", "p1", "p2", "p3"]))
    assert [(s.id, s.split, s.text, s.group) for s in samples] == [
        ("a", "train", TEXTS[0], "p1"),
        ("b", "train", TEXTS[1], "p1"),
        ("c", "val", TEXTS[2], "p2"),
        ("d", "test", TEXTS[3], "p3"),
    ]
    assert list(map(str, problems)) == [f"images/d.png: has no text in texts.{ending}: its text is empty"]


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), (",", "utf-8-sig")])
def test_csv_as_excel_saves_it_in_any_country(make, separator, encoding):
    root = make()
    lines = ["Image;Text;Split", "a.png;x;Train", "b;y;training", "c.tif;z;VAL", "d.png;w;test"]
    (root / "texts.csv").write_text("\r\n".join(lines).replace(";", separator), encoding=encoding)
    assert [(s.id, s.split, s.text) for s in load(root)[0]] == [
        ("a", "train", "x"),
        ("b", "train", "y"),
        ("c", "val", "z"),
        ("d", "test", "w"),
    ]


def test_subfolders_of_images_and_masks_are_splits(make):
    root = make(split=False)
    for name, split in zip(IDS, SPLITS, strict=True):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(exist_ok=True)
            shutil.move(root / kind / f"{name}.png", root / kind / split)
    samples, problems = load(root)
    assert [(s.id, s.split) for s in samples] == list(zip(IDS, SPLITS, strict=True))
    assert all(s.mask == root / "masks" / s.split / f"{s.id}.png" for s in samples)
    assert not [problem for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize("one_table", [True, False])
def test_folders_called_after_splits_may_hold_images_and_masks(make, one_table):
    root = make(split=False)
    for name, split in zip(IDS, SPLITS, strict=True):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            shutil.move(root / kind / f"{name}.png", root / split / kind)
    for kind in ("images", "masks"):
        (root / kind).rmdir()
    if not one_table:
        (root / "texts.csv").unlink()
        for split in set(SPLITS):
            names = [name for name, own in zip(IDS, SPLITS, strict=True) if own == split]
            write_table(root / split, "csv", [{"image": name, "text": "x"} for name in names])
    samples, problems = load(root)
    assert [(s.id, s.split) for s in samples] == list(zip(IDS, SPLITS, strict=True))
    assert not [problem for problem in problems if problem.severity == "error"]


def test_masks_may_be_missing_and_called_after_their_image(make):
    root = make()
    (root / "masks/a.png").rename(root / "masks/mask_a.png")
    (root / "masks/b.png").unlink()
    samples, problems = load(root)
    assert [s.mask.name if s.mask else None for s in samples] == ["mask_a.png", None, "c.png", "d.png"]
    assert "images/b.png: has no mask: it is unlabelled" in map(str, problems)


def test_the_table_of_texts_may_be_missing_and_is_missed_aloud(make):
    root = make()
    (root / "texts.csv").unlink()
    samples, problems = load(root)
    assert [(s.id, s.text, s.split, s.mask.name) for s in samples] == [(i, "", "train", f"{i}.png") for i in IDS]
    assert "texts.csv: is not there: all texts are empty" in "\n".join(map(str, problems))
    assert not [problem for problem in problems if problem.severity == "error"]


# Drawn splits


def test_ome_tif_is_one_ending(make):
    root = make()
    for kind in ("images", "masks"):
        (root / kind / "b.png").rename(root / kind / "b.ome.tif")
        (root / kind / "c.png").rename(root / kind / "c.OME.TIFF")
    assert [s.id for s in load(root)[0]] == [s.id for s in load(make("plain"))[0]]
    assert errors(root) == []


def test_drawn_splits_are_said_to_be_missing_until_they_are_drawn(make):
    root = make(split=False)
    samples, problems = load(root)
    assert {s.split for s in samples} == {"train"}
    assert any("draw some with --val 0.2 --test 0.2" in str(problem) for problem in problems)
    drawn, problems = load(root, val=0.25, test=0.25, seed=1)
    assert sorted(s.split for s in drawn) == ["test", "train", "train", "val"]
    assert not any("has no splits" in str(problem) for problem in problems)


def pool(groups: list[int], labelled: list[bool]) -> list[Sample]:
    mask = Path("m.png")
    return [
        Sample(f"i{number}", "train", Path(f"i{number}.png"), mask if own else None, "", f"p{group}" if group else "")
        for number, (group, own) in enumerate(zip(groups, labelled, strict=True))
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=6, max_size=60),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_no_group_is_in_two_splits_and_the_order_of_files_does_not_matter(cases, seed, random):
    samples = pool(*map(list, zip(*cases, strict=True)))
    options = ReadOptions(val=0.2, test=0.2, seed=seed)
    try:
        drawn = draw_splits(samples, options)
    except UserError:
        return
    assert [s.id for s in drawn] == [s.id for s in samples]
    splits: dict[str, set[str]] = {}
    for sample in drawn:
        splits.setdefault(sample.group or sample.id, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())
    shuffled = random.sample(samples, len(samples))
    assert {(s.id, s.split) for s in draw_splits(shuffled, options)} == {(s.id, s.split) for s in drawn}


def test_shares_are_met_without_groups_and_differ_by_seed():
    samples = pool([0] * 200, [True] * 200)
    drawn = [draw_splits(samples, ReadOptions(val=0.2, test=0.1, seed=seed)) for seed in (0, 0, 1)]
    assert [[s.split for s in d].count("val") for d in drawn] == [40, 40, 40]
    assert [[s.split for s in d].count("test") for d in drawn] == [20, 20, 20]
    assert drawn[0] == drawn[1] != drawn[2]


def test_only_annotated_images_are_drawn_for_validation_and_test():
    samples = pool([0] * 100, [number < 10 for number in range(100)])
    drawn = draw_splits(samples, ReadOptions(val=0.2, test=0.2))
    assert all(s.mask for s in drawn if s.split != "train")
    assert [s.split for s in drawn].count("val") == 2


def test_images_that_are_added_move_few_of_those_there_were():
    before = draw_splits(pool([0] * 100, [True] * 100), ReadOptions(test=0.2))
    after = draw_splits(pool([0] * 110, [True] * 110), ReadOptions(test=0.2))
    assert sum(a.split != b.split for a, b in zip(before, after, strict=False)) < 10


# Classes and instances


def test_maps_of_instances_and_classes_are_read_as_they_are_asked_for(make):
    root = make()
    labels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) // 16
    for name in IDS:
        tifffile.imwrite(root / f"masks/{name}.tif", labels, photometric="minisblack")
        (root / f"masks/{name}.png").unlink()
    assert "--instances or --classes" in errors(root)[0]
    facts = inspect(load(root, instances=True)[0])[0]
    assert {fact.objects for fact in facts} == {63}
    assert facts[0].shares == (1 - 16 / 1024,)
    assert "values 3, 4, 5, 6, ..., and --classes names 1..2 (x, y)" in errors(root, classes=("x", "y"))[0]


def test_palette_indices_are_class_numbers(make):
    root = make()
    labels = np.zeros((32, 32), np.uint8)
    labels[:8], labels[8:10] = 1, 2
    for name in IDS:
        image = Image.fromarray(labels)
        image.putpalette([0, 0, 0, 250, 10, 10, 10, 10, 250])
        image.save(root / f"masks/{name}.png")
    facts = inspect(load(root, classes=("x", "y"))[0])[0]
    assert facts[0].shares == (0.25, 0.0625)


# Everything that can be wrong


def at(root: Path, *cells: str) -> None:
    with (root / "texts.csv").open("a", newline="") as file:
        csv.writer(file).writerow(cells)


def edit(root: Path, before: str, after: str) -> None:
    path = root / "texts.csv"
    text = path.read_text(encoding="utf-8-sig")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def save(path: Path, pixels: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack")
    else:
        Image.fromarray(pixels).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(path: Path, other: Path, pixels: np.ndarray) -> None:
    path.unlink()
    save(other, pixels)


def into_splits(root: Path, splits: tuple[str, ...]) -> None:
    for name, split in zip(IDS, splits, strict=True):
        (root / "images" / split).mkdir(exist_ok=True)
        shutil.move(root / f"images/{name}.png", root / "images" / split / f"{name}.png")


def nothing(root: Path) -> None:
    pass


LABELS = np.arange(1024, dtype=np.uint16).reshape(32, 32)
BAD = {
    "no such directory": (shutil.rmtree, {}, "data: no such directory"),
    "a file": (lambda r: (shutil.rmtree(r), r.write_text("x")), {}, "data: is a file; give the data set's directory"),
    "no images folder": (
        lambda r: (r / "images").rename(r / "pics"),
        {},
        "data: has no folder images; expected images/",
    ),
    "the folder above": (lambda r: r.rename(r.parent / "x"), {}, "has no folder images; did you mean .*x"),
    "the LViT layout": (
        lambda r: (shutil.rmtree(r), (r / "Train_Folder").mkdir(parents=True)),
        {},
        "is in the LViT layout; use --dataset monuseg",
    ),
    "no images": (
        lambda r: ([p.unlink() for p in r.glob("*/*")], (r / "texts.csv").write_text("image,text\n")),
        {},
        "data: holds no images",
    ),
    "two tables": (lambda r: (r / "texts.tsv").write_text("x"), {}, "has texts.csv and texts.tsv; keep one"),
    "an empty table": (
        lambda r: (r / "texts.csv").write_text(""),
        {},
        r"texts.csv: has no columns image and text \(it is",
    ),
    "other columns": (
        lambda r: edit(r, "image,text", "file,caption"),
        {},
        "no columns image and text; found file, caption",
    ),
    "a column twice": (lambda r: edit(r, "text,split", "text,text"), {}, "texts.csv: has two columns text; keep one"),
    "another encoding": (
        lambda r: (r / "texts.csv").write_bytes("image,text\na,Läsion\n".encode("latin-1")),
        {},
        "texts.csv: line 2 is not UTF-8 .byte 14.; save it as",
    ),
    "a quote left open": (
        lambda r: (r / "texts.csv").write_text('image,text\na,"open\n'),
        {},
        "texts.csv: line 2 opens a quote that is never closed; ",
    ),
    "a JSON line that is none": (
        lambda r: ((r / "texts.csv").unlink(), (r / "texts.jsonl").write_text('{"image": "a", "text": "x"}\n{"im\n')),
        {},
        "texts.jsonl: line 2 is not JSON",
    ),
    "a table that is no Excel file": (
        lambda r: (r / "texts.csv").rename(r / "texts.xlsx"),
        {},
        "texts.xlsx: is not a readable Excel table",
    ),
    "a text without an image": (
        lambda r: at(r, "ghost.png", "x", "train"),
        {},
        "line 6 is a text for ghost.png, an image",
    ),
    "a text that names no image": (lambda r: at(r, "", "x", "train"), {}, "texts.csv: line 6 names no image"),
    "an image without a row": (
        lambda r: edit(r, "a.png,Dense nuclei.,train", ""),
        {},
        "images/a.png: has no row in texts.csv",
    ),
    "two texts for one image": (lambda r: at(r, "a.png", "Other.", "train"), {}, "line 6 is another text for a.png"),
    "two splits for one image": (
        lambda r: at(r, "a", "Dense nuclei.", "val"),
        {},
        "line 6 is another split or group for a",
    ),
    "an unknown split": (
        lambda r: edit(r, ",val", ",holdout"),
        {},
        "line 4 has the split holdout; use train, val or test",
    ),
    "a split left empty": (lambda r: edit(r, ",val", ","), {}, "line 4 has no split, and others have"),
    "splits given and drawn": (nothing, {"val": 0.2}, "--val, --test: data has splits of its own"),
    "a share too small": (
        lambda r: edit(r, "split", "ward"),
        {"val": 0.01},
        "--val 0.01: of 4 annotated images in 4 groups",
    ),
    "column and folder disagree": (
        lambda r: into_splits(r, ("val", "train", "val", "test")),
        {},
        "images/val/a.png: lies in val/, and line 2 of texts.csv says train",
    ),
    "images beside the splits": (
        lambda r: into_splits(r, (".", "train", "val", "test")),
        {},
        r"images/a.png: lies beside the folders of splits \(test, train, val\); move it",
    ),
    "a folder that is no split": (
        lambda r: ((r / "images/more").mkdir(), save(r / "images/more/e.png", picture(5))),
        {},
        "images/more: is a folder; only folders called train, val and test",
    ),
    "two images of one name": (lambda r: save(r / "images/a.tif", picture(5)), {}, "has the name of images/a.png"),
    "two masks of one image": (
        lambda r: save(r / "masks/a.tif", mask_of(5)),
        {},
        "masks/a.tif: is a second mask of images/a",
    ),
    "a mask without an image": (
        lambda r: save(r / "masks/e.png", mask_of(5)),
        {},
        "masks/e.png: is a mask without an image",
    ),
    "a truncated image": (lambda r: cut(r / "images/a.png"), {}, "images/a.png: is not a readable .*replace it"),
    "an empty file": (lambda r: (r / "images/a.png").write_bytes(b""), {}, r"images/a.png: is empty \(0 bytes\)"),
    "a text file called PNG": (
        lambda r: (r / "images/a.png").write_text("hi"),
        {},
        "images/a.png: is not a readable PNG",
    ),
    "signed pixels": (
        lambda r: swap(r / "images/a.png", r / "images/a.tif", np.zeros((32, 32), np.int16)),
        {},
        "images/a.tif: has signed pixels",
    ),
    "values beyond any brightness": (
        lambda r: swap(r / "images/a.png", r / "images/a.tif", np.full((32, 32), 4096.5, np.float32)),
        {},
        "images/a.tif: has values from 4096.5",
    ),
    "a mask of another size": (lambda r: save(r / "masks/a.png", mask_of(0, 16)), {}, "is 16x16 pixels, but its image"),
    "several classes unannounced": (
        lambda r: save(r / "masks/a.png", (LABELS % 3).astype(np.uint8)),
        {},
        "masks/a.png: is not a mask of two classes .*--classes",
    ),
    "more classes than names": (
        lambda r: [save(r / f"masks/{n}.png", (LABELS % (4 if n == "a" else 2)).astype(np.uint8)) for n in IDS],
        {"classes": ("x",)},
        r"masks/a.png: has values 2, 3, and --classes names 1..1 \(x\)",
    ),
    "classes in a JPEG": (
        lambda r: swap(r / "masks/a.png", r / "masks/a.jpg", mask_of(0)),
        {"instances": True},
        "masks/a.jpg: is a JPEG, which does not keep numbers",
    ),
    "instances in colour": (
        lambda r: save(r / "masks/a.png", picture(0)),
        {"instances": True},
        "masks/a.png: is in colour and not a map of object numbers",
    ),
    "fractions in a map": (
        lambda r: swap(r / "masks/a.png", r / "masks/a.tif", np.full((32, 32), 0.5, np.float32)),
        {"instances": True},
        "masks/a.tif: has fractions where object numbers",
    ),
    "outlines that define entities": (
        lambda r: (
            (r / "masks/a.png").unlink(),
            (r / "masks/a.xml").write_text('<!DOCTYPE x [<!ENTITY a "aa">]><Annotations>&a;</Annotations>'),
        ),
        {},
        "masks/a.xml: defines XML entities, which outlines never need",
    ),
}


def look_through(root: Path, options: dict) -> None:
    """As ``extract`` does; with a second error ``report`` would raise their number instead."""
    samples, problems = load(root, **options)
    report(problems + inspect(samples)[1])


@pytest.mark.parametrize("case", BAD)
def test_bad_data_sets_get_one_clear_line(make, case):
    damage, options, line = BAD[case]
    root = make()
    damage(root)
    if case == "the folder above":
        root = root.parent
    with pytest.raises(UserError, match=line) as raised:
        look_through(root, options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"val": 1.5}, "--val 1.5: must be above 0 and below 1"),
        ({"val": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"classes": ("a", "a")}, "--classes a,a: names one twice"),
        ({"classes": ("a",), "instances": True}, "--classes and --instances"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        ReadOptions(**options)


# The same rows as the monuseg reader gives


def test_renamed_16_bit_copies_of_monuseg_give_the_same_rows(real_monuseg, tiny_backbone, textdiff_once, tmp_path):
    """Four real images as the ``monuseg`` reader takes them, and renamed as 16-bit TIFF with a CSV: bit for bit."""
    lvit, folder = tmp_path / "lvit", tmp_path / "folder"
    samples = [s for s in read_dataset("monuseg", real_monuseg)[0] if s.mask]
    chosen = [
        next(s for s in samples[start:] if s.split == split)
        for start, split in ((0, "train"), (3, "train"), (0, "val"), (0, "test"))
    ]
    rows = []
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, sample in enumerate(chosen):
        base = lvit / f"{sample.split.title()}_Folder"
        for name, source in (("img", sample.image), ("labelcol", sample.mask)):
            (base / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, base / name / f"{sample.id}{source.suffix}")
        image = np.asarray(Image.open(sample.image).convert("RGB"))
        tifffile.imwrite(folder / f"images/case_{number}.tif", image.astype(np.uint16) * 257, photometric="rgb")
        mask = np.asarray(Image.open(sample.mask).convert("L"))
        tifffile.imwrite(folder / f"masks/case_{number}.tif", (mask > 127).astype(np.uint8), photometric="minisblack")
        rows.append({"image": f"case_{number}", "text": sample.text, "split": sample.split})
    for split in ("train", "val", "test"):
        book = Workbook()
        for row in [("Image", "Description"), *((s.id, s.text) for s in chosen if s.split == split)]:
            book.active.append(row)
        book.save(lvit / f"{split.title()}_Folder/{split.title()}_text.xlsx")
    write_table(folder, "csv", rows)
    options = ("--backbone", str(tiny_backbone), "--text-encoder", "none", "--image-size", "64", "--blocks", "4,8")
    checked = textdiff_once(tmp_path, "data", "check", "--dataset", "folder", "--data", "folder", "--json")
    assert json.loads(checked.stdout)["splits"]["train"]["images"] == 2
    textdiff_once(tmp_path, "extract", "--dataset", "monuseg", "--data", "lvit", "--cache", "a.zarr", *options)
    textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "folder", *options)
    ours, theirs = FeatureCache.open(tmp_path / "cache/folder.zarr"), FeatureCache.open(tmp_path / "a.zarr")
    assert ours.fingerprint == theirs.fingerprint
    assert [row.split for row in ours.rows] == [row.split for row in theirs.rows] == ["train", "train", "val", "test"]
    for row in range(4):
        assert ours.texts[ours.rows[row].text] == theirs.texts[theirs.rows[row].text]
        np.testing.assert_array_equal(ours.image(row), theirs.image(row))
        np.testing.assert_array_equal(ours.mask(row), theirs.mask(row))
        np.testing.assert_array_equal(ours.truth(row), theirs.truth(row))
        for block in ours.blocks:
            np.testing.assert_array_equal(ours.features(row, block), theirs.features(row, block))


@pytest.mark.parametrize("ending", ["npy", "gif", "dcm", "nii.gz"])
def test_a_mask_of_a_kind_that_is_not_read_does_not_leave_its_image_unlabelled(make, textdiff_once, ending):
    root = make()
    mask = root / f"masks/{IDS[0]}.png"
    mask.rename(mask.with_name(f"{IDS[0]}.{ending}"))
    said = textdiff_once(root, "data", "check", "--dataset", "folder", "--data", str(root), status=1).stdout
    assert f"error: masks/{IDS[0]}.{ending}: is a mask of a kind that is not read; save it as PNG or TIFF" in said
