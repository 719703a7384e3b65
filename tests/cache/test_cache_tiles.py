"""Tiles in a cache: several rows of one image, each with its part of the truth; and caches without tiles as before."""

import json
from dataclasses import replace

import numpy as np
import pytest

from textdiff.cache import CacheError, FeatureCache, Row, export_hdf5, import_hdf5
from textdiff.cache.rows import check_rows, pack_table, unpack_table
from textdiff.tests import cache_cases as cases

# An image of 20x33 pixels in tiles of 16, and one that is smaller than a tile.
ROWS = [
    Row("large", "train", view, 0, "large.png", "a" * 64, "b" * 64, 20, 33, tile=16, y=y, x=x)
    for y in (0, 4)
    for x in (0, 12, 17)
    for view in (0, 1)
] + [Row("small", "test", 0, 1, "small.png", "c" * 64, "d" * 64, 10, 40, tile=16, y=0, x=24)]


def fill(cache: FeatureCache) -> dict[int, np.ndarray]:
    """Writes every row; returns the truths."""
    rng, truths = np.random.default_rng(0), {}
    for row, entry in enumerate(cache.rows):
        arrays = cases.arrays(cache, row)
        arrays["truth"] = rng.integers(0, 2, entry.truth_shape, dtype=np.uint8) if entry.has_truth else None
        cache.write(row, **arrays)
        if entry.has_truth:
            truths[row] = arrays["truth"]
    return truths


def test_each_tile_keeps_its_part_of_the_truth(tmp_path):
    cache = cases.make(tmp_path / "c.zarr", rows=ROWS)
    truths = fill(cache)
    reopened = FeatureCache.open(tmp_path / "c.zarr")
    assert list(reopened.rows) == ROWS
    for row, entry in enumerate(ROWS):
        if entry.view:
            assert reopened.truth(row) is None
        else:
            np.testing.assert_array_equal(reopened.truth(row), truths[row])
    assert truths[0].shape == (16, 16)
    assert truths[len(ROWS) - 1].shape == (10, 16)  # the image ends before the tile
    assert reopened.layout.truth == (16, 16)
    assert reopened.verify() == []


def test_tiles_go_through_hdf5_and_back(tmp_path):
    fill(cases.make(tmp_path / "c.zarr", rows=ROWS))
    export_hdf5(FeatureCache.open(tmp_path / "c.zarr"), tmp_path / "c.h5")
    import_hdf5(tmp_path / "c.h5", tmp_path / "back.zarr")
    assert cases.tree(tmp_path / "back.zarr") == cases.tree(tmp_path / "c.zarr")


def test_a_table_without_tiles_is_the_one_of_before_there_were_tiles():
    rows = cases.make_rows()
    names = ["id", "split", "view", "text", "source", "image_sha256", "mask_sha256", "height", "width"]
    before = {
        "columns": names,
        "rows": [[getattr(row, name) for name in names] for row in rows],
        "texts": ["a", "b", "c"],
    }
    expected = json.dumps(before, ensure_ascii=False, separators=(",", ":")).encode()
    assert pack_table(rows, ["a", "b", "c"]) == expected
    assert unpack_table(expected)[0] == tuple(rows)


@pytest.mark.parametrize(
    "changed", [{"tile": -1}, {"y": 20}, {"x": -1}, {"tile": 0, "y": 4}, {"y": 4, "x": 12}], ids=str
)
def test_tiles_that_cannot_be_are_refused(changed):
    with pytest.raises(ValueError, match="tile"):
        check_rows([replace(ROWS[0], **changed), *ROWS[1:]], ["a", "b"])


def test_a_cache_of_other_tiles_is_refused_and_the_tile_named(tmp_path):
    cases.make(tmp_path / "c.zarr", rows=ROWS)
    with pytest.raises(CacheError, match="large, view 0, tile at 4,17"):
        cases.make(tmp_path / "c.zarr", rows=[row for row in ROWS if row.key != ("large", 4, 17, 0)])
