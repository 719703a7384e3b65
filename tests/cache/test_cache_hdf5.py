"""Export to one HDF5 file and back."""

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textdiff.cache import CacheError, FeatureCache, export_hdf5, import_hdf5
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_export_and_import_give_the_very_same_files(tmp_path, compress, dtype):
    cache = cases.fill(cases.make(tmp_path / "c.zarr", fingerprint=cases.FINGERPRINT | {"dtype": dtype}))
    export_hdf5(cache, tmp_path / "c.h5", compress=compress)
    other = import_hdf5(tmp_path / "c.h5", tmp_path / "other.zarr")
    assert cases.tree(other.path) == cases.tree(cache.path)
    assert other.verify() == []


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 6), min_size=1, unique=True))
def test_any_rows_survive_the_round_trip(whole, tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("h5")
    export_hdf5(whole, path / "c.h5", rows=rows)
    other = import_hdf5(path / "c.h5", path / "c.zarr")
    assert list(other.rows) == [whole.rows[row] for row in rows]
    assert other.done().all()
    for number, row in enumerate(rows):
        for block in whole.blocks:
            assert np.array_equal(other.features(number, block), whole.features(row, block))
        for name in ("image", "mask", "truth"):
            assert np.array_equal(getattr(other, name)(number), getattr(whole, name)(row))


def test_upsampled_export_holds_what_zarr_shows(whole, tmp_path):
    export_hdf5(whole, tmp_path / "c.h5", native=False, rows=[2, 5])
    with h5py.File(tmp_path / "c.h5") as file:
        for name in ("features/b06", "features/b08", "features/b12"):
            shown = zarr.open(whole.path, mode="r")[name]
            assert file[name].dtype == np.float16
            assert np.array_equal(file[name][:], shown.oindex[[2, 5]])
    with pytest.raises(CacheError, match="upsampled"):
        import_hdf5(tmp_path / "c.h5", tmp_path / "other.zarr")


def test_file_is_plain_datasets_and_strings(whole, tmp_path):
    """What MATLAB and ilastik can read: numbers and strings, no references, no compound types, string attributes."""
    export_hdf5(whole, tmp_path / "c.h5")
    kinds = set()
    with h5py.File(tmp_path / "c.h5") as file:

        def visit(name, node):
            if isinstance(node, h5py.Dataset):
                kinds.add("str" if h5py.check_string_dtype(node.dtype) else node.dtype.kind)

        file.visititems(visit)
        assert kinds == {"str", "f", "i", "u"}
        assert all(isinstance(value, str) for value in file.attrs.values())
        assert file["samples/id"].asstr()[:].tolist() == [row.id for row in whole.rows]
        assert file["samples/has_mask"][:].tolist() == [1, 1, 1, 1, 0, 1, 1]
        assert file["texts"].asstr()[:].tolist() == cases.TEXTS
        assert file["image"].shape == (7, 16, 16, 3)


def test_only_existing_rows_are_exported(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"), [1, 4])
    export_hdf5(cache, tmp_path / "c.h5")
    assert [row.view for row in import_hdf5(tmp_path / "c.h5", tmp_path / "o.zarr").rows] == [1, 0]
    with pytest.raises(CacheError, match="not in the cache yet"):
        export_hdf5(cache, tmp_path / "d.h5", rows=[1, 2])
    with pytest.raises(CacheError, match="no rows"):
        export_hdf5(cases.make(tmp_path / "empty.zarr"), tmp_path / "d.h5")
    assert not [p for p in tmp_path.iterdir() if "d.h5" in p.name or p.name.startswith(".")]


@pytest.mark.parametrize("content", [None, b"notes", b""], ids=["a data set", "text", "empty"])
def test_an_export_replaces_an_export_and_nothing_else(whole, tmp_path, content):
    path = tmp_path / "a.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((2, 8, 8, 3), np.uint8)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.h5: is there already, and is no export"):
        export_hdf5(whole, path)
    assert path.read_bytes() == before
    path.unlink()
    for _ in range(2):
        export_hdf5(whole, path)


def test_stopped_import_goes_on(whole, tmp_path):
    export_hdf5(whole, tmp_path / "c.h5")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_hdf5(tmp_path / "c.h5", tmp_path / "o.zarr", progress=stop)
    assert FeatureCache.open(tmp_path / "o.zarr").done().sum() == 1
    told = []
    other = import_hdf5(tmp_path / "c.h5", tmp_path / "o.zarr", progress=lambda: told.append(1))
    assert len(told) == 6
    assert cases.tree(other.path) == cases.tree(whole.path)


def test_an_import_leaves_another_cache_alone_and_names_no_option_that_it_lacks(whole, tmp_path):
    export_hdf5(whole, tmp_path / "c.h5")
    other = cases.make(tmp_path / "other.zarr", fingerprint=cases.FINGERPRINT | {"dtype": "float32"})
    before = cases.tree(other.path)
    for place in (other.path, tmp_path):
        with pytest.raises(
            CacheError, match=r"is not the cache that .*c\.h5 was written from; name a place that is free$"
        ):
            import_hdf5(tmp_path / "c.h5", place)
    assert cases.tree(other.path) == before


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), (b"text", "not an HDF5 file")])
def test_what_is_no_export_gets_one_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "c.h5").write_bytes(content)
    with pytest.raises(CacheError, match=words):
        import_hdf5(tmp_path / "c.h5", tmp_path / "o.zarr")


def test_foreign_hdf5_file_gets_one_line(tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="not an export"):
        import_hdf5(tmp_path / "c.h5", tmp_path / "o.zarr")


def test_a_flipped_bit_in_an_export_is_found_or_harmless(whole, tmp_path):
    """Wherever it is: in what is stored, or in how HDF5 finds it, which by itself it does not check."""
    export_hdf5(whole, tmp_path / "c.h5")
    sound, expected, draw, found = (tmp_path / "c.h5").read_bytes(), cases.tree(whole.path), np.random.default_rng(0), 0
    for number in range(60):
        data = bytearray(sound)
        data[draw.integers(len(data))] ^= 1 << draw.integers(8)
        (tmp_path / "flipped.h5").write_bytes(data)
        try:
            other = import_hdf5(tmp_path / "flipped.h5", tmp_path / f"{number}.zarr")
        except CacheError:
            found += 1
        else:
            assert cases.tree(other.path) == expected
    assert found > 20
