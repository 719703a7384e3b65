"""Flipped bytes and lost files: damage is found and named, never served, and repaired to the same bytes."""

import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from textdiff.cache import CacheError, FeatureCache, chunks, repair, verify_cache
from textdiff.cache.repair import repair_cache
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases
from textdiff.tests.file_tools import flip


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
    chunks = sorted(copy.path.rglob("c.3.*"))
    assert len(chunks) > len(copy.steps) * len(copy.blocks)
    for file in chunks:
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
        f"2 bad rows and 1 fault of what belongs to no row; textdiff cache repair {copy.path}"
        in capsys.readouterr().err
    )
    assert [fault.row for fault in repair_cache(copy.path)] == [None, 3, 5]
    assert "dropped 2 rows; the textdiff extract of before makes them anew" in capsys.readouterr().err
    assert copy.pending() == [3, 5]
    assert verify_cache(copy.path) == repair_cache(copy.path) == []
    assert f"{copy.path}: 5 of 7 rows are there, and what is there is sound" in capsys.readouterr().err
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
    cache = cases.fill(cases.make(tmp_path / "c.zarr", rows=rows, **cases.SMALL))
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
