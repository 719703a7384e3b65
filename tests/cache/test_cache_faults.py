"""Killed processes, several writers, flipped bytes, full disks: what exists is whole, and damage is found and named."""

import errno
import itertools
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from textdiff.cache import CacheError, FeatureCache, chunks, create, repair, verify_cache
from textdiff.cache.repair import repair_cache
from textdiff.cache.staging import staging, sweep
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
KILLED = -9
# Few files, so that a process can be killed at each of them in little time.
SMALL = {"blocks": {8: (6, 4, 4)}, "steps": (50, 150)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> FeatureCache:
    """A complete cache that no test changes."""
    return cases.fill(cases.make(tmp_path_factory.mktemp("whole") / "c.zarr"))


@pytest.fixture
def copy(whole, tmp_path) -> FeatureCache:
    return FeatureCache.open(shutil.copytree(whole.path, tmp_path / "copy.zarr"), writable=True)


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
    empty = cases.make(tmp_path / "empty.zarr", rows=cases.make_rows()[:2], **SMALL).path
    expected = cases.tree(cases.fill(cases.make(tmp_path / "expected.zarr", rows=cases.make_rows()[:2], **SMALL)).path)
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
    old = cases.fill(cases.make(tmp_path / "old.zarr", rows=cases.make_rows()[:1], **SMALL))
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
    expected = cases.tree(cases.make(tmp_path / "expected.zarr", **SMALL).path)
    path = tmp_path / "c" / "c.zarr"
    other = {"fingerprint": {"made": "before"}} | SMALL

    def run(point: int) -> int:
        if overwrite:
            cases.make(path, **other)
        # There are hundreds of operations, most alike.
        point *= 7
        status = cases.ended(cases.in_child(lambda: cases.make(path, **SMALL, overwrite=overwrite), kill_at=point))
        if path.exists():
            assert FeatureCache.open(path).fingerprint in (cases.FINGERPRINT, other["fingerprint"])
            assert FeatureCache.open(path).verify() == []
        assert cases.tree(cases.make(path, **SMALL, overwrite=True).path) == expected
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
    dead, other = tmp_path / ".x.0123.partial", tmp_path / ".y.0123.partial"
    for directory in (dead, other):
        directory.mkdir()
        (directory / "file").touch()
    with staging(tmp_path, "x") as used:
        sweep(tmp_path, "x")
        assert used.exists()
        assert other.exists()
        assert not dead.exists()
    assert list(tmp_path.iterdir()) == [other]


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
    cache = cases.make(tmp_path / "c.zarr", **SMALL)
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


def flip(path: Path, position: int, bits: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


def chunk_files(cache: FeatureCache) -> list[Path]:
    return sorted(cache.path.rglob("c.*"))


def test_verify_finds_a_flipped_byte_wherever_it_is(copy):
    """In every file of chunks: first byte, last byte, some in between."""
    rng = np.random.default_rng(0)
    copy.forget([1, 2, 5, 6])
    rows = {f"c.{row}" for row in np.flatnonzero(copy.done())}
    files = [f for f in chunk_files(copy) if f.name[:3] in rows or f.parent.name in ("table", "tokens")]
    files += (copy.path / "text/mask").glob("c.*")
    for file in files:
        original = file.read_bytes()
        for position in {0, len(original) - 1, int(rng.integers(0, len(original)))}:
            flip(file, position, int(rng.integers(1, 256)))
            array, name = str(file.parent.relative_to(copy.path)), file.name.split(".")
            faults = copy.verify()
            assert len(faults) == 1, (file, position)
            fault = faults[0]
            assert array in fault.array
            if not array.startswith(("text", "table")):
                row = copy.rows[int(name[1])]
                assert (fault.row, fault.id, fault.view) == (int(name[1]), row.id, row.view)
            if array.startswith("features"):
                assert f"step {cases.STEPS[int(name[2])]}" in fault.what
            file.write_bytes(original)
    assert copy.verify() == []


@pytest.mark.parametrize("change", ["truncate", "extend", "empty", "remove", "swap"])
def test_verify_finds_other_damage_to_any_chunk_of_a_row(copy, change):
    for file in sorted(copy.path.rglob("c.3.*")):
        if file.parent.name in ("ledger", "tokens") and change in ("remove", "swap"):
            continue  # without its ledger entry the row does not exist
        original = file.read_bytes()
        if change == "remove":
            file.unlink()
        else:
            other = file.with_name(file.name.replace("c.3.", "c.5."))
            file.write_bytes(
                {
                    "truncate": original[:-1],
                    "extend": original + b"\0",
                    "empty": b"",
                    # A chunk with a sound checksum, but not this row's.
                    "swap": other.read_bytes() if other.exists() else b"",
                }[change]
            )
        assert [fault.row for fault in copy.verify()] == [3], file
        file.write_bytes(original)


def test_verify_finds_damaged_metadata_of_every_array(copy):
    for file in copy.path.glob("*/**/zarr.json"):
        original = file.read_text()
        for damaged in (original.replace("3", "4", 1), original[:-2]):
            file.write_text(damaged)
            assert [fault.array for fault in copy.verify()] == [str(file.parent.relative_to(copy.path))], file
        file.unlink()
        assert len(copy.verify()) == 1
        file.write_text(original)
    assert copy.verify() == []


def test_verify_tells_its_progress_row_by_row(copy):
    copy.forget([1, 4])
    told = []
    assert copy.verify(lambda: told.append(1)) == []
    assert len(told) == 5


READS = {
    "features/b08/c.3.1.0.0.0": (lambda cache: cache.features(3, 8), "block 8 at step 150"),
    "image/c.3.0.0.0": (lambda cache: cache.image(3), "image"),
    "mask/c.3.0.0": (lambda cache: cache.mask(3), "mask"),
    "truth/c.3.0.0": (lambda cache: cache.truth(3), "truth"),
    "ledger/c.3.0": (lambda cache: cache.image(3), "ledger"),
    "text/tokens/c.2.0.0": (lambda cache: cache.text(3), "text 2"),
    "text/mask/c.2.0": (lambda cache: cache.text(3), "text 2"),
}


@pytest.mark.parametrize(
    ("name", "damage"),
    # A row without a ledger chunk does not exist.
    sorted(set(itertools.product(READS, ("flip", "truncate", "remove"))) - {("ledger/c.3.0", "remove")}),
)
def test_reading_damage_gets_one_line_with_the_row_and_what_to_do(copy, name, damage):
    read, what = READS[name]
    file = copy.path / name
    {
        "flip": lambda: flip(file, 3),
        "truncate": lambda: file.write_bytes(file.read_bytes()[:-5]),
        "remove": file.unlink,
    }[damage]()
    with pytest.raises(UserError) as error:
        read(copy)
    message = str(error.value)
    assert what in message
    assert "textdiff cache repair" in message
    assert str(copy.path) in message
    assert "\n" not in message
    assert "text" in what or (copy.rows[3].id in message and "row 3" in message)
    # Other rows are served as before.
    assert copy.features(5, 8).shape == (3, 6, 4, 4)


def test_missing_chunk_of_zeros_is_damage_too(tmp_path):
    cache = cases.make(tmp_path / "c.zarr")
    zero = cases.arrays(cache, 0) | {"features": {b: np.zeros((3, *s)) for b, s in cache.blocks.items()}}
    cache.write(0, **zero)
    (cache.path / "features/b08/c.0.1.0.0.0").unlink()
    with pytest.raises(CacheError, match="missing"):
        cache.features(0, 8)


def test_zarr_readers_notice_a_flipped_byte_as_well(copy):
    flip(copy.path / "features/b08/c.3.1.0.0.0", 3)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open(copy.path, mode="r")["features/b08"][3, 1]


def test_repairing_and_extracting_again_restores_the_very_bytes(copy, whole, capsys):
    flip(copy.path / "features/b08/c.3.1.0.0.0", 3)
    flip(copy.path / "ledger/c.5.0", 1)
    flip(copy.path / "image/zarr.json", 10)
    assert [fault.row for fault in verify_cache(copy.path)] == [None, 3, 5]
    assert copy.pending() == [5]  # looking changes nothing
    assert (
        f"2 bad rows and 1 faults of what belongs to no row; textdiff cache repair {copy.path}"
        in capsys.readouterr().err
    )
    assert [fault.row for fault in repair_cache(copy.path)] == [None, 3, 5]
    assert "dropped 2 rows; the textdiff extract of before makes them anew" in capsys.readouterr().err
    assert copy.pending() == [3, 5]
    assert verify_cache(copy.path) == repair_cache(copy.path) == []
    cases.fill(copy)
    assert cases.tree(copy.path) == cases.tree(whole.path)


def test_repair_keeps_a_row_that_was_bad_and_is_written_again_meanwhile(copy, whole, monkeypatch):
    flip(copy.path / "features/b08/c.3.1.0.0.0", 3)
    find = repair.find_faults

    def found_then_written(cache):
        faults = find(cache)
        cases.fill(FeatureCache.open(copy.path, writable=True), [3])
        return faults

    monkeypatch.setattr(repair, "find_faults", found_then_written)
    assert [fault.row for fault in repair_cache(copy.path)] == [3]
    assert cases.tree(copy.path) == cases.tree(whole.path)


def test_verify_names_faults_in_order_of_the_rows_whatever_its_threads_do_and_stops_where_it_is_stopped(
    tmp_path, monkeypatch
):
    rows = [replace(cases.make_rows()[0], id=str(number)) for number in range(60)]
    cache = cases.fill(cases.make(tmp_path / "c.zarr", rows=rows, **SMALL))
    for row in range(60):
        flip(cache.path / f"image/c.{row}.0.0.0", 3)
    read, verified = [], chunks.verified

    def slowly(file: Path) -> bytes:
        read.append(file)
        time.sleep(0.001 * (hash(file) % 3))
        return verified(file)

    monkeypatch.setattr(chunks, "verified", slowly)
    assert [fault.row for fault in cache.verify()] == [*range(60)]
    assert len([file for file in read if file.parent.name == "image"]) == 60
    read.clear()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.verify(stop)
    count = len(read)
    assert count < 60
    time.sleep(0.05)
    assert len(read) == count


def test_faults_print_as_one_line_that_names_the_row(copy):
    flip(copy.path / "features/b08/c.1.1.0.0.0", 3)
    assert str(copy.verify()[0]) == ("row 1 (image 0, view 1): features/b08: step 150: the checksum does not match")


def test_threads_read_while_another_writes(whole, tmp_path):
    cache, failed = cases.make(tmp_path / "c.zarr"), []

    def read() -> None:
        seen = set()
        while len(seen) < len(cache.rows):
            for row in np.flatnonzero(cache.done()).tolist():
                seen.add(row)
                if not np.array_equal(cache.features(row, 12), whole.features(row, 12)):
                    failed.append(row)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    cases.fill(cache)
    for reader in readers:
        reader.join(20)
        assert not reader.is_alive()
    assert not failed
