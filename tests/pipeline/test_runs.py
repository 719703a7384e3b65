"""How run directories are found."""

import pytest

from textdiff.errors import UserError
from textdiff.pipeline.runs import find_run, new_run_dir, point_latest


def test_latest_is_the_run_made_last_under_its_own_name_however_it_is_asked_for(tmp_path):
    for name in ("first", "second"):
        run = new_run_dir(tmp_path, name)
        point_latest(run)
    assert find_run(None, tmp_path).path == run
    assert find_run(tmp_path / "latest", tmp_path).path == run
    assert find_run(run, tmp_path / "elsewhere").path == run


def test_runs_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match="no run yet"):
        find_run(None, tmp_path)
    with pytest.raises(UserError, match="gone: no such run directory"):
        find_run(tmp_path / "gone", tmp_path)
