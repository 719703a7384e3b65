"""JSON files that carry their own digest, so that what is read is what was written."""

__all__ = ["read_sealed", "write_sealed"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textdiff.cache.fingerprint import digest_of
from textdiff.files import write_json


def write_sealed(file: Path, facts: Mapping[str, Any]) -> None:
    """Writes facts, atomically."""
    write_json(file, {**facts, "sha256": digest_of(facts)})


def read_sealed(file: Path) -> dict[str, Any]:
    """The facts that ``write_sealed`` wrote.

    Raises:
        ValueError: the file is damaged, or another one.
    """
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if facts.pop("sha256") == digest_of(facts):
            return facts
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError, RecursionError):
        pass
    raise ValueError(f"{file}: not as it was written")
