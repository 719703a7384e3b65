"""Tables of texts: CSV, TSV, Excel or JSON lines with the columns image and text, and optionally split and group."""

__all__ = ["TextRow", "cell", "find_table", "matched_texts", "read_table", "sheets"]

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textdiff.errors import UserError
from textdiff.pipeline.sample import Problem
from textdiff.readers.names import error, key_of, owner
from textdiff.readers.splits import parse_split

_ENDINGS = ("csv", "tsv", "xlsx", "jsonl")
_HEADER = "name the columns image and text (and, if you like, split and group) in its first row"
# A report of a few pages passes csv's own limit for one cell.
csv.field_size_limit(1 << 24)


class TextRow(NamedTuple):
    """One row; empty strings where there is nothing."""

    number: int
    """As an editor or Excel counts it."""
    image: str
    text: str
    split: str
    group: str


def find_table(root: Path) -> Path | None:
    """``texts.csv``, ``.tsv``, ``.xlsx`` or ``.jsonl`` in a folder; None if there is none.

    Raises:
        UserError: there are several.
    """
    found = [path for ending in _ENDINGS if (path := root / f"texts.{ending}").is_file()]
    if len(found) > 1:
        raise UserError(f"{root}: has {' and '.join(path.name for path in found)}; keep one table of texts")
    return found[0] if found else None


def read_table(table: Path) -> list[TextRow]:
    """The rows of a table that are not blank, runs of white space joined.

    CSV may be separated by commas, semicolons or tabs, in UTF-8 or, as Excel saves "Unicode text", UTF-16.

    Raises:
        UserError: unreadable, or without the columns image and text.
    """
    if table.suffix == ".jsonl":
        return list(_json_rows(table))
    grids = sheets(table) if table.suffix == ".xlsx" else [_csv_rows(table)]
    titles: list[str] = []
    for grid in grids:
        rows = ((number, [cell(value) for value in row]) for number, row in enumerate(grid, 1))
        filled = [(number, row) for number, row in rows if any(row)]
        titles = [title.lower() for title in filled[0][1]] if filled else []
        if "image" in titles and "text" in titles:
            for title in ("image", "text", "split", "group"):
                if titles.count(title) > 1:
                    raise UserError(f"{table}: has two columns {title}; keep one")
            return [row for number, values in filled[1:] if (row := _row(number, titles, values)).image or row.text]
    found = f"; found {', '.join(title for title in titles if title)[:80]}" if any(titles) else " (it is empty)"
    raise UserError(f"{table}: has no columns image and text{found}; {_HEADER}")


def matched_texts(
    where: str, rows: list[TextRow], images: Collection[str], problems: list[Problem]
) -> dict[str, TextRow | None]:
    """The row of each image that has one; None where rows are wrong or contradict each other."""
    texts: dict[str, TextRow | None] = {}
    column = any(row.split for row in rows)
    for row in rows:
        key = owner(key_of(row.image), images)
        wrong: tuple[str, str] | None = None
        if not row.image:
            problems.append(error(where, f"row {row.number} has a text and no image", "name its image"))
            continue
        if key not in images:
            what = f"row {row.number} is a text for {row.image}, an image that is not there"
            problems.append(error(where, what, "add the image or remove the row"))
            continue
        before = texts.get(key)
        if key in texts and before is None:
            continue
        if before is not None and before[2:] != row[2:]:
            other = "text" if before.text != row.text else "split or group"
            wrong = f"row {row.number} is another {other} for {row.image}", "keep one row for each image"
        elif column and not row.split:
            wrong = f"row {row.number} has no split, and others have", "fill the column split, or remove it"
        elif row.split and parse_split(row.split) is None:
            wrong = f"row {row.number} has the split {row.split}", "use train, val or test"
        if wrong:
            problems.append(error(where, *wrong))
        texts[key] = None if wrong else row
    return texts


def cell(value: Any) -> str:
    """The content of a cell as one line of text."""
    return "" if value is None else " ".join(str(value).split())


def sheets(table: Path) -> list[list[tuple[Any, ...]]]:
    """The cells of every sheet of an Excel file.

    Raises:
        UserError: it is none.
    """
    from openpyxl import load_workbook

    try:
        book = load_workbook(table, read_only=True, data_only=True)
        try:
            return [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
        finally:
            book.close()
    # A damaged archive surfaces as zipfile, zlib, XML, key or type errors.
    except Exception as reason:
        raise UserError(f"{table}: is not a readable Excel table; save it again as .xlsx") from reason


def _row(number: int, titles: Sequence[str], values: Iterable[str]) -> TextRow:
    named = dict(zip(titles, values, strict=False))
    # Excel stores a name such as 12 as a number.
    image, group = (re.sub(r"^(\d+)\.0$", r"\1", named.get(title, "")) for title in ("image", "group"))
    return TextRow(number, image, named.get("text", ""), named.get("split", "").lower(), group)


def _csv_rows(table: Path) -> list[list[str]]:
    text = _decode(table)
    first = text.split("\n", 1)[0]
    separator = "\t" if table.suffix == ".tsv" else max(",;\t", key=first.count)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as reason:
        raise UserError(f"{table}: is not a readable table ({reason}); save it again, quoting texts") from reason


def _json_rows(table: Path) -> Iterator[TextRow]:
    titles = ("image", "text", "split", "group")
    for number, line in enumerate(_decode(table).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as reason:
            raise UserError(f"{table}: line {number} is not JSON ({reason}); write one object per line") from reason
        if not isinstance(record, dict) or "image" not in record or "text" not in record:
            raise UserError(f'{table}: line {number} is not an object with "image" and "text"; write one per line')
        yield _row(number, titles, [cell(record.get(title)) for title in titles])


def _decode(table: Path) -> str:
    try:
        data = table.read_bytes()
    except OSError as reason:
        raise UserError(f"{table}: cannot be read ({reason.strerror}); check its permissions") from reason
    try:
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as reason:
        raise UserError(f"{table}: is not UTF-8 (byte {reason.start}); save it as 'CSV UTF-8', or as .xlsx") from reason
