"""The HTML report as a program reads it, and a text that no page should take for its own."""

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.tests.browser import Page, find_browser

PIXELS = (
    "(() => {{ const copy = new OffscreenCanvas(128, 128).getContext('2d', {{willReadFrequently: true}});"
    " copy.drawImage({}, 0, 0); return Array.from(copy.getImageData(0, 0, 128, 128).data); }})()"
)
NASTY = """{}</script><script>window.broken = 1</script><img src=x onerror="window.broken = 2">"'&\u2028{{{{data}}}}"""


class Parsed(HTMLParser):
    """Scripts and styles with their text, and every attribute that could fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside, self.parts, self.fetched, self.tags, self.policy = None, [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "action") or (tag == "link")]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag in ("script", "style"):
            self.inside = (tag, attributes.get("type"))
            self.parts.append([*self.inside, ""])

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[0]:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.parts[-1][2] += data

    def data(self):
        (found,) = (text for _, kind, text in self.parts if kind == "application/json")
        return json.loads(found)


def decode(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/webp;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@contextlib.contextmanager
def shown_page(page: Path, profile: Path) -> Iterator[Page]:
    """The page in a browser, without a complaint of it to the end; the test skips where there is none."""
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium or Chrome on the path")
    with Page(found, profile) as opened:
        opened.open(page)
        opened.wait("document.querySelector('#stage').dataset.shown !== undefined")
        yield opened
        assert opened.problems() == []
