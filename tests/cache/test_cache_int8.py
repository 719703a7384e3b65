"""Caches in 8 bits: how far a value is from what was given, and that scales have every guarantee that values have."""

import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from textdiff.cache import CacheError, FeatureCache, Loader, export_hdf5, native_twin
from textdiff.cache.int8 import Int8, pack, rounded, unpack
from textdiff.tests import cache_cases as cases

FINGERPRINT = cases.FINGERPRINT | {"dtype": "int8"}
# Of the quotient and of the product, at numbers up to 127 in units of a scale.
ROUNDING = 127 * 2.0**-23


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> FeatureCache:
    """A complete cache that no test changes."""
    return cases.fill(cases.make(tmp_path_factory.mktemp("whole") / "c.zarr", fingerprint=FINGERPRINT))


def dequantised(grid: np.ndarray) -> np.ndarray:
    """By the definition, in double precision: whole numbers of a scale for each channel (..., C, h, w)."""
    scale = (np.abs(grid).max((-2, -1), keepdims=True) / np.float32(127)).astype(np.float32).astype(np.float64)
    return np.rint(grid / np.where(scale, scale, 1)) * scale


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(["float16", "float32"]),
    magnitudes=st.sampled_from([(-45, 38), (-8, 4), (0, 0)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_value_moves_by_more_than_half_a_scale(shape, dtype, magnitudes, seed):
    """Whatever the magnitudes, which differ between channels; where they are all zero, exactly zero comes back."""
    rng = np.random.default_rng(seed)
    size = (*shape[:2], 1, 1)
    with np.errstate(over="ignore", under="ignore"):
        x = rng.uniform(-1, 1, shape) * 10.0 ** rng.integers(magnitudes[0], magnitudes[1], size, endpoint=True)
        x = (x * (rng.random(size) < 0.8)).astype(dtype)
    x = np.where(np.isfinite(x), x, 0).astype(dtype)
    packed = pack(torch.from_numpy(x))
    assert packed.shape == (*shape[:2], 4 + shape[2] * shape[3])
    scale = packed.numpy()[..., :4].copy().view("<f4")[..., None].astype(np.float64)
    got = unpack(packed, *shape[2:]).numpy().astype(np.float64)
    assert (np.abs(x - got) <= scale * (0.5 + ROUNDING) + 2.0**-149).all()
    zero = np.abs(x).max((-2, -1)) == 0
    assert not got[zero].any()
    assert ((scale[..., 0, 0] == 0) == zero).all()
    assert (np.abs(packed.numpy()[..., 4:].astype(int)).max(-1) <= 127).all()


def test_rows_come_back_as_defined_and_take_half_of_float16(whole, tmp_path):
    assert (whole.dtype, whole.layout.dtype, whole.info()["dtype"]) == (np.float32, "int8", "int8")
    assert whole.verify() == []
    for row in range(7):
        for block, grid in cases.arrays(whole, row)["features"].items():
            got = whole.features(row, block)
            assert np.allclose(got, dequantised(grid), rtol=1e-6, atol=0)
            assert np.array_equal(got, rounded(torch.from_numpy(grid), "int8").numpy())
            out = np.empty_like(got[:1])
            assert np.array_equal(whole.features(row, block, out, [250]), got[2:])
    files = sum(file.stat().st_size for file in whole.path.glob("*/c.1.*"))
    files += sum(file.stat().st_size for file in whole.path.glob("features/*/c.1.*"))
    assert files == whole.row_nbytes
    shapes = {block: (512 >> block // 8, 16 << block // 8, 16 << block // 8) for block in (0, 8, 16)}
    sizes = [
        cases.make(tmp_path / dtype, blocks=shapes, fingerprint={"dtype": dtype}).layout
        for dtype in ("int8", "float16")
    ]
    ratio = [sum(layout.block_nbytes(block) for block in shapes) for layout in sizes]
    assert 0.5 < ratio[0] / ratio[1] < 0.505


def test_other_zarr_readers_see_floats_and_without_the_codecs_what_they_are_made_of(whole, tmp_path):
    grid, array = whole.features(2, 8), zarr.open(whole.path, mode="r")["features/b08"]
    assert np.array_equal(array[2], F.interpolate(torch.from_numpy(grid), (16, 16), mode="bilinear").numpy())
    assert np.array_equal(native_twin(array)[2], grid)
    # As docs/cache.md tells it: the array's metadata without our two codecs, read by Zarr's own.
    store = tmp_path / "plain.zarr"
    store.mkdir()
    metadata = json.loads((whole.path / "features/b08/zarr.json").read_text())
    C, (h, w) = 6, metadata["codecs"][0]["configuration"]["native"]
    metadata["codecs"] = [codec for codec in metadata["codecs"] if not codec["name"].startswith("textdiff.")]
    metadata |= {"data_type": "int8", "fill_value": 0, "shape": [7, 3, C, 4 + h * w], "dimension_names": None}
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, C, 4 + h * w]
    (store / "zarr.json").write_text(json.dumps(metadata))
    for step in range(3):
        os.link(whole.path / f"features/b08/c.2.{step}.0.0.0", store / f"c.2.{step}.0.0")
    packed = zarr.open(store, mode="r")[2]
    scale, numbers = packed[..., :4].copy().view("<f4"), packed[..., 4:]
    assert np.array_equal((scale * numbers).reshape(3, C, h, w), grid)


def test_native_grids_written_through_zarr_are_the_same_bytes(whole, tmp_path):
    other = cases.make(tmp_path / "c.zarr", fingerprint=FINGERPRINT)
    native_twin(zarr.open(other.path, mode="r+")["features/b12"])[3] = cases.arrays(other, 3)["features"][12]
    for step in range(3):
        name = f"features/b12/c.3.{step}.0.0.0"
        assert (other.path / name).read_bytes() == (whole.path / name).read_bytes()
    with pytest.raises(ValueError, match="NaN or infinity"):
        native_twin(zarr.open(other.path, mode="r+")["features/b12"])[3] = np.nan


def test_a_changed_scale_is_found_even_where_its_checksum_was_mended(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr", fingerprint=FINGERPRINT), [2, 3])
    chunk, other = (cache.path / f"features/b08/c.{row}.1.0.0.0" for row in (2, 3))
    good = chunk.read_bytes()
    chunk.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    assert [(fault.row, fault.what) for fault in cache.verify()] == [(2, "step 150: the checksum does not match")]
    with pytest.raises(CacheError, match="block 8 at step 150: the checksum does not match"):
        FeatureCache.open(cache.path).features(2, 8)
    chunk.write_bytes(other.read_bytes())
    assert [fault.array for fault in cache.verify()] == ["ledger"]


def test_the_export_holds_numbers_and_scales(whole, tmp_path):
    export_hdf5(whole, tmp_path / "c.h5", rows=[2, 5])
    export_hdf5(whole, tmp_path / "u.h5", rows=[2, 5], native=False)
    with h5py.File(tmp_path / "c.h5") as file, h5py.File(tmp_path / "u.h5") as upsampled:
        assert (file["features/b08"].dtype, file["scales/b08"].shape) == (np.int8, (2, 3, 6))
        product = file["features/b08"][1] * file["scales/b08"][1][..., None, None]
        assert np.array_equal(product, whole.features(5, 8))
        assert "scales" not in upsampled
        assert np.array_equal(upsampled["features/b08"][0], zarr.open(whole.path, mode="r")["features/b08"][2])


def test_the_loader_gives_floats_and_keeps_bytes(whole):
    row_bytes = sum(whole.layout.stored(b)[0][0] * whole.layout.stored(b)[0][1] * 3 for b in whole.blocks) + 16 * 16 * 8
    texts = 3 * 5 * 7 * 4 * 3
    loader = Loader(whole, "cpu", budget_bytes=5 * row_bytes + texts, threads=1)
    for _ in range(2):
        for item in loader.epoch([0, 1, 2, 3, 5]):
            for block, level in zip((6, 8, 12), item.features, strict=True):
                assert level.dtype == torch.float32
                assert np.array_equal(level[0].numpy(), np.concatenate(list(whole.features(item.row, block))))
    assert loader.resident_rows == 5
    narrow = loader.narrowed(item, 5, [8], [150])
    assert np.array_equal(narrow.features[0][0].numpy(), whole.features(5, 8, None, [150])[0])


def test_taking_over_keeps_the_very_bytes(whole, tmp_path):
    cache = cases.make(tmp_path / "c.zarr", fingerprint=FINGERPRINT)
    rest = {name: value for name, value in cases.arrays(cache, 2).items() if name != "features"}
    cache.take_over(2, whole, 2, **rest)
    assert np.array_equal(cache.stored(2, 8), whole.stored(2, 8))
    assert cache.verify() == []


def test_sizes_in_the_documentation_are_those_of_the_layout(tmp_path):
    page = (Path(__file__).parents[2] / "docs/cache.md").read_text()
    lines = re.findall(
        r"^\| [\w-]+ \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE
    )
    assert len(lines) == 6
    shapes = {4: (1024, 16), 6: (512, 32), 8: (512, 64), 12: (256, 128), 16: (256, 256)}
    for blocks, steps, *megabytes in lines:
        sizes = {int(b): (shapes[int(b)][0], *[shapes[int(b)][1]] * 2) for b in blocks.split(",")}
        for dtype, told in zip(("float32", "float16", "int8"), megabytes, strict=True):
            times = [int(step) for step in steps.split(",")]
            cache = FeatureCache.plan(
                tmp_path, fingerprint={"dtype": dtype}, rows=cases.make_rows(), texts=cases.TEXTS, blocks=sizes,
                steps=times, image_size=256,
            )  # fmt: skip
            assert f"{cache.row_nbytes / 1e6:.1f}" == told


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4, 4), "float16"), ((4, 4), "float32")])
def test_arrays_it_cannot_stand_for_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"textdiff\.int8"):
        zarr.create_array(MemoryStore(), shape=shape, chunks=shape, dtype=dtype, filters=[Int8()])
    with pytest.raises(ValueError, match=r"textdiff\.int8"):
        Int8.from_dict({"name": "textdiff.int8", "configuration": {"scale": "float16"}})
