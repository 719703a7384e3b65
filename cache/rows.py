"""The sample table: which row of the cache is which view of which image."""

__all__ = ["CacheError", "Row", "check_rows", "pack_table", "unpack_table"]

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from textdiff.errors import UserError


class CacheError(UserError):
    """A cache that is damaged, incomplete, made otherwise, or none at all."""


@dataclass(frozen=True)
class Row:
    """One view of one image. Sizes are those of the original image, in pixels, before resizing and turning."""

    id: str
    split: str
    view: int
    """0 is the image itself, 1..7 its other symmetries."""
    text: int
    """Index into the cache's texts, -1 for none."""
    source: str
    """The name of the image's file."""
    image_sha256: str
    mask_sha256: str | None
    """None where the image has no mask."""
    height: int
    width: int

    @property
    def has_mask(self) -> bool:
        """Whether the row stores a mask."""
        return self.mask_sha256 is not None

    @property
    def has_truth(self) -> bool:
        """Whether the row stores the mask at the original size: unturned views of annotated images do."""
        return self.has_mask and self.view == 0

    def __str__(self) -> str:
        return f"{self.id}, view {self.view}"


def check_rows(rows: Sequence[Row], texts: Sequence[str]) -> None:
    """Checks what the rest of the cache relies on.

    Raises:
        ValueError: no rows, the same (id, view) twice, a text index out of range, or an impossible size.
    """
    if not rows:
        raise ValueError("a cache needs at least one row")
    if len({(row.id, row.view) for row in rows}) < len(rows):
        raise ValueError("two rows have the same id and view")
    for row in rows:
        if not -1 <= row.text < len(texts):
            raise ValueError(f"row {row}: text {row.text} is not among the {len(texts)} texts")
        if row.height < 1 or row.width < 1:
            raise ValueError(f"row {row}: impossible size {row.height}x{row.width}")


def pack_table(rows: Sequence[Row], texts: Sequence[str]) -> bytes:
    """The table as UTF-8 JSON. Rows are lists in the order of ``columns``: names would be half of its size."""
    columns = [field.name for field in fields(Row)]
    table = {"columns": columns, "rows": [astuple(row) for row in rows], "texts": list(texts)}
    return json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()


def unpack_table(data: bytes) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The inverse of ``pack_table``.

    Raises:
        ValueError, KeyError, TypeError: it is no such table.
    """
    table = json.loads(data)
    rows = tuple(Row(**dict(zip(table["columns"], row, strict=True))) for row in table["rows"])
    texts = tuple(table["texts"])
    check_rows(rows, texts)
    return rows, texts
