"""What a cache holds, for people and for programs."""

__all__ = ["cache_info", "format_info"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textdiff import console
from textdiff.cache.layout import SCHEMA
from textdiff.cache.rows import most_views
from textdiff.tables import text_table

if TYPE_CHECKING:
    from textdiff.cache.feature_cache import FeatureCache

_SHOWN = 4
"""A longer list of words is counted in the place of being shown."""


def cache_info(cache: "FeatureCache") -> dict[str, Any]:
    """See ``FeatureCache.info``."""
    done = cache.done()
    splits: dict[str, dict[str, int]] = {}
    for row, there in zip(cache.rows, done, strict=True):
        split = splits.setdefault(row.split, {"done": 0, "total": 0})
        split["total"] += 1
        split["done"] += int(there)
    size = cache.image_size
    upsampled = len(cache.steps) * size**2 * cache.dtype.itemsize * sum(C for C, _, _ in cache.blocks.values())
    return {
        "path": str(cache.path),
        "schema": SCHEMA,
        "complete": bool(done.all()),
        "rows": {"done": int(done.sum()), "total": len(cache.rows)},
        "views": most_views(cache.rows, training=True),
        "test_views": most_views(cache.rows, training=False),
        "splits": splits,
        "blocks": {str(block): list(shape) for block, shape in cache.blocks.items()},
        "steps": list(cache.steps),
        "image_size": size,
        "dtype": cache.layout.dtype,
        "classes": list(cache.classes),
        "instances": cache.layout.instances,
        "sparse": cache.sparse,
        "texts": len(cache.texts),
        "tokens": None if cache.layout.tokens is None else list(cache.layout.tokens),
        "row_bytes": cache.row_nbytes,
        "bytes_on_disk": cache.store.nbytes(),
        "logical_bytes": int(done.sum()) * (upsampled + 4 * math.prod((size, size))),
        "about": cache.about,
        "fingerprint": cache.fingerprint,
        "fingerprint_hash": cache.fingerprint_hash,
    }


def format_info(info: dict[str, Any]) -> str:
    """The facts of ``cache_info`` in lines for a terminal."""
    splits = ", ".join(f"{name} {count['done']}/{count['total']}" for name, count in info["splits"].items())
    tokens = info["tokens"]
    facts = {
        "cache": f"{info['path']} (schema {info['schema']})",
        "rows": f"{info['rows']['done']} of {info['rows']['total']} ({splits})",
        "blocks": ", ".join(f"{block}: {C}@{h}x{w}" for block, (C, h, w) in info["blocks"].items()),
        "steps": ", ".join(map(str, info["steps"])),
        "images": f"{info['image_size']}x{info['image_size']}" + _views(info),
        "masks": ", ".join(info["classes"])
        + (f"; objects in {info['instances']}" if info["instances"] else "")
        + ("; 255 where nothing is said" if info["sparse"] else ""),
        "texts": f"{info['texts']}"
        + (
            f", up to {console.counted(tokens[1], 'token')} each, {tokens[2]} numbers a token"
            if tokens
            else ", without embeddings"
        ),
        "on disk": f"{console.size(info['bytes_on_disk'])}, {console.size(info['row_bytes'])} a row, {info['dtype']}",
        "upsampled": f"{console.size(info['logical_bytes'])}, as other Zarr readers see it",
        **{name.replace("_", " "): _words(value) for name, value in info["about"].items()},
        "fingerprint": info["fingerprint_hash"],
    }
    return text_table((), list(facts.items()))


def _views(info: dict[str, Any]) -> str:
    jitter = info["fingerprint"].get("jitter")
    colours = f" in varied colours ({jitter})" if jitter else ""
    training = f", {info['views']} views of each training image{colours}" if info["views"] > 1 else ""
    others = f", {info['test_views']} views of each validation and test image" if info["test_views"] > 1 else ""
    return training + others


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if not isinstance(value, list):
        return str(value)
    words = any(isinstance(part, str) for part in value)
    if (words and len(value) > _SHOWN) or any(isinstance(part, list) for part in value):  # as of turned texts
        return f"({len(value)})"
    return ",".join(map(str, value))
