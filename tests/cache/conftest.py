"""A small cache that is whole, copies to damage, and a place for one in a bucket."""

import shutil

import pytest

from textdiff.cache import FeatureCache
from textdiff.places import Url
from textdiff.tests import cache_cases as cases


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> FeatureCache:
    """A complete cache that no test changes."""
    return cases.fill(cases.make(tmp_path_factory.mktemp("whole") / "c.zarr"))


@pytest.fixture
def copy(whole, tmp_path) -> FeatureCache:
    return FeatureCache.open(shutil.copytree(whole.path, tmp_path / "copy.zarr"), writable=True)


@pytest.fixture
def url(proxy, request) -> Url:
    """An address in the bucket, on the way to which nothing fails and nothing was seen yet."""
    proxy.fail = proxy.cut = proxy.delay = 0
    proxy.seen.clear()
    proxy.stored.clear()
    return Url(f"s3://bucket/{abs(hash(request.node.name))}/c.zarr")
