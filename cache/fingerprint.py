"""What determines the features of a cache, and how two of these differ."""

__all__ = ["canonical", "differing_fields", "differing_rows", "digest_of", "same_features"]

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from textdiff.cache.rows import Row

SHOWN = 5
_OF_MASKS = ("classes", "instances", "unlabelled")
"""What a fingerprint says of the masks, which are not in the activations."""


def canonical(value: Any) -> str:
    """``value`` as JSON in the one form that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """The SHA-256 of ``value`` in its canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def differing_fields(here: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """``field: value here, value asked`` for every field that differs; nested fields as ``unet.num_heads``."""
    a, b = dict(_flat(json.loads(canonical(here)))), dict(_flat(json.loads(canonical(asked))))
    return [
        f"{name}: {_short(a, name)} in the cache, {_short(b, name)} asked for"
        for name in sorted(a.keys() | b.keys())
        if name not in a or name not in b or a[name] != b[name]
    ]


def same_features(here: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether activations are the same by two fingerprints, whatever these say of the masks beside them."""
    names = (here.keys() | asked.keys()) - set(_OF_MASKS)
    both = [{name: one.get(name) for name in names} for one in (here, asked)]
    return canonical(both[0]) == canonical(both[1])


def differing_rows(
    here: Sequence[Row], asked: Sequence[Row], here_texts: Sequence[str], asked_texts: Sequence[str]
) -> list[str]:
    """What differs between two sample tables, at most a few lines of it; alike rows of an image share one.

    Rows are compared by what their texts say, as one text more moves the indices of others.
    """
    a, b = ({row.key: row for row in rows} for rows in (here, asked))
    found = [(row, "only in the cache") for key, row in a.items() if key not in b]
    found += [(row, "not in the cache") for key, row in b.items() if key not in a]
    for key in a.keys() & b.keys():
        left, right = asdict(a[key]), asdict(b[key])
        left["text"], right["text"] = _text(a[key], here_texts), _text(b[key], asked_texts)
        fields = differing_fields(left, right)
        if fields:
            found.append((a[key], ", ".join(fields)))
    alike: dict[tuple[str, str], list[Row]] = {}
    for row, what in found:
        alike.setdefault((row.id, what), []).append(row)
    lines = sorted(
        f"{rows[0] if len(rows) == 1 else f'{name}, {len(rows)} rows'}: {what}" for (name, what), rows in alike.items()
    )
    if not lines and [row.key for row in here] != [row.key for row in asked]:
        lines = ["the same rows in another order"]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def _text(row: Row, texts: Sequence[str]) -> str | None:
    return None if row.text < 0 else texts[row.text]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _short(values: Mapping[str, Any], name: str) -> str:
    text = "nothing" if values.get(name) is None else json.dumps(values[name], ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}...{text[-4:]}"
