"""What tests do with files: they read all or a table, flip a byte, cut them in half."""

import csv
from pathlib import Path


def files(root: Path) -> dict[str, bytes]:
    """The bytes of every file below a directory."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def flip(path: Path, position: int, bits: int = 0x10) -> None:
    """Changes one byte, counted from the end where ``position`` is negative."""
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
