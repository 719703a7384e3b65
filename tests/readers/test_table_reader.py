"""The one reader of tables: what spreadsheets and scripts write is read as it is meant."""

import csv
import unicodedata
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from textdiff.errors import UserError
from textdiff.pipeline.prediction.inputs import from_list
from textdiff.readers.datasets import read_dataset
from textdiff.readers.table_reader import doubt, one_line, read_table
from textdiff.tests.table_cases import CSV_REST, JSON_REST, OTHERS, REST, ROWS, STRICT, book, jsonl, patched, put


def formula(value: str) -> tuple[tuple[str, str], ...]:
    return ((r"<f>[^<]*</f><v ?/?>(</v>)?", f"<f>1</f>{value}"),)


READ = {
    "a space before the quote": ("texts.csv", 'image, text\na, "dense, large"\n' + CSV_REST, "dense, large"),
    "empty cells at the end": ("texts.csv", "image,text\na,dense,,\n" + CSV_REST, "dense"),
    "an index without a title, as pandas writes it": (
        "texts.csv",
        ",image,text\n0,a,dense\n" + "".join(f"{n},{name},y\n" for n, name in enumerate(OTHERS, 1)),
        "dense",
    ),
    "line breaks in a text": (
        "texts.csv",
        'image,text\na,"dense\r\nnuclei\u2028here"\n' + CSV_REST,
        "dense nuclei here",
    ),
    "line ends of an old Mac": ("texts.csv", ("image,text\na,dense\n" + CSV_REST).replace("\n", "\r"), "dense"),
    "semicolons, and commas in the titles' row": (
        "texts.csv",
        "image;text;a, b, c\na;dense, large;\n" + CSV_REST.replace(",", ";"),
        "dense, large",
    ),
    "bars": ("texts.csv", "image|text\na|dense, large\n" + CSV_REST.replace(",", "|"), "dense, large"),
    "commas in a TSV": ("texts.tsv", "image,text\na,dense\n" + CSV_REST, "dense"),
    "the separator as Excel names it": (
        "texts.csv",
        "sep=;\r\nimage;text\na;dense\n" + CSV_REST.replace(",", ";"),
        "dense",
    ),
    "a mark of byte order": ("texts.csv", "\ufeffimage,text\na,dense\n" + CSV_REST, "dense"),
    "accents apart, as macOS has them": (
        "texts.csv",
        unicodedata.normalize("NFD", "image,text\na,Läsion\n" + CSV_REST),
        unicodedata.normalize("NFC", "Läsion"),
    ),
    "UTF-16": ("texts.csv", ("image,text\na,dicht\n" + CSV_REST).encode("utf-16"), "dicht"),
    "blank lines, case and space in titles": ("Texts.CSV", "\n\n Image ,TEXT\n\na,dense\n\n" + CSV_REST, "dense"),
    "quotes inside of a text": ("texts.csv", 'image,text\na,a 5" lesion\n' + CSV_REST, 'a 5" lesion'),
    "Unicode line ends in JSON": ("texts.jsonl", jsonl({"image": "a", "text": "x\u2028y\u0085z"}, *JSON_REST), "x y z"),
    "numbers and null in JSON": ("texts.jsonl", jsonl({"Image ": "a", "TEXT": 3, "split": None}, *JSON_REST), "3"),
    "carriage returns as Excel stores them": (
        "texts.xlsx",
        book(["image", "text"], ["a", "x_x000D_\ny"], *REST),
        "x y",
    ),
    "escapes of escapes": ("texts.xlsx", book(["image", "text"], ["a", "_x005F_x0041_ _x0042_"], *REST), "_x0041_ B"),
    "Strict Open XML": ("texts.xlsx", patched(book(["image", "text"], ["a", "dense"], *REST), *STRICT), "dense"),
    "a calculated formula": (
        "texts.xlsx",
        patched(book(["image", "text"], ["a", "=1"], *REST), *formula("<v>dense</v>"), ('<c r="B2"', r'\g<0> t="str"')),
        "dense",
    ),
    "a hidden sheet beside it": (
        "texts.xlsx",
        book(
            sheets={"old": [["image", "text"], ["a", "old"]], "new": [["image", "text"], ["a", "dense"], *REST]},
            hook=lambda made: setattr(made["old"], "sheet_state", "hidden"),
        ),
        "dense",
    ),
    "cells merged in one row": (
        "texts.xlsx",
        book(["image", "text", ""], ["a", "dense"], *REST, hook=lambda made: made.active.merge_cells("B2:C2")),
        "dense",
    ),
    "phonetic readings": (
        "texts.xlsx",
        patched(
            book(["image", "text"], ["a", "dense"], *REST), ("<t>dense</t>", "<t>dense</t><rPh><t>other</t></rPh>")
        ),
        "dense",
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_as_it_is_meant(tmp_path, case):
    name, content, text = READ[case]
    samples, problems = read_dataset("folder", put(tmp_path, name, content))
    assert [(sample.id, sample.text) for sample in samples] == [("a", text), *((name, "y") for name in OTHERS)]
    assert not [problem for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize("declared", ["A1", "A1:B3", "A1:B5", "A1:ZZ99999"])
def test_what_a_workbook_says_of_its_extent_is_not_believed(tmp_path, declared):
    data = patched(book(*ROWS), ('<dimension ref="[^"]*"', f'<dimension ref="{declared}"'))
    samples, _ = read_dataset("folder", put(tmp_path, "texts.xlsx", data))
    assert [(sample.id, sample.text, sample.split) for sample in samples] == [tuple(row) for row in ROWS[1:]]


@pytest.mark.parametrize(
    ("entry", "image"),
    [
        (12.0, "12"),
        (1000000000000001, "1000000000000001"),
        (1, "001"),
        ("mask_a.tif", "a"),
        ("deep/er\\a", "a"),
        ("two  spaces.png", "two  spaces"),
        (unicodedata.normalize("NFC", "Müller"), unicodedata.normalize("NFD", "Müller")),
        (unicodedata.normalize("NFD", "Müller"), unicodedata.normalize("NFC", "Müller")),
        (datetime(2024, 1, 5), "2024-01-05"),
        ("none", "none"),
    ],
)
def test_an_image_is_found_by_what_a_spreadsheet_makes_of_its_name(tmp_path, entry, image):
    root = put(tmp_path, "texts.xlsx", book(["image", "text"], [entry, "x"], *REST), (image, *OTHERS))
    samples, problems = read_dataset("folder", root)
    assert "x" in [sample.text for sample in samples]
    assert not [problem for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", 'image,text\na.png,"open\nb.png,y\n', "line 2 opens a quote that is never closed"),
        ("list.csv", "image,text\na.png,dense, large\n", "line 2 has 3 cells and the header 2"),
        ("list.csv", "image,text,notes\na.png,dense, large,\n", "line 2 has a space after a separator behind the text"),
        ("list.csv", 'text,image\n"dense,a.png\nfew",b.png\n', "line 2 opens a quote that goes on in line 3"),
        ("list.tsv", "image\ttext\na.png\tx\n\ty\n", "line 3 names no image"),
        ("list.csv", "image,text\na.png,x\ngone.png,y\n", "line 3 names .*gone.png: no such image file"),
        ("list.csv", "image,texts\na.png,x\n", "has a column texts and no text"),
        ("list.txt", "a.png\n\n# b\ngone.png\n", "line 4 names .*gone.png: no such image file"),
        ("list.jsonl", '{"text": "x"}\n', 'line 1 is not an object with "image"'),
    ],
)
def test_a_list_is_read_by_the_same_rules(tmp_path, name, content, words):
    put(tmp_path, f"images/{name}", content)
    with pytest.raises(UserError, match=f"{name}: {words}"):
        from_list(tmp_path / "images" / name, "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", 'image,text\nMü.png,"a few\ndiscs"\n'),
        ("list.csv", "image;text\nMü.png;a few\u2028discs\n"),
        ("list.tsv", "image\ttext\nMü.png\ta few discs\n".encode("utf-16")),
        ("list.xlsx", book(["Image", "Text"], ["Mü.png", "a few_x000D_\ndiscs"])),
        ("list.jsonl", jsonl({"image": "Mü.png", "text": "a few discs"})),
    ],
)
def test_a_list_may_be_any_table(tmp_path, name, content):
    put(tmp_path, f"images/{name}", content, images=(unicodedata.normalize("NFD", "Mü"),))
    assert [each.text for each in from_list(tmp_path / "images" / name, "")] == ["a few discs"]


def is_text(value: str) -> bool:
    return not doubt(one_line(value)) and "_x" not in value


CELL = st.text(
    st.one_of(st.sampled_from(",;|\"\t\n\r' =\u2028\xa0"), st.characters(exclude_categories=["C"])), max_size=12
)
TEXTS = st.lists(CELL.filter(is_text), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(",;\t|"), st.booleans())
def test_every_table_reads_back_equal_in_all_formats(tmp_path_factory, texts, separator, quoted):
    root = tmp_path_factory.mktemp("table")
    rows = [(f"i{number}", text, "train") for number, text in enumerate(texts)]
    records = [dict(zip(("image", "text", "split"), row, strict=True)) for row in rows]
    with (root / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
        writer.writerows([("image", "text", "split"), *rows])
    made = Workbook()
    for number, row in enumerate([("image", "text", "split"), *rows], 1):
        for column, value in enumerate(row, 1):
            cell = made.active.cell(number, column, value)
            cell.data_type = "s"  # else a text that begins with = is a formula
    made.save(root / "t.xlsx")
    (root / "t.jsonl").write_text(jsonl(*records), encoding="utf-8")
    for name in ("t.csv", "t.xlsx", "t.jsonl"):
        read = read_table(root / name, ("image", "text"), ("split", "group"))
        assert [row.fault for row in read] == [None] * len(rows)
        assert [tuple(row.cells.values()) for row in read] == [(i, one_line(text), s, "") for i, text, s in rows]
