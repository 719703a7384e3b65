"""Tables for people (aligned text, Markdown, LaTeX) and for programs (CSV), each with what it must escape.

Names and texts come from others. In a terminal they must not act as escape codes, in Markdown not as markup, in a
spreadsheet not as formulas.
"""

__all__ = ["CsvWriter", "csv_table", "latex", "latex_table", "markdown", "markdown_table", "text_table"]

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from textdiff.console import printable

MINUS = "\N{MINUS SIGN}"
_GAP = "  "
_LEAST = 14
# Brackets are a link only where another bracket, or a colon, follows: intervals stay as they are.
_MARKUP = re.compile(r"([\\`*_<>|~$#&]|\](?=[(\[:]))")
_FORMULA = re.compile("\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    MINUS: "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
}


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str] | None], align: str = "", *, width: int | None = None
) -> str:
    """Aligned columns for a terminal.

    Args:
        columns: the headings; empty for a table without a head.
        rows: cells, one for each column; None is a rule.
        align: ``l`` or ``r`` for each column; ``l`` for those beyond its end.
        width: of the whole table at most, unless 14 letters of the first column ask for more: its longer cells go on
            in the next line.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    lines = [columns, None, *rows] if columns else list(rows)
    cells = [None if line is None else [printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*filter(None, cells), strict=True)]
    if width is not None:
        widths[0] = min(widths[0], max(_LEAST, width - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)))
    shown = []
    for line in cells:
        if line is None:
            shown.append(_GAP.join("-" * size for size in widths).rstrip())
            continue
        first, *further = textwrap.wrap(line[0], widths[0], subsequent_indent="  ", break_on_hyphens=False) or [""]
        padded = [
            cell.rjust(size) if side == "r" else cell.ljust(size)
            for cell, size, side in zip([first, *line[1:]], widths, align.ljust(len(widths), "l"), strict=True)
        ]
        shown += [_GAP.join(padded).rstrip(), *further]
    return "\n".join(shown)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A GitHub table; arguments and result as for ``text_table``, without rules."""
    sides = ["--:" if side == "r" else ":--" for side in align.ljust(len(columns), "l")]
    lines = [list(map(markdown, columns)), sides, *(list(map(markdown, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(text: str) -> str:
    """``text`` in one line of Markdown, shown as it is: nothing in it is markup, HTML or the end of a cell."""
    return _MARKUP.sub(r"\\\1", printable(" ".join(text.split("\n"))))


def latex_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A ``tabular`` in the style of the booktabs package (``\usepackage{booktabs}``)."""
    head, *body = [" & ".join(map(latex, line)) + r" \\" for line in (columns, *rows)]
    begin = rf"\begin{{tabular}}{{{'l' * len(columns)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def latex(text: str) -> str:
    """``text`` with everything escaped that means something to LaTeX."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


class CsvWriter:
    """Writes a CSV table with a head, row by row.

    A string that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-`` or ``@`` and is no number)
    gets an apostrophe before it, which spreadsheets read as "this is text". Control characters become ``\\u001b`` and
    so on; line breaks stay, in quotes.

    Args:
        file: open for writing text, with ``newline=""``.
        columns: names, in their order.
    """

    def __init__(self, file: TextIO, columns: Sequence[str]) -> None:
        self._columns = columns
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(map(_csv_cell, columns))

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one row; a column that is missing, or None, is empty.

        Raises:
            ValueError: the row has something that is no column.
        """
        if unknown := row.keys() - set(self._columns):
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        self._writer.writerow([_csv_cell(row.get(column)) for column in self._columns])


def csv_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A CSV table as ``CsvWriter`` writes it; by default with all columns of the rows, as they first appear."""
    text = io.StringIO()
    writer = CsvWriter(text, columns or list(dict.fromkeys(column for row in rows for column in row)))
    for row in rows:
        writer.write(row)
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value.replace("\r\n", "\n"), keep="\n")
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
