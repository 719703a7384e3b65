"""One HTML file that needs nothing else: template, style, script, data and pictures put together."""

__all__ = ["data_uri", "render_page"]

import base64
import hashlib
import html
import io
import json
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textdiff.console import printable

_SCRIPTS = ("base", "head", "scores", "viewer", "images", "measured", "reliability", "curves", "facts")
"""In the order in which they run, as one module: each uses what those before it declare."""
_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def render_page(title: str, data: Any) -> str:
    """The report's page with ``data`` in it.

    The page's policy allows no request to anywhere, and no script or style but the two it was made with: texts and
    file names come from others, and one that holds markup stays text.

    Args:
        title: of the page, any text.
        data: JSON-able, without NaN.
    """
    folder = resources.files("textdiff.pipeline.reporting") / "page"

    def part(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    style, script = part("report.css"), "\n".join(part(f"{name}.js") for name in _SCRIPTS)
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = part("report.html")
    # The data goes in last: what it holds must not be taken for another place to fill.
    for mark, value in (
        ("{{policy}}", html.escape(policy, quote=True)),
        ("{{style}}", style),
        ("{{script}}", script),
        ("{{title}}", html.escape(printable(title))),
        ("{{data}}", _embeddable(data)),
    ):
        before, found, after = page.rpartition(mark)
        assert found, mark
        page = before + value + after
    return page


def data_uri(picture: NDArray[Any], kind: Literal["photo", "mask", "labels"], side: int | None = None) -> str:
    """An image as a ``data:`` address.

    Args:
        picture: (H, W, 3) or (H, W) uint8 for a photo, (H, W) bool for a mask, (H, W) uint8 for labels.
        kind: ``photo`` is stored as WebP, small and slightly lossy; the others as PNG, exact, a ``mask`` in one bit.
        side: the photo's longer side is made at most that many pixels.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    if kind != "photo":
        image.save(buffer, "PNG", optimize=True, **({"bits": 1} if kind == "mask" else {}))
        return _address("image/png", buffer)
    if side is not None:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(buffer, "WEBP", quality=82, method=6)
    return _address("image/webp", buffer)


def _address(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _embeddable(data: Any) -> str:
    """JSON that no text in it can end: a script element ends at ``</script`` wherever that stands."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return printable(text).translate(_UNSAFE)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
