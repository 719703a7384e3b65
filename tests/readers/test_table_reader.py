"""The one reader of tables: what spreadsheets and scripts write, read as it is meant or refused by its line."""

import contextlib
import csv
import io
import json
import random
import re
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from PIL import Image

from textdiff.errors import UserError
from textdiff.pipeline.prediction.inputs import from_list
from textdiff.readers.datasets import read_dataset
from textdiff.readers.table_reader import doubt, one_line, read_table

OTHERS = ("b", "c", "d")


def put(root: Path, name: str, content: str | bytes, images: tuple[str, ...] = ("a", *OTHERS)) -> Path:
    """A folder of images that has this table."""
    (root / "images").mkdir()
    for image in images:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / f"images/{image}.png")
    (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def book(
    *rows: list, sheets: dict[str, list[list]] | None = None, hook: Callable[[Workbook], None] | None = None
) -> bytes:
    made, file = Workbook(), io.BytesIO()
    for number, (title, cells) in enumerate((sheets or {"texts": list(rows)}).items()):
        sheet = made.active if number == 0 else made.create_sheet()
        sheet.title = title
        for row in cells:
            sheet.append(row)
    if hook:
        hook(made)
    made.save(file)
    return file.getvalue()


def patched(data: bytes, *changes: tuple[str, str]) -> bytes:
    """A workbook with the XML of its parts changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name)
            for before, after in changes:
                text = re.sub(before.encode(), after.encode(), text)
            new.writestr(name, text)
    return file.getvalue()


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


ROWS = [["image", "text", "split"], ["a", "x", "train"], ["b", "y", "train"], ["c", "z", "val"], ["d", "w", "test"]]
REST = [[name, "y"] for name in OTHERS]
CSV_REST = "".join(f"{name},y\n" for name in OTHERS)
JSON_REST = [{"image": name, "text": "y"} for name in OTHERS]
STRICT = (
    ("http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://purl.oclc.org/ooxml/spreadsheetml/main"),
    (
        "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
        "http://purl.oclc.org/ooxml/officeDocument/relationships",
    ),
)


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


def line(text: str, after: str = "") -> str:
    return f"image,text,split,group\na,dense,train,p1\n{text}\n{after}c,z,train,p2\nd,w,train,p2\n"


def merged(made: Workbook) -> None:
    made.active.merge_cells("B2:B3")


def deep(count: int) -> str:
    return '{"image": "a", "text": ' + "[" * count + "]" * count + "}\n"


REFUSED = {
    "an unquoted comma": ("texts.csv", line("b,dense, large,train,p1"), "line 3 has 5 cells and the header 4; "),
    "an unquoted comma under an empty title": (
        "texts.csv",
        "image,text,\na,dense, large\n" + CSV_REST,
        "line 2 has 3 cells and the header 2",
    ),
    "a row cut short": ("texts.csv", line("b"), "line 3 ends before the column text"),
    "a quote left open": ("texts.csv", line('b,"dense,train,p1'), "line 3 opens a quote that is never closed"),
    "two quotes left open": (
        "texts.csv",
        line('b.png,"dense,train,p1', 'c.png,many,train,p1\nd.png,few",train,p1\n'),
        "line 3 opens a quote that goes on in line 4, which looks like a row of c.png",
    ),
    "two quotes left open behind an image's name": (
        "texts.csv",
        'text,image\n"dense,b.png\nmany,c.png\nfew",d.png\n',
        "line 2 opens a quote that goes on in line 3, which looks like a row of c.png",
    ),
    "an unquoted comma before an empty column": (
        "texts.csv",
        "image,text,notes\na,dense, large,\n" + CSV_REST,
        "line 2 has a space after a separator behind the text",
    ),
    "an unquoted comma that shifts the split": (
        "texts.csv",
        line("b,dense, train,p1"),
        "line 3 has a space after a separator behind the text",
    ),
    "text after a quote": ("texts.csv", line('b,"dense" nuclei,train,p1'), "line 3 goes on after a closing quote"),
    "Latin-1": ("texts.csv", line("b,Läsion,train,p1").encode("latin-1"), "line 3 is not UTF-8"),
    "UTF-16 without its mark": ("texts.csv", line("b,x,train,p1").encode("utf-16-le"), "line 1 holds a NUL character"),
    "a NUL": ("texts.csv", line("b,den\0se,train,p1"), "line 3 holds a NUL character"),
    "an Excel file called CSV": ("texts.csv", book(*ROWS), "is an Excel file or another archive, not text"),
    "another format": ("texts.ods", b"PK", "is in a format that is not read; save it as texts.csv"),
    "a control character": ("texts.csv", line("b,den\x1b[31mse,train,p1"), r"line 3 holds the character U\+001B"),
    "what a wrong encoding left": ("texts.csv", line("b,L\ufffdsion,train,p1"), r"line 3 holds the character U\+FFFD"),
    "nan": (
        "texts.csv",
        line("b,nan,train,p1"),
        "line 3 holds nan, which stands for a missing value, in the column text",
    ),
    "NULL": ("texts.csv", line("b,NULL,train,p1"), "line 3 holds NULL, .* in the column text"),
    "NaN for a group": ("texts.csv", line("b,x,train,NaN"), "line 3 holds NaN, .* in the column group"),
    "None for a split": ("texts.csv", line("b,x,None,p1"), "line 3 holds None, .* in the column split"),
    "a slip in a split": ("texts.csv", line("b,x,tset,p1"), "line 3 has the split tset; did you mean test?"),
    "no split that there is": (
        "texts.csv",
        line("b,x,fold 2,p1"),
        "line 3 has the split fold 2; use train, val or test",
    ),
    "a slip in a title": (
        "texts.csv",
        line("b,x,train,p1").replace("split", "spilt"),
        "has a column spilt and no split; call it split",
    ),
    "a title twice": ("texts.csv", line("b,x,train,p1").replace("group", "SPLIT "), "has two columns split; keep one"),
    "an error of Excel in CSV": (
        "texts.csv",
        line("b,#BEZUG!,train,p1"),
        "line 3 holds #BEZUG!, an error of a spreadsheet",
    ),
    "another text for an image": ("texts.csv", line("a.tif,many,train,p1"), "line 3 is another text for a.tif"),
    "an error of Excel": (
        "texts.xlsx",
        book(*ROWS[:2], ["b", "#N/A", "train"], *ROWS[3:]),
        "row 3 of sheet texts holds #N/A",
    ),
    "a formula that was never calculated": (
        "texts.xlsx",
        book(*ROWS[:2], ["b", "=A2", "train"], *ROWS[3:]),
        "row 3 of sheet texts holds a formula that was never calculated, in the column text",
    ),
    "a cell beyond the titles": (
        "texts.xlsx",
        book(*ROWS[:2], ["b", "dense", "train", "large"], *ROWS[3:]),
        "row 3 of sheet texts has 4 cells and the header 3",
    ),
    "merged rows": ("texts.xlsx", book(*ROWS, hook=merged), "sheet texts has merged cells in B2:B3; unmerge them"),
    "two sheets": (
        "texts.xlsx",
        book(sheets={"one": ROWS, "two": ROWS}),
        "the sheets one and two all have the columns image",
    ),
    "only a hidden sheet": (
        "texts.xlsx",
        book(sheets={"one": ROWS, "two": []}, hook=lambda made: setattr(made["one"], "sheet_state", "hidden")),
        "only the hidden sheet one has the columns image and text; unhide it",
    ),
    "an old workbook": (
        "texts.xlsx",
        b"\xd0\xcf\x11\xe0" + bytes(600),
        "is not a readable Excel table but an old .xls",
    ),
    "a row of 10^9": (
        "texts.xlsx",
        patched(book(*ROWS), ('<row r="3"', '<row r="1000000000"')),
        "claims the row 1000000000",
    ),
    "a column of 10^9": ("texts.xlsx", patched(book(*ROWS), ('r="B3"', 'r="CFDGSXM3"')), "claims the column 10"),
    "entities": (
        "texts.xlsx",
        patched(book(*ROWS), ("<worksheet", '<!DOCTYPE x [<!ENTITY a "aa">]><worksheet')),
        "is not a readable Excel table",
    ),
    "half a character": ("texts.jsonl", '{"image": "a", "text": "\\ud800"}\n', r"line 1 holds the character U\+D800"),
    "100,000 brackets": ("texts.jsonl", deep(100_000), "line 1 is nested too deeply"),
    "a list for a text": ("texts.jsonl", deep(1), "line 1 holds a list or an object, in the column text"),
    "a truth for a text": ("texts.jsonl", jsonl({"image": "a", "text": True}), "line 1 holds true or false"),
    "NaN in JSON": (
        "texts.jsonl",
        '{"image": "a", "text": NaN}\n',
        "line 1 holds nan, which stands for a missing value",
    ),
    "an infinite number": (
        "texts.jsonl",
        '{"image": "a", "text": 1e999}\n',
        "line 1 holds a number that is not finite",
    ),
    "a key twice": ("texts.jsonl", '{"image": "a", "text": "x", "text": "y"}\n', "line 1: has two columns text"),
    "one array": ("texts.jsonl", json.dumps(JSON_REST), 'line 1 is not an object with "image" and "text"'),
    "a line without a text": ("texts.jsonl", jsonl(*JSON_REST, {"image": "a"}), "line 4 is not an object with"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_of_texts_is_refused_by_its_line(tmp_path, case):
    name, content, words = REFUSED[case]
    root = put(tmp_path, name, content)
    try:
        said = [str(problem) for problem in read_dataset("folder", root)[1] if problem.severity == "error"]
    except UserError as error:
        said = [str(error)]
    found = [text for text in said if re.search(rf"{name}: {words}|{name}: line .*{words}", text)]
    assert len(found) == 1, said
    assert "; " in found[0]
    assert "\n" not in found[0]


def test_a_workbook_that_unpacks_to_more_than_a_table_is_refused(tmp_path):
    data = patched(book(*ROWS), ("</worksheet>", "<!--" + "x" * (65 << 20) + "--></worksheet>"))
    assert len(data) < 1 << 20
    with pytest.raises(UserError, match=r"texts.xlsx: is too large for a table"):
        read_dataset("folder", put(tmp_path, "texts.xlsx", data))


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


def test_a_workbook_of_millions_of_cells_is_refused(tmp_path):
    data = patched(book(*ROWS), ("</sheetData>", "<row>" + "<c/>" * 2_000_000 + "</row></sheetData>"))
    with pytest.raises(UserError, match=r"texts.xlsx: is too large for a table"):
        read_dataset("folder", put(tmp_path, "texts.xlsx", data))


def mutated(data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice((1, 2, 5))):
        place = draw.randrange(len(made) + 1)
        odd = draw.choice((b"999999999999", b"-1", b'"', b"<", b"\0", b"\xff", b"1e999", b"{", b"&", b"_xD800_", b"\r"))
        made[place : place + draw.choice((0, 1, 9))] = draw.choice((odd, made[: draw.randrange(40)], b""))
    return bytes(made)


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv", "t.jsonl"])
def test_damaged_tables_are_read_or_refused_in_one_line(tmp_path, name):
    draw = random.Random(name)
    parts = {}
    with zipfile.ZipFile(io.BytesIO(book(*ROWS, [datetime(2024, 1, 5), 3, "test"]))) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    text = ('image,text\na,"x, ""y"""\nb,ü\n' if name == "t.csv" else jsonl(*JSON_REST)).encode()
    for _ in range(150):
        if name == "t.xlsx":
            chosen = draw.choice(sorted(parts))
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                for part, data in parts.items():
                    archive.writestr(part, mutated(data, draw) if part == chosen else data)
        else:
            (tmp_path / name).write_bytes(mutated(text, draw))
        with contextlib.suppress(UserError):
            read_table(tmp_path / name, ("image", "text"), ("split",))
    # The archive itself, whose directory may be damaged too.
    whole = (tmp_path / name).read_bytes()
    for _ in range(100):
        (tmp_path / name).write_bytes(mutated(whole, draw))
        with contextlib.suppress(UserError):
            read_table(tmp_path / name, ("image", "text"), ("split",))


# Any table


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
