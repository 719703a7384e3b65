"""A cache of random activations and an experiment on it, which no test changes."""

from pathlib import Path

import pytest

from textdiff.cache import FeatureCache
from textdiff.tests import experiment_cases as cases


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> FeatureCache:
    return cases.make_cache(tmp_path_factory.mktemp("cache") / "tiny.zarr")


@pytest.fixture(scope="session")
def ablated(tmp_path_factory, cache, textdiff_once) -> Path:
    """An experiment of two variants, two draws and two seeds."""
    return cases.ablate(tmp_path_factory.mktemp("ablated"), cache, cases.ablate_options(), textdiff_once)
