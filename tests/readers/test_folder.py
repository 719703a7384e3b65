"""A lab's own folder: images, masks and a table of texts, whatever their formats and splits."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from openpyxl import Workbook
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.tests.reader_cases import IDS, SPLITS, TEXTS, errors_of_lab, read_lab, write_table


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "jsonl"])
def test_texts_splits_and_groups_come_from_any_table(make_lab, ending):
    samples, problems = read_lab(make_lab(ending=ending, group=["p1", "p1", "p2", "p3"]))
    assert [(s.id, s.split, s.text, s.group) for s in samples] == [
        ("a", "train", TEXTS[0], "p1"),
        ("b", "train", TEXTS[1], "p1"),
        ("c", "val", TEXTS[2], "p2"),
        ("d", "test", TEXTS[3], "p3"),
    ]
    assert list(map(str, problems)) == [f"images/d.png: has no text in texts.{ending}: its text is empty"]


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), (",", "utf-8-sig")])
def test_csv_as_excel_saves_it_in_any_country(make_lab, separator, encoding):
    root = make_lab()
    lines = ["Image;Text;Split", "a.png;x;Train", "b;y;training", "c.tif;z;VAL", "d.png;w;test"]
    (root / "texts.csv").write_text("\r\n".join(lines).replace(";", separator), encoding=encoding)
    assert [(s.id, s.split, s.text) for s in read_lab(root)[0]] == [
        ("a", "train", "x"),
        ("b", "train", "y"),
        ("c", "val", "z"),
        ("d", "test", "w"),
    ]


def test_subfolders_of_images_and_masks_are_splits(make_lab):
    root = make_lab(split=False)
    for name, split in zip(IDS, SPLITS, strict=True):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(exist_ok=True)
            shutil.move(root / kind / f"{name}.png", root / kind / split)
    samples, problems = read_lab(root)
    assert [(s.id, s.split) for s in samples] == list(zip(IDS, SPLITS, strict=True))
    assert all(s.mask == root / "masks" / s.split / f"{s.id}.png" for s in samples)
    assert not [problem for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize("one_table", [True, False])
def test_folders_called_after_splits_may_hold_images_and_masks(make_lab, one_table):
    root = make_lab(split=False)
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
    samples, problems = read_lab(root)
    assert [(s.id, s.split) for s in samples] == list(zip(IDS, SPLITS, strict=True))
    assert not [problem for problem in problems if problem.severity == "error"]


def test_masks_may_be_missing_and_called_after_their_image(make_lab):
    root = make_lab()
    (root / "masks/a.png").rename(root / "masks/mask_a.png")
    (root / "masks/b.png").unlink()
    samples, problems = read_lab(root)
    assert [s.mask.name if s.mask else None for s in samples] == ["mask_a.png", None, "c.png", "d.png"]
    assert "images/b.png: has no mask: it is unlabelled" in map(str, problems)


def test_the_table_of_texts_may_be_missing_and_is_missed_aloud(make_lab):
    root = make_lab()
    (root / "texts.csv").unlink()
    samples, problems = read_lab(root)
    assert [(s.id, s.text, s.split, s.mask.name) for s in samples] == [(i, "", "train", f"{i}.png") for i in IDS]
    assert "texts.csv: is not there: all texts are empty" in "\n".join(map(str, problems))
    assert not [problem for problem in problems if problem.severity == "error"]


def test_ome_tif_is_one_ending(make_lab):
    root = make_lab()
    for kind in ("images", "masks"):
        (root / kind / "b.png").rename(root / kind / "b.ome.tif")
        (root / kind / "c.png").rename(root / kind / "c.OME.TIFF")
    assert [s.id for s in read_lab(root)[0]] == [s.id for s in read_lab(make_lab("plain"))[0]]
    assert errors_of_lab(root) == []


def test_maps_of_instances_and_classes_are_read_as_they_are_asked_for(make_lab):
    root = make_lab()
    labels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) // 16
    for name in IDS:
        tifffile.imwrite(root / f"masks/{name}.tif", labels, photometric="minisblack")
        (root / f"masks/{name}.png").unlink()
    assert "--instances or --classes" in errors_of_lab(root)[0]
    facts = inspect(read_lab(root, instances=True)[0])[0]
    assert {fact.mask.objects for fact in facts} == {63}
    assert facts[0].mask.shares == (1 - 16 / 1024,)
    assert "values 3, 4, 5, 6, ..., and --classes names 1..2 (x, y)" in errors_of_lab(root, classes=("x", "y"))[0]


def test_palette_indices_are_class_numbers(make_lab):
    root = make_lab()
    labels = np.zeros((32, 32), np.uint8)
    labels[:8], labels[8:10] = 1, 2
    for name in IDS:
        image = Image.fromarray(labels)
        image.putpalette([0, 0, 0, 250, 10, 10, 10, 10, 250])
        image.save(root / f"masks/{name}.png")
    facts = inspect(read_lab(root, classes=("x", "y"))[0])[0]
    assert facts[0].mask.shares == (0.25, 0.0625)


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
