"""What nothing vouches for is found, weighed and removed; what is in use, sound or foreign stays."""

import os
import shutil
import time
from pathlib import Path

import pytest

from textdiff.cache import CacheError, FeatureCache
from textdiff.cache.gc import collect
from textdiff.cache.staging import STAGED, locked, mark_in_use, staging
from textdiff.cache.update import update_path
from textdiff.tests import cache_cases as cases


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return cases.fill(cases.make(tmp_path / "c.zarr"))


def row_of_a_killed_writer(cache: FeatureCache) -> None:
    (cache.path / "ledger/c.2.0").unlink()


def damaged_entry(cache: FeatureCache) -> None:
    (cache.path / "ledger/c.2.0").write_bytes(bytes(3))


def row_beyond_the_table(cache: FeatureCache) -> None:
    shutil.copyfile(cache.path / "image/c.2.0.0.0", cache.path / "image/c.7.0.0.0")


def mask_of_a_row_without(cache: FeatureCache) -> None:
    shutil.copyfile(cache.path / "mask/c.2.0.0", cache.path / "mask/c.4.0.0")


def staged_row(cache: FeatureCache) -> None:
    (cache.path / "table/.row.0123.partial").mkdir()
    (cache.path / "table/.row.0123.partial/3").write_bytes(bytes(50))


def staged_cache(cache: FeatureCache) -> None:
    shutil.copytree(cache.path, cache.path.parent / ".c.zarr.0123.partial/new")


def abandoned_update(cache: FeatureCache) -> None:
    """One row of it is taken over, a file of both."""
    new = FeatureCache.open(
        shutil.copytree(cache.path, update_path(cache.path, cache.fingerprint_hash, "0" * 64)), writable=True
    )
    new.forget([1, 2, 3])
    (new.path / "image/c.0.0.0.0").unlink()
    os.link(cache.path / "image/c.0.0.0.0", new.path / "image/c.0.0.0.0")


def replaced_cache(cache: FeatureCache) -> None:
    shutil.copytree(cache.path, cache.path.with_name(".c.replaced.zarr"))


GARBAGE = {
    row_of_a_killed_writer: "row 2 (image 2, view 0), not in the ledger",
    damaged_entry: "row 2 (image 2, view 0), not in the ledger",
    row_beyond_the_table: "chunks of rows that the table does not have",
    mask_of_a_row_without: "a chunk that its row does not have",
    staged_row: "left by a killed process",
    staged_cache: "left by a killed process",
    abandoned_update: "an update that was begun, 4 of 7 rows",
    replaced_cache: "left by a killed process",
}


def used(root: Path) -> int:
    """Bytes of all files, those with several names once."""
    return sum({s.st_ino: s.st_size for s in (p.lstat() for p in root.rglob("*") if p.is_file())}.values())


@pytest.mark.parametrize("leave", GARBAGE, ids=lambda function: function.__name__)
def test_what_nothing_vouches_for_is_listed_and_then_removed_and_the_bytes_told_are_freed(cache, tmp_path, leave):
    rows, whole = cache.done(), cases.tree(tmp_path)
    leave(cache)
    before = cases.tree(tmp_path)
    listed = collect(cache.path)
    assert cases.tree(tmp_path) == before
    assert all(GARBAGE[leave] in str(one) for one in listed)
    assert [one.files for one in listed] == [max(1, len(before.keys() - whole.keys()))] or "row 2" in listed[0].what
    weight = used(tmp_path)
    assert collect(cache.path, delete=True) == listed
    assert used(tmp_path) == weight - sum(one.nbytes for one in listed)
    assert not collect(cache.path)
    assert not list(tmp_path.rglob(".*"))
    cases.fill(cache)
    assert cases.tree(tmp_path) == whole
    assert rows.all()


def test_a_sound_cache_has_nothing_to_remove_and_foreign_files_are_named_and_left(cache, tmp_path):
    assert collect(cache.path, delete=True) == []
    foreign = [cache.path / name for name in ("notes.txt", "image/.DS_Store", "ledger/c.1.0.swp", "features/c.0.0")]
    for file in foreign:
        file.write_text("mine")
    (tmp_path / ".other.zarr.0123.partial").mkdir()
    found = collect(cache.path, delete=True)
    assert {one.path for one in found} == {str(file) for file in foreign}
    assert all("not of a cache, left where it is" in str(one) for one in found)
    assert all(file.exists() for file in [*foreign, tmp_path / ".other.zarr.0123.partial"])


def test_an_empty_directory_of_a_killed_process_is_removed_and_said_to_be(cache, capsys):
    row = cache.path / STAGED / ".row.0123.partial"
    row.mkdir()
    (found,) = collect(cache.path, delete=True)
    assert str(found) == f"{row}: left by a killed process, 1 empty directory"
    assert f"{cache.path}: removed 1 empty directory\n" in capsys.readouterr().err
    assert not row.exists()


def test_what_a_live_process_is_at_stays(cache, tmp_path):
    """A writer between two rows, one in the middle of a row, one that makes a cache, one that updates."""
    whole = cases.tree(cache.path)
    row_of_a_killed_writer(cache)
    abandoned_update(cache)
    update, writer = FeatureCache.open(cache.path), FeatureCache.open(cache.path)
    update_at = next(tmp_path.glob(".c.update-*"))
    with staging(tmp_path, "c.zarr"):
        mark_in_use(update_at, update)
        before = cases.tree(tmp_path)
        with locked(cache.path / STAGED, shared=True):
            assert {one.files for one in collect(cache.path, delete=True)} == {None}
        mark_in_use(cache.path, writer)
        assert {one.files for one in collect(cache.path, delete=True)} == {None}
        assert cases.tree(tmp_path) == before
        del writer
        assert [one.what[:5] for one in collect(cache.path, delete=True) if one.files] == ["row 2"]
    del update
    assert [one.what[:9] for one in collect(cache.path, delete=True)] == ["an update"]
    assert cases.tree(cases.fill(cache).path) == whole


def test_what_another_machine_staged_within_a_day_stays_as_its_locks_may_not_be_seen_here(cache, tmp_path, monkeypatch):
    """A row in the cache, one in an update, and a cache that is made."""
    abandoned_update(cache)
    row_of_a_killed_writer(cache)
    (update,) = tmp_path.glob(".c.update-*")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("textdiff.cache.staging.HOST", "0123abcd")
        places = ((cache.path / STAGED, "row"), (update / STAGED, "row"), (tmp_path, "c.zarr"))
        theirs = [cases.left_by_the_dead(*place) for place in places]
    before = cases.tree(tmp_path)
    told = collect(cache.path, delete=True)
    assert {one.path for one in told} == set(map(str, theirs))
    assert all("staged by another machine, which may be at it (changed at 2" in str(one) for one in told)
    assert all("a day later), left where it is" in str(one) for one in told)
    assert (cases.tree(tmp_path), all(place.exists() for place in theirs)) == (before, True)
    for place in theirs:
        os.utime(place, (0, time.time() - 25 * 3600))
    assert [one.what[:5] for one in collect(cache.path, delete=True)] == ["row 2", "left ", "left ", "an up"]
    assert not list(tmp_path.rglob(".*"))


def test_nothing_is_removed_of_a_cache_of_which_nobody_knows_what_belongs_to_it(cache, tmp_path):
    (cache.path / "table/c.0").write_bytes(b"")
    before = cases.tree(tmp_path)
    with pytest.raises(CacheError, match="sample table is damaged"):
        collect(cache.path, delete=True)
    assert cases.tree(tmp_path) == before
