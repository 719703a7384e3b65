"""Killed processes, several writers, full disks: what exists is whole."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from textdiff.cache import FeatureCache, chunks, create
from textdiff.cache.staging import staged, staging, sweep
from textdiff.errors import UserError
from textdiff.files import atomic_directory
from textdiff.tests import cache_cases as cases
from textdiff.tests.cache_cases import left_by_the_dead

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
KILLED = -9


def leftovers(path: Path) -> list[Path]:
    return list(path.rglob("*.partial"))


def until_not_killed(run) -> int:
    """Calls ``run(n)`` for n = 1, 2, ... while it reports a kill; how many times it did."""
    for point in range(1, 1000):
        status = run(point)
        if status != KILLED:
            assert status == 0
            return point - 1
    raise AssertionError("never finished")


def test_writer_killed_at_any_moment_leaves_whole_rows_and_a_rerun_gives_the_same_bytes(tmp_path):
    """Killed at every single file operation of writing a row."""
    empty = cases.make(tmp_path / "empty.zarr", rows=cases.make_rows()[:2], **cases.SMALL).path
    expected = cases.tree(
        cases.fill(cases.make(tmp_path / "expected.zarr", rows=cases.make_rows()[:2], **cases.SMALL)).path
    )
    found = set()

    def run(point: int) -> int:
        path = shutil.copytree(empty, tmp_path / f"{point}.zarr")
        cache = FeatureCache.open(path, writable=True)
        cache.write(1, **cases.arrays(cache, 1))
        status = cases.ended(cases.in_child(lambda: cache.write(0, **cases.arrays(cache, 0)), kill_at=point))
        found.add((bool(leftovers(path)), bool(cache.done()[0])))
        assert cache.done()[1]
        assert cache.verify() == []
        cases.fill(FeatureCache.open(path, writable=True))
        assert not leftovers(path)
        assert cases.tree(path) == expected
        shutil.rmtree(path)
        return status

    assert until_not_killed(run) >= 2 * 6  # each of six files is at least opened and renamed
    # Kills came before there was anything to leave, in the middle, and after the row was done.
    assert found >= {(False, False), (True, False), (True, True)}


def test_writer_killed_while_it_replaces_a_row_leaves_the_old_one_or_none(tmp_path):
    old = cases.fill(cases.make(tmp_path / "old.zarr", rows=cases.make_rows()[:1], **cases.SMALL))
    expected, found = cases.tree(old.path), set()

    def run(point: int) -> int:
        cache = FeatureCache.open(shutil.copytree(old.path, tmp_path / f"{point}.zarr"), writable=True)
        changed = cases.arrays(cache, 0)
        changed["features"][8] += 1
        status = cases.ended(cases.in_child(lambda: cache.write(0, **changed), kill_at=point))
        assert cache.verify() == []
        if cache.done()[0]:
            found.add(float(cache.features(0, 8)[0, 0, 0, 0] - old.features(0, 8)[0, 0, 0, 0]) > 0.5)
        else:
            found.add(None)
        cases.fill(FeatureCache.open(cache.path, writable=True), [0])
        assert cases.tree(cache.path) == expected
        shutil.rmtree(cache.path)
        return status

    until_not_killed(run)
    assert found == {False, None, True}


@pytest.mark.parametrize("overwrite", [False, True])
def test_creator_killed_at_any_moment_leaves_no_half_cache_and_its_leftovers_are_cleaned(tmp_path, overwrite):
    expected = cases.tree(cases.make(tmp_path / "expected.zarr", **cases.SMALL).path)
    path = tmp_path / "c" / "c.zarr"
    other = {"fingerprint": {"made": "before"}} | cases.SMALL

    def run(point: int) -> int:
        if overwrite:
            cases.make(path, **other)
        # There are hundreds of operations, most alike.
        point *= 7
        status = cases.ended(
            cases.in_child(lambda: cases.make(path, **cases.SMALL, overwrite=overwrite), kill_at=point)
        )
        if path.exists():
            assert FeatureCache.open(path).fingerprint in (cases.FINGERPRINT, other["fingerprint"])
            assert FeatureCache.open(path).verify() == []
        assert cases.tree(cases.make(path, **cases.SMALL, overwrite=True).path) == expected
        assert [p.name for p in path.parent.iterdir()] == ["c.zarr"]
        shutil.rmtree(path)
        return status

    assert until_not_killed(run) >= 10


def test_processes_writing_different_rows_at_once_give_the_same_bytes_as_one(whole, tmp_path):
    path = cases.make(tmp_path / "c.zarr").path

    def shard(number: int) -> None:
        cache = FeatureCache.open(path, writable=True)
        cases.fill(cache, range(number, len(cache.rows), 3))

    children = [cases.in_child(lambda number=number: shard(number)) for number in range(3)]
    assert [cases.ended(child) for child in children] == [0, 0, 0]
    assert cases.tree(path) == cases.tree(whole.path)


def test_processes_writing_the_very_same_rows_at_once_do_no_harm(whole, tmp_path):
    path = cases.make(tmp_path / "c.zarr").path
    children = [
        cases.in_child(lambda: [cases.fill(FeatureCache.open(path, writable=True), range(7)) for _ in range(5)])
        for _ in range(3)
    ]
    assert [cases.ended(child) for child in children] == [0, 0, 0]
    assert cases.tree(path) == cases.tree(whole.path)


def test_racing_creators_all_get_one_sound_cache(tmp_path):
    for attempt in range(3):
        path = tmp_path / f"{attempt}.zarr"
        children = [cases.in_child(lambda path=path: cases.make(path)) for _ in range(4)]
        assert [cases.ended(child) for child in children] == [0, 0, 0, 0]
        assert FeatureCache.open(path).verify() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.zarr", "1.zarr", "2.zarr"]


def test_loser_of_the_race_opens_the_winners_cache_and_loses_no_row(tmp_path, monkeypatch):
    path, build = tmp_path / "c.zarr", create.fill_cache

    def slow(*arguments):
        monkeypatch.setattr(create, "fill_cache", build)
        cases.fill(cases.make(path), [2])  # another process is quicker
        build(*arguments)

    monkeypatch.setattr(create, "fill_cache", slow)
    assert cases.make(path).done().tolist() == [row == 2 for row in range(7)]


def test_sweeping_spares_directories_in_use_and_removes_those_of_the_dead(tmp_path):
    dead, other = (left_by_the_dead(tmp_path, name) for name in "xy")
    with staging(tmp_path, "x") as used:
        sweep(tmp_path, "x")
        assert used.exists()
        assert other.exists()
        assert not dead.exists()
    assert list(tmp_path.iterdir()) == [other]


def test_sweeping_spares_directories_of_other_machines_whose_locks_may_not_be_seen_here(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("textdiff.cache.staging.HOST", "0123abcd")
        theirs = left_by_the_dead(tmp_path, "x")
    sweep(tmp_path, "x")
    assert staged(tmp_path, "x") == [theirs]


def test_sweeping_spares_what_is_to_be_another_file_of_that_name(tmp_path):
    """A directory that becomes one is known by its process, not by a lock."""
    with atomic_directory(tmp_path / "x") as made:
        sweep(tmp_path, "x")
        assert made.exists()


def test_full_disk_while_writing_leaves_the_rows_there_and_nothing_else(copy, monkeypatch):
    before, write, left = cases.tree(copy.path), chunks.write, [6]

    def full(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(chunks, "write", full)
    with pytest.raises(OSError, match="No space left"):
        copy.write(3, **cases.arrays(copy, 3))
    assert cases.tree(copy.path) == before


def test_full_disk_while_creating_gets_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chunks, "write", full)
    with pytest.raises(UserError, match="disk is full"):
        cases.make(tmp_path / "c.zarr")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_space_for_the_rows_refuses_before_anything_is_made_or_replaced(tmp_path, monkeypatch):
    path = tmp_path / "not/yet/c.zarr"
    rows = len(cases.make_rows())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**4))
    with pytest.raises(UserError, match=rf"the {rows} rows need .* 10\.0 kB free.*Nothing was written"):
        cases.make(path, rows_to_write=rows)
    assert not list(tmp_path.iterdir())
    old = cases.fill(cases.make(path))
    before = cases.tree(path)
    with pytest.raises(UserError, match="rows need"):
        cases.make(path, rows_to_write=10 * rows, overwrite=True)
    assert cases.tree(path) == before
    # What is replaced makes room for as much again.
    assert not cases.make(path, rows_to_write=len(old.rows), overwrite=True).done().any()


def test_a_durable_row_is_on_the_disk_before_its_ledger_entry_is(tmp_path, monkeypatch):
    """What is synced, and what gets its name, in the order of it."""
    cache = cases.make(tmp_path / "c.zarr", **cases.SMALL)
    events, replace = [], os.replace

    def name(path: str | Path) -> str:
        path = Path(path)
        return f"{path.parent.name}/{path.name}" if path.is_file() else path.name

    def replacing(source, target) -> None:
        replace(source, target)
        events.append(("named", name(target)))

    monkeypatch.setattr(
        os, "fsync", lambda file: events.append(("synced", name(Path(f"/proc/self/fd/{file}").readlink())))
    )
    monkeypatch.setattr(os, "replace", replacing)
    cache.write(0, **cases.arrays(cache, 0))
    assert not [event for event in events if event[0] == "synced"]
    events.clear()
    cache.make_durable()
    cache.write(1, **cases.arrays(cache, 1))
    kinds = [kind for kind, _ in events]
    files = 4  # two steps, image, mask; then the entry
    assert kinds == ["synced"] * (files + 1) + ["named"] * files + ["synced"] * 3 + ["named", "synced"]
    assert {where for _, where in events[2 * files + 1 : -2]} == {"b08", "image", "mask"}
    assert events[-2:] == [("named", "ledger/c.1.0"), ("synced", "ledger")]
