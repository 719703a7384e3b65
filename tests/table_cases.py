"""Tables of texts in every format, also as programs write them that are not careful."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from PIL import Image

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
