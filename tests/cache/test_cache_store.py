"""Writing and reading a cache: what it holds and what its files are."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textdiff.cache import CacheError, FeatureCache, Row, format_info, native_twin
from textdiff.cache.update import find_rows
from textdiff.tests import cache_cases as cases

NUMBER = len(cases.make_rows())


def assert_holds(cache: FeatureCache, row: int) -> None:
    written = cases.arrays(cache, row)
    for block, grid in written["features"].items():
        stored = cache.features(row, block)
        assert stored.dtype == cache.dtype
        assert np.array_equal(stored, grid.astype(cache.dtype))
    assert np.array_equal(cache.image(row), written["image"])
    for name in ("mask", "truth"):
        stored = getattr(cache, name)(row)
        assert (stored is None) == (written[name] is None)
        assert stored is None or np.array_equal(stored, written[name])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, NUMBER - 1), unique=True), dtype=st.sampled_from(["float16", "float32"]))
def test_any_rows_in_any_order_come_back_and_no_others(tmp_path_factory, order, dtype):
    path = tmp_path_factory.mktemp("rows") / "c.zarr"
    cases.fill(cases.make(path, fingerprint=cases.FINGERPRINT | {"dtype": dtype}), order)
    cache = FeatureCache.open(path)
    assert cache.dtype == dtype
    assert sorted(order) == np.flatnonzero(cache.done()).tolist()
    assert sorted({*range(NUMBER)} - {*order}) == cache.pending()
    assert cache.verify() == []
    for row in order:
        assert_holds(cache, row)
    for row in cache.pending():
        for read in (lambda row: cache.features(row, 6), cache.image, cache.mask, cache.truth):
            with pytest.raises(CacheError, match=rf"row {row} \({cache.rows[row].id}.* not in the cache yet"):
                read(row)


def test_what_was_given_comes_back_from_the_disk(whole):
    cache = FeatureCache.open(whole.path)
    assert list(cache.rows) == cases.make_rows()
    assert list(cache.texts) == cases.TEXTS
    assert cache.fingerprint == cases.FINGERPRINT
    assert list(cache.blocks.items()) == sorted(cases.BLOCKS.items())
    assert (cache.steps, cache.image_size, cache.text_dim) == (cases.STEPS, cases.SIZE, 7)
    assert cache.about == {"dataset": "tiny"}


def test_text_comes_without_masked_padding_and_needs_no_row(tmp_path):
    cache = cases.make(tmp_path / "c.zarr")
    for row, length in [(0, 2), (2, 5), (3, 3)]:
        tokens, mask = cache.text(row)
        assert np.array_equal(tokens, cases.TOKENS[cache.rows[row].text, :length])
        assert mask.dtype == bool
        assert mask.all()
        assert len(mask) == length
    assert cache.text(5) is None  # the row has no text


def test_padding_that_is_attended_to_stays(tmp_path):
    cache = cases.make(tmp_path / "c.zarr", token_mask=np.ones((3, 5), bool))
    assert cache.text(0)[0].shape == (5, 7)


def test_cache_without_embeddings_has_texts_but_no_tokens(tmp_path):
    cache = cases.make(tmp_path / "c.zarr", tokens=None, token_mask=None)
    assert cache.text_dim is None
    assert cache.text(0) is None
    assert list(cache.texts) == cases.TEXTS
    assert "text" not in zarr.open(cache.path, mode="r")


def test_other_readers_see_the_documented_arrays(whole):
    group = zarr.open(whole.path, mode="r")
    shapes = {"features/b06": (7, 3, 8, 16, 16), "features/b08": (7, 3, 6, 16, 16), "features/b12": (7, 3, 5, 16, 16)}
    shapes |= {"image": (7, 16, 16, 3), "mask": (7, 16, 16), "truth": (7, 26, 33), "ledger": (7, 16)}
    shapes |= {"text/tokens": (3, 5, 7), "text/mask": (3, 5)}
    for name, shape in shapes.items():
        assert group[name].shape == shape
    assert group["features/b08"].chunks == (1, 1, 6, 16, 16)
    assert group["features/b08"].metadata.dimension_names == ("row", "step", "channel_b08", "y", "x")
    assert np.array_equal(group["text/tokens"][...], cases.TOKENS)
    assert np.array_equal(group["image"][5], whole.image(5))
    assert np.array_equal(group["truth"][3, :17, :30], whole.truth(3)[:17, :30])
    assert (group["ledger"][...] != 0).any(axis=1).all()
    assert json.loads(group["table"][...].tobytes())["texts"] == cases.TEXTS
    assert group.attrs["fingerprint"] == cases.FINGERPRINT
    assert group.attrs["schema"] == 3


def test_files_are_byte_for_byte_what_zarr_itself_writes(copy):
    """Every array, the compressed ones too: chunks deleted, and written again by Zarr."""
    before, group = cases.tree(copy.path), zarr.open(copy.path, mode="r+")
    with zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open(copy.path, mode="r+")
        for name in ["features/b06", "features/b08", "features/b12", "image", "mask", "truth", "ledger", "table"]:
            array = native_twin(group[name]) if name.startswith("features") else group[name]
            values = {int(file.name.split(".")[1]): None for file in (copy.path / name).glob("c.*")}
            for chunk in values:
                where = slice(None) if name == "table" else chunk
                value = array[where]
                for file in (copy.path / name).glob(f"c.{chunk}" if name == "table" else f"c.{chunk}.*"):
                    file.unlink()
                array[where] = value
    assert cases.tree(copy.path) == before


def test_same_rows_give_the_same_bytes_whatever_the_order(whole, tmp_path):
    other = cases.fill(cases.make(tmp_path / "c.zarr"), reversed(range(NUMBER)))
    assert cases.tree(other.path) == cases.tree(whole.path)


def test_row_without_a_mask_stores_none(whole):
    assert whole.mask(4) is None
    assert whole.truth(4) is None
    assert whole.mask(1) is not None
    assert whole.truth(1) is None  # a turned view: its truth is the unturned one's
    assert not list((whole.path / "mask").glob("c.4.*"))


ADM = {4: (1024, 16, 16), 6: (512, 32, 32), 8: (512, 64, 64), 12: (256, 128, 128), 16: (256, 256, 256)}


def make_adm(path: Path, blocks: tuple[int, ...]) -> FeatureCache:
    rows = [Row(f"r{i}", "train", 0, -1, "r.png", "a" * 64, "b" * 64, 1000, 1000) for i in range(2)]
    shapes = {block: ADM[block] for block in blocks}
    return FeatureCache.create(path, fingerprint={}, rows=rows, blocks=shapes, steps=cases.STEPS, image_size=256)


@pytest.mark.parametrize(("blocks", "megabytes"), [((6, 8, 12, 16), 141.6), ((4, 6, 8, 12), 42.5)])
def test_row_size_of_the_full_model_is_as_designed(tmp_path, blocks, megabytes):
    assert make_adm(tmp_path / "c.zarr", blocks).row_nbytes == pytest.approx(megabytes * 1e6, rel=0.01)


def test_written_row_takes_that_much_of_the_disk(tmp_path):
    cache = make_adm(tmp_path / "c.zarr", (4, 6, 8, 12))

    def usage(attribute: str, unit: int) -> int:
        return sum(getattr(file.stat(), attribute) * unit for file in [cache.path, *cache.path.rglob("*")])

    rng = np.random.default_rng(0)
    features = {block: rng.random((3, *shape), dtype=np.float32) for block, shape in cache.blocks.items()}
    blocks, length = usage("st_blocks", 512), usage("st_size", 1)
    mask, truth = np.eye(256, dtype=np.uint8), np.kron(rng.integers(0, 2, (50, 50)), np.ones((20, 20))).astype(np.uint8)
    cache.write(0, features, rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), mask, truth)
    assert usage("st_blocks", 512) - blocks == pytest.approx(42.5e6, rel=0.01)  # as du counts
    compressed = (cache.path / "truth/c.0.0.0").stat().st_size
    files = sum(file.stat().st_size for file in cache.path.rglob("c.0.*"))
    assert files == cache.row_nbytes + compressed
    assert usage("st_size", 1) - length == pytest.approx(42.5e6, rel=0.01)


def test_all_zero_row_exists_and_is_stored(tmp_path):
    cache = cases.make(tmp_path / "c.zarr")
    zero = {"image": np.zeros((16, 16, 3), np.uint8), "mask": np.zeros((16, 16), np.uint8)}
    features = {block: np.zeros((3, *shape), np.float16) for block, shape in cache.blocks.items()}
    cache.write(0, features, truth=np.zeros((20, 33), np.uint8), **zero)
    assert cache.done()[0]
    assert not cache.features(0, 6).any()
    assert len(list(cache.path.glob("features/*/c.0.*"))) == 9


def test_forgotten_row_is_pending_and_comes_back_the_same(copy, whole):
    copy.forget([2, 5])
    assert copy.pending() == [2, 5]
    # Its chunks are still there, and are not served.
    for read in (lambda row: copy.features(row, 6), copy.image, copy.mask, copy.truth):
        with pytest.raises(CacheError, match="not in the cache yet"):
            read(2)
    cases.fill(copy)
    assert cases.tree(copy.path) == cases.tree(whole.path)


def test_info_tells_what_is_there_and_is_json(copy):
    copy.forget([6])
    info = json.loads(json.dumps(copy.info()))
    assert info["rows"] == {"done": 6, "total": 7}
    assert info["splits"] == {
        "train": {"done": 3, "total": 3},
        "val": {"done": 2, "total": 2},
        "test": {"done": 1, "total": 2},
    }
    assert info["blocks"] == {"6": [8, 2, 2], "8": [6, 4, 4], "12": [5, 8, 8]}
    assert info["bytes_on_disk"] == sum(f.stat().st_size for f in copy.path.rglob("*") if f.is_file())
    assert info["logical_bytes"] == 6 * (3 * (8 + 6 + 5) * 16 * 16 * 2 + 16 * 16 * 4)
    assert info["fingerprint"] == cases.FINGERPRINT
    assert "6 of 7" in format_info(info)


def test_table_of_ten_thousand_rows_with_reports_stays_small_and_quick(tmp_path):
    rows = [
        Row(f"image {i}", "train", 0, i, f"image {i}.png", f"{i:064x}", f"{i:064x}", 300, 300) for i in range(10000)
    ]
    texts = [f"Report {i}: " + "bilateral pulmonary infection, two infected areas. " * 40 for i in range(10000)]
    cache = FeatureCache.create(
        tmp_path / "c.zarr", fingerprint={}, rows=rows, blocks={6: (4, 2, 2)}, steps=(50,), image_size=8, texts=texts
    )
    assert list(FeatureCache.open(cache.path).rows) == rows
    assert (cache.path / "zarr.json").stat().st_size < 10_000
    assert len(cache.pending()) == 10000


@pytest.mark.parametrize("reads_text", [False, True])
def test_rows_are_found_by_what_determines_them_and_never_by_their_number(tmp_path, reads_text):
    fingerprint = cases.FINGERPRINT | ({"reads_text": True} if reads_text else {})
    old = cases.fill(cases.make(tmp_path / "old.zarr", fingerprint=fingerprint), [0, 1, 2, 3, 4, 6])
    wanted = FeatureCache.plan(
        tmp_path / "new.zarr",
        fingerprint=fingerprint,
        rows=cases.make_rows()[::-1],
        blocks=cases.BLOCKS,
        steps=cases.STEPS,
        image_size=cases.SIZE,
        texts=["other words", *cases.TEXTS[1:]],  # of rows 0 and 1
    )
    taken, made = find_rows(wanted, [old])
    assert taken == {6 - row: (old, row) for row in (6, 4, 3, 2, *(() if reads_text else (1, 0)))}
    assert made == [1, *((5, 6) if reads_text else ())]
    # A cache that is continued has its rows in their places.
    assert find_rows(old, []) == ({}, [5])
    assert find_rows(old, [], shard=(0, 2)) == ({}, [])
