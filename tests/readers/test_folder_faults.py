"""Everything that can be wrong with a lab's folder gets one clear line."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import inspect, report
from textdiff.tests.file_tools import halve
from textdiff.tests.reader_cases import IDS, mask_of, picture, read_lab


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
    "masks among the images": (
        lambda r: ([p.rename(r / f"images/{p.stem}_mask.png") for p in r.glob("masks/*")], (r / "texts.csv").unlink()),
        {},
        r"images/a_mask.png: seems to be a mask, and lies among the images \(4 of 8 do\); move masks to masks/",
    ),
    "a link to nothing": (
        lambda r: (r / "images/e.png").symlink_to(r / "nowhere.png"),
        {},
        "images/e.png: is a link to a file that is not there; fetch that file",
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
        "masks/e.png: is a mask without an image; name it as its image, or remove it",
    ),
    "a file of many images among the masks": (
        lambda r: (r / "masks/all.json").write_text("{}"),
        {},
        "masks/all.json: is a mask without an image; .* give a file of many images with --annotations",
    ),
    "a truncated image": (lambda r: halve(r / "images/a.png"), {}, "images/a.png: is not a readable .*replace it"),
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
    samples, problems = read_lab(root, **options)
    report(problems + inspect(samples)[1])


@pytest.mark.parametrize("case", BAD)
def test_bad_data_sets_get_one_clear_line(make_lab, case):
    damage, options, line = BAD[case]
    root = make_lab()
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


@pytest.mark.parametrize(
    ("ending", "fix"),
    [*((ending, "save it as PNG or TIFF") for ending in ("npy", "gif", "dcm", "nii.gz")), ("geojson.gz", "unpack it")],
)
def test_a_mask_of_a_kind_that_is_not_read_does_not_leave_its_image_unlabelled(make_lab, textdiff_once, ending, fix):
    root = make_lab()
    mask = root / f"masks/{IDS[0]}.png"
    mask.rename(mask.with_name(f"{IDS[0]}.{ending}"))
    said = textdiff_once(root, "data", "check", "--dataset", "folder", "--data", str(root), status=1).stdout
    assert f"error: masks/{IDS[0]}.{ending}: is a mask of a kind that is not read; {fix}" in said


def test_masks_among_the_images_are_left_out_where_what_is_bad_is(make_lab):
    root = make_lab()
    damage, options, _ = BAD["masks among the images"]
    damage(root)
    samples, _ = read_lab(root, **options)
    assert {sample.id for sample in samples} == set(IDS)
