"""Tables with named columns: CSV, TSV, Excel or JSON lines. Every table that a user writes is read here.

A row that does not fit its header, or holds something that is no text, has a fault: nothing is cut off or guessed.
"""

__all__ = ["ENDINGS", "Row", "decode_text", "doubt", "one_line", "read_table"]

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from textdiff import console
from textdiff.errors import UserError
from textdiff.readers.xlsx import Flaw, read_workbook

ENDINGS = (".csv", ".tsv", ".xlsx", ".jsonl")
_SEPARATORS = ",;\t|"
_MOST_BYTES = 32 << 20
_RESAVE = "save it as 'CSV UTF-8', or as .xlsx"
_QUOTE = "put texts with commas, quotes or line breaks in quotes, and double the quotes inside"
_EXCEL_ERROR = re.compile(r"#(N/A|NV|N/D|GETTING_DATA|[¡¿]?[^\W\d_a-z][^\Wa-z]*(/0)?[!?])")
_PATIENTS = re.compile(r"(patient|subject|case|participant)[ _-]?(id|no|number|name)?s?")
_SETS = re.compile(r"(data ?)?sets?|subset|partition")
_MISSING = {"nan", "<na>", "na", "n/a", "nat", "null", "none"}
_IMAGE = rf"\s*\"?([^{_SEPARATORS}\"]+\.(?:png|jpe?g|bmp|tiff?|dcm|dicom))\"?\s*"
_ROW_START = re.compile(rf"{_IMAGE}[{_SEPARATORS}]", re.I)
_LATER_CELL = re.compile(rf"[{_SEPARATORS}]{_IMAGE}(?:[{_SEPARATORS}]|$)", re.I)
# A report of a few pages passes csv's own limit for one cell.
csv.field_size_limit(1 << 24)


class Row(NamedTuple):
    """One row that is not blank."""

    place: str
    """Where it is, as an editor or Excel counts: ``line 3``, ``row 3 of sheet texts``."""
    cells: dict[str, str]
    """By the columns that were asked for; empty strings where there is nothing."""
    fault: tuple[str, str] | None = None
    """What is wrong with it, which names its place, and what mends that."""


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The rows of a table that are not blank, as ``one_line`` gives their cells in all columns but ``image``.

    CSV may be separated by commas, semicolons, tabs or ``|``, in UTF-8 or, as Excel saves "Unicode text", UTF-16. Of an
    Excel file the visible sheet is read that has the columns. Titles are compared without regard to case and space.

    Args:
        path: its ending (csv, tsv, xlsx, jsonl) says what it is.
        needed: columns without which it is not the table.
        optional: columns that are read if they are there.

    Raises:
        UserError: unreadable, or without the columns. The message names the line where there is one.
    """
    if path.suffix.lower() == ".jsonl":
        rows = list(_json_rows(path, needed, optional))
    elif path.suffix.lower() == ".xlsx":
        rows = _sheet_rows(path, needed, optional)
    else:
        rows = _csv_rows(path, needed, optional)
    return [row for row in rows if row.fault or any(row.cells.values())]


def decode_text(path: Path) -> str:
    """The content of a text file in UTF-8 or UTF-16.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: has {path.stat().st_size >> 20} MB, too many for a table; keep only its columns")
        data = path.read_bytes()
    except OSError as reason:
        raise UserError(f"{path}: cannot be read ({reason.strerror}); check its name and permissions") from reason
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{path}: is an Excel file or another archive, not text; save it as .xlsx, and call it so")
    try:
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as reason:
        line = data.count(b"\n", 0, reason.start) + 1
        raise UserError(f"{path}: line {line} is not UTF-8 (byte {reason.start}); {_RESAVE}") from reason
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise UserError(f"{path}: line {line} holds a NUL character, as UTF-16 without its mark does; {_RESAVE}")
    return text


def one_line(value: Any) -> str:
    """The content of a cell, runs of white space joined and accents composed, as they are typed."""
    return "" if value is None else unicodedata.normalize("NFC", " ".join(str(value).split()))


def doubt(value: str, name: bool = False) -> str:
    """What a cell holds instead of a text, in words; nothing if it is one, or empty.

    Args:
        value: of the cell.
        name: whether it names a file, which may well be called ``none``.
    """
    if isinstance(value, Flaw):
        return value
    if odd := next((sign for sign in value if sign == "\ufffd" or unicodedata.category(sign) in ("Cc", "Cs")), ""):
        return f"the character U+{ord(odd):04X}, which is none of a text"
    if _EXCEL_ERROR.fullmatch(value):
        return f"{value}, an error of a spreadsheet"
    return f"{value}, which stands for a missing value" if not name and value.lower() in _MISSING else ""


def _csv_rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> list[Row]:
    text = decode_text(path)
    # Excel's own way to name the separator in the first line; what is left of it is blank.
    named = re.match(r"sep=(.)(?=\r|\n)", text)
    lines = list(io.StringIO(text[named.end() :] if named else text, newline=""))
    headers = {separator: _header(lines, separator) for separator in ([named[1]] if named else _SEPARATORS)}
    fitting = [separator for separator, titles in headers.items() if set(needed) <= set(titles)]
    if not fitting:
        raise _no_columns(path, needed, optional, max(headers.values(), key=len))
    numbered = _records(path, lines, fitting[0])
    titles = [_title(value) for value in next(values for _, values in numbered if any(map(str.strip, values)))]
    columns = _columns(path, titles, needed, optional)
    last = max(number for number, title in enumerate(titles) if title)
    text_column = columns.get(next(name for name in (*needed, *optional) if name != "image"), last)
    rows = []
    for number, values in numbered:
        if not any(map(str.strip, values)):
            continue
        count = max(number for number, value in enumerate(values, 1) if value.strip())
        fault = None
        if count > last + 1:
            fault = f"line {number} has {count} cells and the header {last + 1}", _QUOTE
        elif short := [name for name in needed if columns[name] >= len(values)]:
            what = f"line {number} ends before the column {short[0]}"
            fault = what, f"write an empty cell where there is none; {_QUOTE}"
        elif _looks_cut(lines[number - 1], fitting[0], text_column):
            fault = f"line {number} has a space after a separator behind the text, as in a text without quotes", _QUOTE
        cells = {name: values[column] for name, column in columns.items() if column < len(values)}
        rows.append(_row(f"line {number}", cells, (*needed, *optional), fault))
    return rows


def _looks_cut(line: str, separator: str, text_column: int) -> bool:
    """Whether a text without quotes seems to go on in the cells behind it, which a count of cells does not show."""
    text, *behind = line.split(separator)[text_column:] or [""]
    return '"' not in line and text[:1].strip() != "" and any(re.match(" +\\S", cell) for cell in behind)


def _header(lines: Sequence[str], separator: str) -> list[str]:
    """The titles of the first row that is not blank, if this is the separator."""
    records = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        return next(([_title(value) for value in values] for values in records if any(map(str.strip, values))), [])
    except csv.Error:
        return []


def _records(path: Path, lines: Sequence[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line, and the cells, of every record."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    while True:
        try:
            values = next(reader, None)
        except csv.Error as reason:
            what = {
                "unexpected end of data": "opens a quote that is never closed",
                f"'{separator}' expected after '\"'": "goes on after a closing quote",
            }.get(str(reason), f"is not readable ({reason})")
            raise UserError(f"{path}: line {line} {what}; {_QUOTE}") from reason
        if values is None:
            return
        named = _ROW_START.match(lines[line - 1]) or _LATER_CELL.search(lines[line - 1])
        for number in range(line, reader.line_num):
            # Two quotes that were left open would close each other, and swallow the rows between them.
            later = _LATER_CELL.search(lines[number])
            if found := _ROW_START.match(lines[number]) or (named and later):
                what = f"opens a quote that goes on in line {number + 1}, which looks like a row of {found[1]}"
                raise UserError(f"{path}: line {line} {what}; close the quote")
            named = named or later
        yield line, values
        line = reader.line_num + 1


def _sheet_rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> list[Row]:
    sheets, found = [], list[str]()
    for sheet in read_workbook(path):
        rows = [(number, cells) for number, cells in sheet.rows if cells]
        titles = [_title(rows[0][1].get(column, "")) for column in range(max(rows[0][1]) + 1)] if rows else []
        found = found if any(found) else titles
        if set(needed) <= set(titles):
            sheets.append((sheet, titles, rows))
    visible = [each for each in sheets if not each[0].hidden]
    if not sheets:
        raise _no_columns(path, needed, optional, found)
    if len(visible) != 1:
        names, wanted = " and ".join(each[0].name for each in visible or sheets), " and ".join(needed)
        if visible:
            raise UserError(f"{path}: the sheets {names} all have the columns {wanted}; keep one, or hide the others")
        raise UserError(f"{path}: only the hidden sheet {names} has the columns {wanted}; unhide it")
    ((sheet, titles, rows),) = visible
    columns = _columns(path, titles, needed, optional)
    for reference, left, right in sheet.merged:
        if any(left <= column <= right for column in columns.values()):
            what = f"sheet {sheet.name} has merged cells in {reference}"
            raise UserError(f"{path}: {what}; unmerge them, and fill the cell of every row")
    read = []
    for number, cells in rows[1:]:
        place, beyond = f"row {number} of sheet {sheet.name}", max(cells) + 1
        fault = None
        if beyond > len(titles):
            fault = f"{place} has {beyond} cells and the header {len(titles)}", "give each column a title, or empty it"
        named = {name: cells.get(column, "") for name, column in columns.items()}
        read.append(_row(place, named, (*needed, *optional), fault))
    return read


def _json_rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    wanted = " and ".join(f'"{name}"' for name in needed)
    # Only these end a line: JSON allows U+2028 and its like inside of strings.
    for number, line in enumerate(io.StringIO(decode_text(path), newline=None), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            record = json.loads(line, object_pairs_hook=list)
        except (ValueError, RecursionError) as reason:
            what = "is nested too deeply" if isinstance(reason, RecursionError) else f"is not JSON ({reason})"
            raise UserError(f"{path}: {place} {what}; write one object per line") from reason
        pairs = isinstance(record, list) and all(isinstance(pair, tuple) for pair in record)
        titles = [_title(title) for title, _ in record] if pairs else []
        if not set(needed) <= set(titles):
            raise UserError(f"{path}: {place} is not an object with {wanted}; write one per line")
        columns = _columns(f"{path}: {place}", titles, needed, optional)
        cells = {name: _json_text(record[column][1]) for name, column in columns.items()}
        yield _row(place, cells, (*needed, *optional), None)


def _json_text(value: Any) -> str:
    if isinstance(value, bool | list):
        return Flaw("true or false" if isinstance(value, bool) else "a list or an object")
    if value in (math.inf, -math.inf):
        return Flaw("a number that is not finite")
    return "" if value is None else str(value)


def _row(place: str, cells: Mapping[str, str], columns: Sequence[str], fault: tuple[str, str] | None) -> Row:
    """A row with its cells made one line each, and what is wrong in the first of them that is no text."""
    read = {}
    for name in columns:
        value = cells.get(name, "")
        read[name] = value.strip("\ufeff\u200b \t\r\n\xa0") if name == "image" else one_line(value)
        if what := doubt(value if isinstance(value, Flaw) else read[name], name == "image"):
            fault = fault or (f"{place} holds {what}, in the column {name}", "mend the cell, or leave it empty")
        if name in ("image", "group"):
            # Excel stores a name such as 12 as a number, and writes 12.0 where other rows have none.
            read[name] = re.sub(r"^(\d+)\.0$", r"\1", read[name])
    return Row(place, read, fault)


def _columns(where: object, titles: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """The place of each column that was asked for and is there."""
    for name in (*needed, *optional):
        if titles.count(name) > 1:
            raise UserError(f"{where}: has two columns {name}; keep one")
    others = [title for title in titles if title not in (*needed, *optional)]
    for name in optional:
        # A column that is passed over because of a slip would put test images into training.
        if name not in titles and (close := get_close_matches(name, others, 1, 0.75)):
            raise UserError(f"{where}: has a column {close[0]} and no {name}; call it {name}, or something else")
    if isinstance(where, Path) and "group" in optional and "group" not in titles:
        for title in filter(_PATIENTS.fullmatch, others):
            console.warn(f"{where}: the column {title} is passed over; call it group, to keep images together")
    if isinstance(where, Path) and "split" in optional and "split" not in titles:
        for title in filter(_SETS.fullmatch, others):
            console.warn(f"{where}: the column {title} is passed over; call it split, if it holds train, val and test")
    return {name: titles.index(name) for name in (*needed, *optional) if name in titles}


def _no_columns(path: Path, needed: Sequence[str], optional: Sequence[str], titles: Sequence[str]) -> UserError:
    columns = " and ".join(needed)
    found = f"; found {', '.join(filter(None, titles))[:80]}" if any(titles) else " (it is empty)"
    further = f" (and, if you like, {' and '.join(optional)})" if optional else ""
    plural = "s" if len(needed) > 1 else ""
    return UserError(f"{path}: has no column{plural} {columns}{found}; name them so{further} in its first row")


def _title(value: object) -> str:
    """A title without case, and without the marks that cannot be seen."""
    return one_line("".join(sign for sign in str(value) if unicodedata.category(sign) != "Cf")).lower()
