"""A small cache that is whole, and copies to damage."""

import shutil

import pytest

from textdiff.cache import FeatureCache
from textdiff.tests import cache_cases as cases


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> FeatureCache:
    """A complete cache that no test changes."""
    return cases.fill(cases.make(tmp_path_factory.mktemp("whole") / "c.zarr"))


@pytest.fixture
def copy(whole, tmp_path) -> FeatureCache:
    return FeatureCache.open(shutil.copytree(whole.path, tmp_path / "copy.zarr"), writable=True)
