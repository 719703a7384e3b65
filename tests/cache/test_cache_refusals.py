"""What does not fit a cache is refused in one line, and what it has stays."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from textdiff.cache import CacheError, FeatureCache
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases
from textdiff.tests.file_tools import flip

NUMBER = len(cases.make_rows())


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (7e4, "float16", ["block 8 at step 150", "7e+04", "float16", "--dtype float32"]),
        (-7e4, "float16", ["block 8 at step 150", "7e+04", "float16"]),
        (np.inf, "float32", ["block 8 at step 150", "NaN or infinity"]),
        (np.nan, "float16", ["block 8 at step 150", "NaN or infinity"]),
        (np.nan, "float32", ["block 8 at step 150", "NaN or infinity"]),
        (-np.inf, "int8", ["block 8 at step 150", "NaN or infinity"]),
        (np.nan, "int8", ["block 8 at step 150", "NaN or infinity"]),
    ],
)
def test_values_that_do_not_fit_are_refused_by_block_and_step_and_the_old_row_stays(
    copy, whole, tmp_path, value, dtype, words
):
    cache = copy if dtype == "float16" else cases.fill(cases.make(tmp_path / "f.zarr", fingerprint={"dtype": dtype}))
    before, bad = cases.tree(cache.path), cases.arrays(cache, 3)
    bad["features"][8][1, 2, 3, 1] = value
    with pytest.raises(CacheError) as error:
        cache.write(3, **bad)
    assert all(word in str(error.value) for word in [*words, cache.rows[3].id])
    assert "\n" not in str(error.value)
    assert cases.tree(cache.path) == before


def test_largest_float16_is_accepted(copy):
    good = cases.arrays(copy, 3)
    good["features"][8][:] = 65519.0  # rounds to 65504
    good["features"][6][:] = -65504.0
    copy.write(3, **good)
    assert (copy.features(3, 8) == 65504).all()
    assert (copy.features(3, 6) == -65504).all()


@pytest.mark.parametrize(
    "change",
    [
        {"mask": None},
        {"truth": None},
        {"truth": np.zeros((3, 3), np.uint8)},
        {"mask": np.zeros((16, 16), bool)},
        {"image": np.zeros((16, 15, 3), np.uint8)},
        {"features": {6: np.zeros((3, 8, 2, 2))}},
        {"features": {b: np.zeros((2, *s)) for b, s in cases.BLOCKS.items()}},
        {"features": {b: np.zeros((3, *s), int) for b, s in cases.BLOCKS.items()}},
    ],
    ids=lambda change: "".join(f"{k} {np.shape(v)}" for k, v in change.items()),
)
def test_arrays_that_contradict_the_table_are_refused(copy, change):
    before = cases.tree(copy.path)
    with pytest.raises(ValueError, match=r"features|block|image|mask|truth"):
        copy.write(3, **(cases.arrays(copy, 3) | change))
    assert cases.tree(copy.path) == before


def test_mask_for_a_row_without_one_is_refused(copy):
    with pytest.raises(ValueError, match="mask"):
        copy.write(4, **(cases.arrays(copy, 4) | {"mask": np.zeros((16, 16), np.uint8)}))


@pytest.mark.parametrize("row", [-1, NUMBER])
def test_rows_outside_the_table_are_no_rows(copy, row):
    with pytest.raises(IndexError):
        copy.image(row)
    with pytest.raises(IndexError):
        copy.write(row, **cases.arrays(copy, 0))


def test_cache_opened_for_reading_cannot_be_written(whole):
    cache = FeatureCache.open(whole.path)
    with pytest.raises(ValueError, match="opened for reading"):
        cache.write(0, **cases.arrays(cache, 0))
    with pytest.raises(ValueError, match="opened for reading"):
        cache.forget([0])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ["no such cache", "textdiff extract"]),
        (lambda p: (p / "zarr.json").unlink(), ["zarr.json is damaged", "extract that made it again"]),
        (lambda p: (p / "zarr.json").write_text("{"), ["zarr.json"]),
        (
            lambda p: (p / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}'),
            ["zarr.json is damaged", "extract that made it again"],
        ),
        (lambda p: (shutil.rmtree(p / "table"), (p / "zarr.json").unlink()), ["not a TextDiff cache"]),
        (lambda p: edit(p, sound=True, schema=2), ["schema 2", "extract --overwrite"]),
        (lambda p: edit(p, steps=[50, 150, 251]), ["damaged"]),
        (lambda p: edit(p, fingerprint={}), ["damaged"]),
        (lambda p: (p / "table/c.0").unlink(), ["table", "missing"]),
        (lambda p: flip(p / "table/c.0", 100), ["table", "checksum"]),
    ],
)
def test_what_is_not_a_sound_cache_gets_one_line(copy, damage, words):
    damage(copy.path)
    with pytest.raises(UserError) as error:
        FeatureCache.open(copy.path)
    assert all(word in str(error.value) for word in [*words, str(copy.path)])
    assert "\n" not in str(error.value)


def edit(path: Path, sound: bool = False, **attributes) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"].update(attributes)
    if sound:
        del metadata["attributes"]["checksum"]
        canonical = json.dumps(metadata["attributes"], sort_keys=True, separators=(",", ":"))
        metadata["attributes"]["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    (path / "zarr.json").write_text(json.dumps(metadata))


def test_file_in_the_place_of_a_cache_gets_one_line(tmp_path):
    (tmp_path / "c.zarr").write_text("x")
    with pytest.raises(CacheError, match="not a TextDiff cache"):
        FeatureCache.open(tmp_path / "c.zarr")
