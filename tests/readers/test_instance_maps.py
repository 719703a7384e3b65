"""Maps of objects: into the cache at their own size, and through everything that keeps one."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from textdiff.cache import CacheError, FeatureCache, export_hdf5, import_hdf5
from textdiff.pipeline.evaluation.image_predictions import image_instances
from textdiff.tests import cache_cases as cases
from textdiff.tests.reader_cases import EXTRACT, labels_of, make_folder


@pytest.fixture(scope="module")
def with_instances(tmp_path_factory, tiny_backbone, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("instances")
    make_folder(root / "data", [labels_of(number).astype(np.uint16) for number in range(4)])
    options = ("--backbone", str(tiny_backbone), "--views", "8", "--instances")
    textdiff_once(root, *EXTRACT, "--dataset", "folder", "--data", "data", *options)
    return root


def test_instances_survive_into_the_cache_at_their_original_size(with_instances):
    cache = FeatureCache.open(with_instances / "cache/data.zarr")
    assert cache.has_instances
    assert len(cache.rows) == 18
    for row, entry in enumerate(cache.rows):
        stored = cache.instances(row)
        if entry.view:
            assert stored is None
            continue
        assert stored is not None
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, labels_of(int(entry.id)))
        np.testing.assert_array_equal(cache.truth(row), labels_of(int(entry.id)) > 0)
    assert cache.verify() == []


def test_instances_of_an_image_in_tiles_are_put_together_again(with_instances, tiny_backbone, textdiff_once):
    options = ("--dataset", "folder", "--data", "data", "--backbone", str(tiny_backbone), "--instances")
    textdiff_once(with_instances, *EXTRACT, *options, "--tile", "48", "--overlap", "8", "--cache", "tiles.zarr")
    cache = FeatureCache.open(with_instances / "tiles.zarr")
    assert len(cache.rows) == 16
    assert cache.verify() == []
    for row in range(0, 16, 4):
        np.testing.assert_array_equal(image_instances(cache, row), labels_of(int(cache.rows[row].id)))


def test_instances_go_through_hdf5_bit_for_bit(with_instances, tmp_path):
    cache = FeatureCache.open(with_instances / "cache/data.zarr")
    export_hdf5(cache, tmp_path / "out.h5")
    import_hdf5(tmp_path / "out.h5", tmp_path / "back.zarr")
    assert cases.tree(tmp_path / "back.zarr") == cases.tree(cache.path)


def test_a_damaged_map_of_instances_is_named_and_made_again(with_instances, tmp_path):
    shutil.copytree(with_instances / "cache/data.zarr", tmp_path / "c.zarr")
    chunk = tmp_path / "c.zarr/instances/c.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 8
    chunk.write_bytes(data)
    cache = FeatureCache.open(tmp_path / "c.zarr")
    assert [(fault.row, fault.array) for fault in cache.verify()] == [(0, "instances")]
    with pytest.raises(CacheError, match="the instances: the checksum does not match"):
        cache.instances(0)


def test_other_readers_see_the_instances(with_instances):
    import zarr

    array = zarr.open(with_instances / "cache/data.zarr")["instances"]
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array[0], labels_of(0))


def test_numbers_beyond_16_bits_are_kept_in_32(tmp_path):
    row = cases.make_rows()[0]
    big = np.full((row.height, row.width), 70_000, np.uint32)
    cache = cases.make(tmp_path / "c.zarr", rows=[row], fingerprint=cases.FINGERPRINT | {"instances": "uint32"})
    cache.write(0, **cases.arrays(cache, 0), instances=big)
    np.testing.assert_array_equal(cache.instances(0), big)
    small = cases.make(tmp_path / "s.zarr", rows=[row], fingerprint=cases.FINGERPRINT | {"instances": "uint16"})
    with pytest.raises(ValueError, match="70000 does not fit uint16"):
        small.write(0, **cases.arrays(small, 0), instances=big)
    with pytest.raises(ValueError, match="instances: missing"):
        small.write(0, **cases.arrays(small, 0))


def test_a_cache_without_instances_has_none(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"))
    assert cache.instances(0) is None
    assert cache.classes == ("foreground",)
    assert not (cache.path / "instances").exists()


def test_continuing_without_the_option_is_refused(with_instances, textdiff_once, tiny_backbone):
    options = ("--dataset", "folder", "--data", "data", "--backbone", str(tiny_backbone), "--views", "8")
    found = textdiff_once(with_instances, *EXTRACT, *options, "--classes", "a,b,c,d,e,f", status=2)
    assert "made otherwise" in found.stderr
    assert "instances" in found.stderr
