"""Tables of texts: the columns image and text, and optionally split and group."""

__all__ = ["TextRow", "find_table", "matched_texts", "read_texts", "texts_beside"]

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from textdiff.errors import UserError
from textdiff.readers.names import error, key_of, note, owner, relative, visible
from textdiff.readers.sample import Problem
from textdiff.readers.splits import parse_split, unknown_split
from textdiff.readers.table_reader import ENDINGS, read_table


class TextRow(NamedTuple):
    """One row; empty strings where there is nothing."""

    place: str
    """As an editor or Excel counts it, such as ``line 3``."""
    image: str
    text: str
    split: str = ""
    group: str = ""
    fault: tuple[str, str] | None = None
    """What is wrong with it, and what mends that."""


def find_table(root: Path) -> Path | None:
    """``texts.csv``, ``.tsv``, ``.xlsx`` or ``.jsonl`` in a folder, in any case; None if there is none.

    Raises:
        UserError: there are several, or it is in another format.
    """
    called = sorted(path for path in visible(root) if path.stem.lower() == "texts" and path.is_file())
    found = [path for path in called if path.suffix.lower() in ENDINGS]
    if len(found) > 1:
        raise UserError(f"{root}: has {' and '.join(path.name for path in found)}; keep one table of texts")
    if called and not found:
        raise UserError(f"{called[0]}: is in a format that is not read; save it as texts.csv (UTF-8) or texts.xlsx")
    return found[0] if found else None


def read_texts(table: Path, text: str = "text", optional: Sequence[str] = ("split", "group")) -> list[TextRow]:
    """The rows of a table of texts; see ``read_table``.

    Args:
        table: a file.
        text: the title of the column of texts.
        optional: columns that are read if they are there.

    Raises:
        UserError: unreadable, or without the columns image and text.
    """
    return [
        TextRow(place, cells["image"], cells[text], cells.get("split", ""), cells.get("group", ""), fault)
        for place, cells, fault in read_table(table, ("image", text), optional)
    ]


def matched_texts(
    where: str, rows: list[TextRow], images: Collection[str], problems: list[Problem]
) -> dict[str, TextRow | None]:
    """The row of each image that has one; None where rows are wrong or contradict each other."""
    texts: dict[str, TextRow | None] = {}
    column = any(row.split for row in rows)
    for row in rows:
        key = owner(key_of(row.image), images)
        before, seen = texts.get(key), key in texts
        wrong: tuple[str, str] | None = None
        if row.fault:
            wrong = row.fault
        elif not row.image:
            wrong = f"{row.place} names no image", "name its image, or remove the row"
        elif key not in images:
            what = f"{row.place} is a text for {row.image}, an image that is not there"
            wrong = what, "add the image or remove the row"
        elif seen and before is None:
            continue
        elif before and (before.text, before.split.lower(), before.group) != (row.text, row.split.lower(), row.group):
            other = "text" if before.text != row.text else "split or group"
            wrong = f"{row.place} is another {other} for {row.image}", "keep one row for each image"
        elif column and not row.split:
            wrong = f"{row.place} has no split, and others have", "fill the column split, or remove it"
        elif row.split and parse_split(row.split) is None:
            what, fix = unknown_split(row.split)
            wrong = f"{row.place} {what}", fix
        if wrong:
            problems.append(error(where, *wrong))
        if key in images:
            texts[key] = None if wrong else row
    return texts


def texts_beside(root: Path, images: Mapping[str, Path], problems: list[Problem], absent: str) -> dict[str, TextRow]:
    """The row of each image in the table in ``root``, an empty one where it has none; without those of wrong rows.

    Args:
        root: a folder.
        images: the files in it, by name.
        problems: what is wrong or should be known is added here.
        absent: what is said where there is no table.
    """
    table, found = find_table(root), dict[str, TextRow]()
    texts = matched_texts(table.name if table else "", read_texts(table) if table else [], images, problems)
    if table is None:
        problems.append(note("texts.csv", "is not there: all texts are empty", absent))
    for key, path in images.items():
        if table and key not in texts:
            problems.append(note(relative(root, path), f"has no row in {table.name}: its text is empty"))
        if (row := texts.get(key, TextRow("", key, ""))) is not None:
            found[key] = row
    return found
