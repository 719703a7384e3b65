"""An update that is stopped, killed, shared or without room on the disk loses nothing and is gone on with."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from textdiff.cache import FeatureCache, update
from textdiff.errors import UserError
from textdiff.pipeline.extraction import filling
from textdiff.tests.file_tools import files
from textdiff.tests.lab_cases import left_beside, new_image, new_mask


def stopped_before_its_end(lab, monkeypatch):
    """An update of which all rows are done, and the new cache is not yet in its place."""
    new_image(lab)
    with monkeypatch.context() as patch:
        patch.setattr("textdiff.pipeline.extract.end_filling", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            lab.extract(update=True)


def test_a_new_cache_takes_rows_of_an_update_that_was_given_up_for_another(lab, forwards, monkeypatch):
    stopped_before_its_end(lab, monkeypatch)
    assert len(left_beside(lab)) == 1
    assert len(forwards) == 1
    new_mask(lab)
    lab.extract(update=True)
    assert len(forwards) == 1
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch()


def test_an_update_whose_removal_was_interrupted_is_begun_again(lab, forwards, monkeypatch):
    stopped_before_its_end(lab, monkeypatch)
    (left,) = left_beside(lab)
    for gone in ("zarr.json", "table/c.0", "features/b06/c.0.0.0.0.0"):
        (lab.root / left / gone).unlink()
    lab.extract(update=True, dry_run=True)
    assert left_beside(lab) == [left]
    lab.extract(update=True)
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch()


def test_shards_share_an_update_and_the_last_puts_it_in_place(lab, forwards):
    new_image(lab)
    old = files(lab.cache)
    lab.extract(update=True, shard=(0, 2))
    assert files(lab.cache) == old
    lab.extract(update=True, shard=(1, 2))
    assert len(forwards) == 1
    assert files(lab.cache) == lab.scratch()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_at_any_moment_the_old_cache_or_the_new_is_there_and_the_same_command_goes_on(lab):
    """In a forked process, at many of its file operations."""
    new_image(lab)
    rows = FeatureCache.open(lab.cache).rows
    expected = lab.scratch()
    shutil.copytree(lab.cache, lab.root / "kept.zarr")

    def run(kill_at: int) -> int:
        child = os.fork()
        if not child:
            left = [kill_at]

            def hook(event: str, args: tuple) -> None:
                if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link") and "zarr" in str(args[0]):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            try:
                lab.extract(update=True)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    found, point, status = set(), 0, -9
    while status == -9:
        point += 41
        status = run(point)
        update.restore(lab.cache)
        cache = FeatureCache.open(lab.cache)
        assert cache.done().all()
        assert cache.verify() == []
        found.add(cache.rows == rows)
        lab.extract(update=True)
        assert files(lab.cache) == expected
        assert left_beside(lab) == []
        shutil.rmtree(lab.cache)
        shutil.copytree(lab.root / "kept.zarr", lab.cache)
    assert status == 0
    assert found == {True, False}


def test_killed_between_the_two_steps_of_the_exchange_the_next_extract_brings_the_old_cache_back(lab, monkeypatch):
    before = files(lab.cache)
    new_mask(lab)

    def die(new: Path, path: Path) -> None:
        path.rename(path.with_name(".lab.replaced.zarr"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling, "put_in_place", die)
        with pytest.raises(KeyboardInterrupt):
            lab.extract(update=True)
    assert not lab.cache.exists()
    with pytest.raises(UserError, match="--update keeps 6 of 6 rows"):
        lab.extract()
    assert files(lab.cache) == before
    lab.extract(update=True)
    assert files(lab.cache) == lab.scratch()


def test_a_disk_without_room_beside_the_old_cache_refuses_and_nothing_is_made(lab, monkeypatch):
    before = files(lab.cache)
    new_image(lab)
    row = FeatureCache.open(lab.cache).row_nbytes

    def free(rows: float) -> Callable[[object], SimpleNamespace]:
        return lambda _: SimpleNamespace(free=int(rows * row))

    monkeypatch.setattr(shutil, "disk_usage", free(0.5))
    with pytest.raises(UserError, match=r"beside the old cache.* 1 new row needs"):
        lab.extract(update=True)

    link = os.link

    def no_links(source, target, **options):
        if Path(source).parent != Path(target).parent:  # Zarr links within a directory
            raise PermissionError("no hard links here")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "disk_usage", free(5))
    with pytest.raises(UserError, match=r"1 new row and copies of the 6 others need"):
        lab.extract(update=True)
    assert files(lab.cache) == before
    assert left_beside(lab) == []
    monkeypatch.setattr(shutil, "disk_usage", free(8))
    lab.extract(update=True)
    assert files(lab.cache) == lab.scratch()
