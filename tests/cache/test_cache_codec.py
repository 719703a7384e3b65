"""The upsampling codec: what other Zarr readers see equals torch's interpolation, and nothing can be broken by it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from textdiff.cache import Upsample, native_twin
from textdiff.tests import cache_cases as cases


def make_array(shape, native, dtype, store=None):
    """An upsampled array (rows, steps, C, H, W) in memory."""
    return zarr.create_array(
        MemoryStore() if store is None else store,
        shape=shape,
        chunks=(1, 1, *shape[2:]),
        dtype=dtype,
        filters=[Upsample(native)],
        compressors=[Crc32cCodec()],
        fill_value=np.nan,
    )


def bilinear(native: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, C, h, w) as torch upsamples it."""
    x = torch.from_numpy(native)
    return F.interpolate(x.float(), size, mode="bilinear").to(x.dtype).numpy()


@st.composite
def arrays_and_selections(draw):
    rows, steps, C = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    h, w, H, W = (draw(st.integers(1, high)) for high in (9, 9, 24, 24))
    selection = []
    for size in (rows, steps, C, H, W):
        if draw(st.booleans()):
            selection.append(draw(st.integers(-size, size - 1)))
        else:
            start, stop = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            selection.append(slice(start, stop, draw(st.integers(1, 3))))
    return (rows, steps, C, H, W), (h, w), draw(st.sampled_from(["float16", "float32"])), tuple(selection)


@settings(max_examples=150, deadline=None)
@given(arrays_and_selections(), st.integers(0, 2**32 - 1))
def test_any_slice_equals_torch_bit_for_bit(case, seed):
    shape, native, dtype, selection = case
    array = make_array(shape, native, dtype)
    # Random bit patterns reach subnormal and the largest numbers too; the few that are not finite become zero.
    size = (*shape[:3], *native)
    grid = np.frombuffer(np.random.default_rng(seed).bytes(np.prod(size) * np.dtype(dtype).itemsize), dtype)
    grid = np.where(np.isfinite(grid), grid, 0).astype(dtype).reshape(size)
    native_twin(array)[...] = grid
    with np.errstate(over="ignore"):
        expected = np.stack([bilinear(row, shape[3:]) for row in grid])[selection]
        seen = array[selection]
    assert seen.dtype == dtype
    assert np.shape(seen) == expected.shape
    assert np.asarray(seen).tobytes() == expected.tobytes()
    assert np.array_equal(native_twin(array)[...], grid)


@pytest.mark.parametrize(("C", "native"), [(1024, 16), (512, 32), (512, 64), (256, 128)])
def test_real_block_sizes_equal_torch_bit_for_bit(C, native):
    array = make_array((1, 1, C, 256, 256), (native, native), "float16")
    grid = np.random.default_rng(C + native).standard_normal((1, 1, C, native, native), dtype=np.float32)
    native_twin(array)[...] = grid.astype(np.float16)
    assert np.array_equal(array[0], bilinear(grid[0].astype(np.float16), (256, 256)))


def test_zarr_finds_the_codec_in_a_process_that_never_imported_textdiff(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"), [2])
    int8 = cases.fill(cases.make(tmp_path / "int8.zarr", fingerprint=cases.FINGERPRINT | {"dtype": "int8"}), [2])
    code = (
        "import sys, numpy, zarr; assert not any(m.startswith('textdiff') for m in sys.modules)\n"
        "a = zarr.open(sys.argv[1])['features/b08']; assert a.shape == (7, 3, 6, 16, 16), a.shape\n"
        "numpy.save(sys.argv[2], a[2]); numpy.save(sys.argv[4], zarr.open(sys.argv[3])['features/b08'][2])"
    )
    files = (cache.path, tmp_path / "seen.npy", int8.path, tmp_path / "int8.npy")
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=tmp_path)
    assert np.array_equal(np.load(tmp_path / "seen.npy"), bilinear(cache.features(2, 8), (16, 16)))
    assert np.array_equal(np.load(tmp_path / "int8.npy"), bilinear(int8.features(2, 8), (16, 16)))


@pytest.mark.parametrize("value", [1.5, 0.0, -0.0])
@pytest.mark.parametrize("where", [np.s_[2], np.s_[2, 1, 3], np.s_[...]])
def test_writing_through_the_upsampled_view_is_refused_and_changes_nothing(tmp_path, value, where):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"), [2])
    before = cases.tree(cache.path)
    with pytest.raises(ValueError, match=r"read-only.*FeatureCache\.write"):
        zarr.open(cache.path, mode="r+")["features/b08"][where] = value
    assert cases.tree(cache.path) == before


def test_missing_chunk_reads_as_nan_not_as_zeros_by_any_reader(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"), [2])
    array = zarr.open(cache.path, mode="r")["features/b08"]
    assert np.isnan(array[3]).all()
    assert not np.isnan(array[2]).any()


def test_encoded_size_is_that_of_the_stored_chunk(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"), [2])
    array = zarr.open(cache.path, mode="r")["features/b08"]
    spec = array.metadata.get_chunk_spec(
        (0,) * 5, array.async_array.config, zarr.core.buffer.default_buffer_prototype()
    )
    pipeline = array.async_array.codec_pipeline
    stored = (cache.path / "features/b08/c.2.0.0.0.0").stat().st_size
    assert pipeline.compute_encoded_size(6 * 16 * 16 * 2, spec) == stored == 6 * 4 * 4 * 2 + 4


def test_configuration_survives_the_metadata_and_a_reopening():
    store = MemoryStore()
    array = make_array((1, 1, 2, 8, 12), (2, 3), "float16", store)
    assert array.metadata.to_dict()["codecs"][0] == {
        "name": "textdiff.upsample",
        "configuration": {"native": [2, 3], "mode": "bilinear"},
    }
    assert zarr.open_array(store).metadata.codecs[0] == Upsample((2, 3))


@pytest.mark.parametrize(
    "configuration",
    [
        None,
        {},
        {"native": [2, 3]},
        {"native": [2, 3], "mode": "nearest"},
        {"native": [2], "mode": "bilinear"},
        {"native": [0, 3], "mode": "bilinear"},
        {"native": [2, 3], "mode": "bilinear", "align_corners": True},
    ],
)
def test_unknown_configuration_is_refused(configuration):
    with pytest.raises(ValueError, match=r"textdiff\.upsample"):
        Upsample.from_dict({"name": "textdiff.upsample", "configuration": configuration})


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype"),
    [
        ((1, 1, 2, 8, 8), (1, 1, 2, 4, 8), "float16"),
        ((1, 1, 2, 8, 8), (1, 1, 2, 8, 8), "int16"),
        ((8, 8), (8, 8), "f4"),
    ],
)
def test_arrays_it_cannot_stand_for_are_refused(shape, chunks, dtype):
    with pytest.raises(ValueError, match=r"textdiff\.upsample"):
        zarr.create_array(MemoryStore(), shape=shape, chunks=chunks, dtype=dtype, filters=[Upsample((2, 2))])


def test_native_twin_needs_the_codec():
    with pytest.raises(ValueError, match="no native grid"):
        native_twin(zarr.create_array(MemoryStore(), shape=(4,), dtype="f4"))
