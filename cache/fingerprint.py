"""What determines the features of a cache, and how two of these differ."""

__all__ = ["canonical", "differing_fields", "differing_rows", "fingerprint_hash"]

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from textdiff.cache.rows import Row

SHOWN = 5


def canonical(value: Any) -> str:
    """``value`` as JSON in the one form that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint_hash(fingerprint: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(fingerprint).encode()).hexdigest()


def differing_fields(here: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """``field: value here, value asked`` for every field that differs; nested fields as ``unet.num_heads``."""
    a, b = dict(_flat(json.loads(canonical(here)))), dict(_flat(json.loads(canonical(asked))))
    return [
        f"{name}: {_short(a, name)} in the cache, {_short(b, name)} asked for"
        for name in sorted(a.keys() | b.keys())
        if name not in a or name not in b or a[name] != b[name]
    ]


def differing_rows(here: Sequence[Row], asked: Sequence[Row]) -> list[str]:
    """What differs between two sample tables, at most a few lines of it."""
    a, b = ({row.key: row for row in rows} for rows in (here, asked))
    found = [f"{row}: only in the cache" for key, row in a.items() if key not in b]
    found += [f"{row}: not in the cache" for key, row in b.items() if key not in a]
    for key in a.keys() & b.keys():
        fields = differing_fields(asdict(a[key]), asdict(b[key]))
        if fields:
            found.append(f"{a[key]}: {', '.join(fields)}")
    if not found and list(here) != list(asked):
        found.append("the same rows in another order")
    return sorted(found)[:SHOWN] + ([f"and {len(found) - SHOWN} more rows"] if len(found) > SHOWN else [])


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _short(values: Mapping[str, Any], name: str) -> str:
    text = json.dumps(values[name], ensure_ascii=False) if name in values else "nothing"
    return text if len(text) <= 40 else f"{text[:16]}...{text[-4:]}"
