"""The sample table: which row of the cache is which view of which image, or of which tile of it."""

__all__ = ["CacheError", "DamagedError", "Row", "check_rows", "columns", "most_views", "pack_table", "unpack_table"]

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields

from textdiff.errors import UserError


class CacheError(UserError):
    """A cache that is damaged, incomplete, made otherwise, or none at all."""


class DamagedError(CacheError):
    """A cache whose root or table is not as it was written; ``repair`` makes them anew."""

    FIX = "run the textdiff extract that made it again, which repairs it and keeps the rows"


@dataclass(frozen=True)
class Row:
    """One view of one image or tile. Sizes are those of the original, in pixels, before resizing and turning."""

    id: str
    split: str
    view: int
    """0 is the image itself, 1..7 its other symmetries; from 8 on these again, in other colours."""
    text: int
    """Index into the cache's texts, -1 for none."""
    source: str
    """The name of the image's file."""
    image_sha256: str
    mask_sha256: str | None
    """None where the image has no mask."""
    height: int
    """The height of the whole image, whatever part of it the row shows."""
    width: int
    tile: int = 0
    """Side of the square that the row shows, 0 for the whole image."""
    y: int = 0
    """First row of the image that the tile shows."""
    x: int = 0
    """First column."""
    group: str = ""
    """Whose the image is, such as a patient's; empty where nothing is known."""

    @property
    def has_mask(self) -> bool:
        """Whether the row stores a mask."""
        return self.mask_sha256 is not None

    @property
    def has_truth(self) -> bool:
        """Whether the row stores the mask at the original size: unturned views of annotated images do."""
        return self.has_mask and self.view == 0

    @property
    def truth_shape(self) -> tuple[int, int]:
        """(h, w) of that mask: what the row shows of the image, without what a tile has beyond its end."""
        if not self.tile:
            return self.height, self.width
        return min(self.tile, self.height - self.y), min(self.tile, self.width - self.x)

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What tells a row from all others of its cache."""
        return self.id, self.y, self.x, self.view

    @property
    def determined_by(self) -> tuple[object, ...]:
        """What the row's chunks depend on beside the cache's fingerprint; JSON-able, and part of its ledger entry."""
        shown = (self.height, self.width, self.tile, self.y, self.x, self.view)
        return self.image_sha256, self.mask_sha256, *shown, self.split

    def __str__(self) -> str:
        return f"{self.id}, view {self.view}" + (f", tile at {self.y},{self.x}" if self.tile else "")


def most_views(rows: Iterable[Row], *, training: bool) -> int:
    """How many views there are of training images, or of the others."""
    return 1 + max((row.view for row in rows if (row.split == "train") == training), default=0)


def check_rows(rows: Sequence[Row], texts: Sequence[str]) -> None:
    """Checks what the rest of the cache relies on.

    Raises:
        ValueError: no rows, the same image, tile and view twice, a text index out of range, or an impossible size.
    """
    if not rows:
        raise ValueError("a cache needs at least one row")
    if len({row.key for row in rows}) < len(rows):
        raise ValueError("two rows have the same id and view (and tile)")
    for row in rows:
        if not -1 <= row.text < len(texts):
            raise ValueError(f"row {row}: text {row.text} is not among the {len(texts)} texts")
        if row.height < 1 or row.width < 1:
            raise ValueError(f"row {row}: impossible size {row.height}x{row.width}")
        inside = 0 <= row.y < row.height and 0 <= row.x < row.width
        if row.tile < 0 or not inside or (row.tile == 0 and (row.y, row.x) != (0, 0)):
            raise ValueError(f"row {row}: a tile of {row.tile} pixels at {row.y},{row.x} is not in the image")


def columns(rows: Sequence[Row]) -> list[str]:
    """The fields of ``Row`` that these rows need stored: all but those in which every row has the default.

    So a cache without tiles has no columns about tiles, and the same bytes as before there were any.
    """
    return [
        field.name
        for field in fields(Row)
        if field.default is MISSING or any(getattr(row, field.name) != field.default for row in rows)
    ]


def pack_table(rows: Sequence[Row], texts: Sequence[str]) -> bytes:
    """The table as UTF-8 JSON. Rows are lists in the order of ``columns``: names would be half of its size."""
    names = columns(rows)
    table = {"columns": names, "rows": [[getattr(row, name) for name in names] for row in rows], "texts": list(texts)}
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
