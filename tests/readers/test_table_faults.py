"""Tables that are none, damaged or too large are refused by their line."""

import contextlib
import io
import json
import random
import re
import zipfile
from datetime import datetime

import pytest
from openpyxl import Workbook

from textdiff.errors import UserError
from textdiff.readers.datasets import read_dataset
from textdiff.readers.table_reader import read_table
from textdiff.tests.table_cases import CSV_REST, JSON_REST, ROWS, book, jsonl, patched, put


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
