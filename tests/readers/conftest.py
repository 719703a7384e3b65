"""A lab's own folder, made where a test asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from textdiff.tests.reader_cases import make_lab as make


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[..., Path]:
    """``make_lab(root="data", ending="csv", split=True, group=None)``: four images with masks and texts."""
    return lambda root="data", **options: make(tmp_path / root, **options)
