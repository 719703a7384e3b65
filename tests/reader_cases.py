"""Data sets that the readers' tests make: a lab's folder, maps of objects, tables; and what was said of them."""

import csv
import json
from pathlib import Path

import numpy as np
import tifffile
from openpyxl import Workbook, load_workbook
from PIL import Image

from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import Problem, inspect, read_dataset
from textdiff.readers.sample import Sample

IDS = ("a", "b", "c", "d")
SPLITS = ("train", "train", "val", "test")
TEXTS = ("Dense nuclei.", 'A "quoted", long one; with signs', "Läsionen: 3 µm", "")
EXTRACT = ("extract", "--text-encoder", "none", "--image-size", "64", "--blocks", "4", "--steps", "50")


def picture(number: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng([3, number]).integers(0, 256, (size, size, 3), dtype=np.uint8)


def mask_of(number: int, size: int = 32) -> np.ndarray:
    return (np.random.default_rng([4, number]).random((size, size)) < 0.3).astype(np.uint8) * 255


def write_book(path: Path, rows: list[list[object]]) -> None:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def add_row(path: Path, *cells: object) -> None:
    """Below the last row of an Excel table."""
    book = load_workbook(path)
    book.active.append(cells)
    book.save(path)


def write_table(root: Path, ending: str, rows: list[dict[str, str]]) -> None:
    """``texts.ENDING``, with the keys of the first row as titles."""
    path, titles = root / f"texts.{ending}", list(rows[0])
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows), encoding="utf-8")
    elif ending == "xlsx":
        write_book(path, [titles, *(list(row.values()) for row in rows)])
    else:
        with path.open("w", newline="", encoding="utf-8-sig" if ending == "csv" else "utf-8") as file:
            writer = csv.DictWriter(file, titles, delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def make_lab(root: Path, ending: str = "csv", split: bool = True, group: list[str] | None = None) -> Path:
    """Four images of 32 x 32 with masks and texts, in two folders and a table."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows = []
    for number, name in enumerate(IDS):
        Image.fromarray(picture(number)).save(root / f"images/{name}.png")
        Image.fromarray(mask_of(number)).save(root / f"masks/{name}.png")
        row = {"image": f"{name}.png", "text": TEXTS[number]}
        row |= {"split": SPLITS[number]} if split else {}
        rows.append(row | ({"group": group[number]} if group else {}))
    write_table(root, ending, rows)
    return root


def labels_of(number: int, size: int = 64) -> np.ndarray:
    """Discs numbered from 1, some touching."""
    draw = np.random.default_rng([9, number])
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint32)
    for label in range(1, 7):
        cy, cx = draw.uniform(8, size - 8, 2)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 40] = label
    return labels


def make_folder(root: Path, masks: list[np.ndarray]) -> Path:
    """Images that show their masks, which are maps of numbers: ``0.png`` with ``0.tif``, and so on."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows = ["image,text,split"]
    for number, (mask, split) in enumerate(zip(masks, SPLITS, strict=True)):
        pixels = np.random.default_rng([1, number]).integers(0, 40, (*mask.shape, 3), dtype=np.uint8)
        pixels[..., 0] += (80 * (mask > 0)).astype(np.uint8)
        pixels[..., 1] += (80 * (mask % 2)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        tifffile.imwrite(root / f"masks/{number}.tif", mask, photometric="minisblack")
        rows.append(f"{number},text {number},{split}")
    (root / "texts.csv").write_text("\n".join(rows))
    return root


def read_lab(root: Path, **options) -> tuple[list[Sample], list[Problem]]:
    return read_dataset("folder", root, ReadOptions(**options))


def errors(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems if problem.severity == "error"]


def notes(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems if problem.severity == "note"]


def errors_of_lab(root: Path, **options) -> list[str]:
    """Those of listing it and of looking into its files."""
    samples, problems = read_lab(root, **options)
    return errors([*problems, *inspect(samples)[1]])
