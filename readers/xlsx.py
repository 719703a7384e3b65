"""Excel workbooks, sheet by sheet: the cells that are filled, as text.

openpyxl writes such files and knows their number formats, but it loops over the rows and columns that a file claims to
have, and tells neither merged cells nor formulas that were never calculated from empty ones.
"""

__all__ = ["Flaw", "Sheet", "read_workbook"]

import io
import posixpath
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textdiff.errors import UserError

_MOST_BYTES = 64 << 20
"""The most bytes of XML, unpacked."""
_MOST_TAGS = 2_000_000
_ROWS, _COLUMNS = 1_048_576, 16_384
"""Excel's own limits."""


class Flaw(str):
    """What a cell holds that is neither a text nor nothing, in words."""


@dataclass(frozen=True)
class Sheet:
    """One sheet of a workbook."""

    name: str
    hidden: bool
    rows: list[tuple[int, dict[int, str]]]
    """The number of each row, from 1, and its filled cells by column, from 0."""
    merged: list[tuple[str, int, int]]
    """Cells merged over several rows: their range as Excel writes it, the first and the last column."""


def read_workbook(path: Path) -> list[Sheet]:
    """All sheets of a workbook, Strict Open XML or not, in their order.

    Numbers are written as Excel would without a format, dates as ISO 8601. What Excel says about the extent of a sheet
    is not believed: memory and time go with the size of the file.

    Raises:
        UserError: no workbook that can be read, or one that is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Workbook(path, archive).sheets()
    except UserError:
        raise
    except OSError as reason:
        raise UserError(f"{path}: cannot be read ({reason.strerror}); check its name and permissions") from reason
    # A damaged archive surfaces as zipfile, zlib, XML, key, index, value or type errors.
    except Exception as reason:
        raise UserError(f"{path}: is not a readable Excel table{_kind(path)}; save it again as .xlsx") from reason


class _Workbook:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._bytes, self._tags = _MOST_BYTES, _MOST_TAGS

    def sheets(self) -> list[Sheet]:
        (book,) = (part for kind, part in self._related("").values() if kind == "officeDocument")
        parts = self._related(book)
        by_kind = dict(parts.values())
        strings = [_text_of(item) for item in self._each(by_kind.get("sharedStrings"), {"si"})]
        dates = self._dates(by_kind.get("styles"))
        listed, mac = list[tuple[str, bool, str]](), False
        for element in self._each(book, {"sheet", "workbookPr"}):
            if _name(element) == "workbookPr":
                mac = element.get("date1904") in ("1", "true")
                continue
            kind, part = parts[next(value for key, value in element.attrib.items() if key.endswith("}id"))]
            if kind == "worksheet":
                listed.append((element.get("name", ""), element.get("state", "visible") != "visible", part))
        return [Sheet(name, hidden, *self._cells(part, strings, dates, mac)) for name, hidden, part in listed]

    def _cells(
        self, part: str, strings: list[str], dates: set[int], mac: bool
    ) -> tuple[list[tuple[int, dict[int, str]]], list[tuple[str, int, int]]]:
        rows, merged, number = list[tuple[int, dict[int, str]]](), list[tuple[str, int, int]](), 0
        for element in self._each(part, {"row", "mergeCell"}):
            if _name(element) == "mergeCell":
                first, _, last = element.attrib["ref"].partition(":")
                (top, left), (bottom, right) = self._place(first), self._place(last or first)
                if top != bottom:
                    merged.append((element.attrib["ref"], left, right))
                continue
            number, column, cells = int(element.get("r", number + 1)), -1, dict[int, str]()
            for cell in element:
                column = self._place(cell.attrib["r"])[1] if "r" in cell.attrib else column + 1
                value = _content(cell, strings, dates, mac)
                if value.strip():
                    cells[column] = value
            self._check_place(number, column)
            rows.append((number, cells))
        return rows, merged

    def _place(self, reference: str) -> tuple[int, int]:
        """Row, from 1, and column, from 0, of a cell such as ``B12``."""
        found = re.fullmatch(r"\$?([A-Z]{1,9})\$?(\d{1,12})", reference)
        if not found:
            raise ValueError(reference)
        column = 0
        for letter in found[1]:
            column = 26 * column + ord(letter) - 64
        self._check_place(int(found[2]), column - 1)
        return int(found[2]), column - 1

    def _check_place(self, row: int, column: int) -> None:
        if row > _ROWS or column >= _COLUMNS:
            what = f"row {row} of {_ROWS}" if row > _ROWS else f"column {column + 1} of {_COLUMNS}"
            raise UserError(f"{self._path}: claims the {what} that Excel has; save it again as .xlsx")

    def _dates(self, part: str | None) -> set[int]:
        """The styles that show a number as a date."""
        from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format

        formats, dates = dict(BUILTIN_FORMATS), set[int]()
        for element in self._each(part, {"numFmt", "cellXfs"}):
            if _name(element) == "numFmt":
                formats[int(element.attrib["numFmtId"])] = element.attrib["formatCode"]
            else:
                used = [formats.get(int(style.get("numFmtId", 0)), "") for style in element]
                dates = {number for number, code in enumerate(used) if is_date_format(code)}
        return dates

    def _related(self, part: str) -> dict[str, tuple[str, str]]:
        """By id the kind and the name of every part that ``part`` refers to."""
        folder, name = posixpath.split(part)
        related = {}
        for element in self._each(posixpath.join(folder, "_rels", f"{name}.rels"), {"Relationship"}):
            target = posixpath.normpath(posixpath.join("/", folder, element.attrib["Target"])).lstrip("/")
            related[element.attrib["Id"]] = element.attrib["Type"].rsplit("/", 1)[-1], target
        return related

    def _each(self, part: str | None, names: Collection[str]) -> Iterator[Any]:
        """The elements with these names in a part, one at a time; none of a part that is not there."""
        from defusedxml.ElementTree import iterparse

        if part is None:
            return
        self._spend(self._archive.getinfo(part).file_size, 0)
        data = self._archive.read(part)
        self._spend(0, data.count(b"<"))
        above: list[Any] = []
        for event, element in iterparse(io.BytesIO(data), ("start", "end"), forbid_dtd=True):
            if event == "start":
                above.append(element)
                continue
            above.pop()
            if _name(element) in names:
                yield element
                if above:
                    above[-1].clear()

    def _spend(self, count: int, tags: int) -> None:
        self._bytes -= count
        self._tags -= tags
        if self._bytes < 0 or self._tags < 0:
            raise UserError(f"{self._path}: is too large for a table; keep only its columns, or save it as CSV UTF-8")


def _content(cell: Any, strings: list[str], dates: set[int], mac: bool) -> str:
    """What a cell shows, without regard to its format unless that is a date's."""
    from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH, from_excel
    from openpyxl.utils.escape import unescape

    parts = {_name(part): part for part in cell}
    kind, stored = cell.get("t", "n"), parts["v"].text or "" if "v" in parts else ""
    if kind == "inlineStr":
        return _text_of(parts["is"]) if "is" in parts else ""
    if "f" in parts and not stored and kind != "str":
        return Flaw("a formula that was never calculated")
    if not stored:
        return ""
    if kind == "s":
        return strings[int(stored)]
    if kind == "b":
        return "TRUE" if stored == "1" else "FALSE"
    if kind != "n":
        return str(unescape(stored))
    if int(cell.get("s", 0)) in dates:
        date = from_excel(float(stored), MAC_EPOCH if mac else WINDOWS_EPOCH)
        return str(date).removesuffix(" 00:00:00")
    number = float(stored)
    # A long number of a patient or an image has all its digits in the file.
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else f"{number:.15g}"


def _text_of(item: Any) -> str:
    """The text of a string item; its phonetic reading is left out."""
    from openpyxl.utils.escape import unescape

    runs = [part for child in item for part in (child if _name(child) == "r" else [child]) if _name(part) == "t"]
    return str(unescape("".join(run.text or "" for run in runs)))


def _name(element: Any) -> str:
    """The name without the namespace, which differs between Strict and Transitional Open XML."""
    return str(element.tag).rsplit("}", 1)[-1]


def _kind(path: Path) -> str:
    """What the file is instead, where that is plain to see."""
    with path.open("rb") as file:
        if file.read(4) == b"\xd0\xcf\x11\xe0":
            return " but an old .xls, or protected by a password"
    others = {"mimetype": "an OpenDocument file", "Index/Document.iwa": "a Numbers file", "xl/workbook.bin": "an .xlsb"}
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        return next(f" but {what}" for name, what in others.items() if name in archive.namelist())
    return ""
