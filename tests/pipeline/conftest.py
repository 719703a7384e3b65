"""Runs that tests damage, move and score copies of."""

from pathlib import Path

import pytest

from textdiff.tests.run_cases import make_runs


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory, textdiff_once) -> Path:
    """``cache.zarr`` of four pictures and runs of it (see ``make_runs``); no test changes them."""
    return make_runs(tmp_path_factory.mktemp("runs"), textdiff_once)
