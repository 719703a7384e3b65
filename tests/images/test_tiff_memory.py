"""Small TIFFs that ask for a large memory: refused, or read within what they may hold."""

import io
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile

from textdiff.errors import UserError
from textdiff.images.decode import decode
from textdiff.tests.tiff_cases import RGB, H, with_tag, written


@contextmanager
def at_most(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def shared_strips() -> bytes:
    data = written(np.zeros((4000, 4000), np.uint8), compression="zlib", rowsperstrip=40)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        offset, count = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    strips = data[offset : offset + count]
    return with_tag(with_tag(data, 273, [offset] * 100), 279, [len(data) - offset - len(strips)] * 100)


def swollen_strip() -> bytes:
    """One row of an image, whose strip unpacks to 300 MB."""
    data = written(RGB[:1], compression="zlib", rowsperstrip=1)
    strip = zlib.compress(bytes(300 << 20))
    return with_tag(with_tag(data + strip, 273, len(data)), 279, len(strip))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (shared_strips(), "is damaged: its pieces overlap"),
        (with_tag(written(RGB, tile=(16, 16), compression="zlib"), 322, 1 << 20), "does not have a place for each"),
        (
            with_tag(with_tag(written(RGB[:9, :9], tile=(16, 16)), 322, 1 << 16), 323, 1 << 16),
            "has pieces of 65536x65536",
        ),
        (with_tag(written(RGB, compression="zlib"), 277, 65), "truncated or damaged"),
        (with_tag(written(RGB, compression="zlib"), 257, 10**9), "does not have a place for each of its pieces"),
        (
            with_tag(with_tag(written(RGB * 1.0, rowsperstrip=H), 257, 8000), 256, 9000),
            "does not have a place for each of its pieces",
        ),
    ],
    ids=["strips that overlap", "wide tiles", "giant tiles", "channels", "rows", "doubles"],
)
def test_small_files_do_not_ask_for_a_large_memory(data, what):
    with at_most(8 * len(data) + 1_000_000), pytest.raises(UserError, match=what):
        decode("a.tif", data)


def test_a_piece_is_not_unpacked_beyond_what_it_may_hold():
    data = swollen_strip()
    with at_most(10_000_000):
        decode("a.tif", data)
