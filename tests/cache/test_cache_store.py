"""Creating, opening, writing and reading a cache: what it holds, what it refuses, what its files are."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textdiff.cache import CacheError, FeatureCache, Row, format_info, native_twin
from textdiff.cache.update import find_rows
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases

NUMBER = len(cases.make_rows())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> FeatureCache:
    """A complete cache that no test changes."""
    return cases.fill(cases.make(tmp_path_factory.mktemp("whole") / "c.zarr"))


@pytest.fixture
def copy(whole, tmp_path) -> FeatureCache:
    return FeatureCache.open(shutil.copytree(whole.path, tmp_path / "copy.zarr"), writable=True)


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


def test_all_zero_row_exists_and_is_stored(tmp_path):
    cache = cases.make(tmp_path / "c.zarr")
    zero = {"image": np.zeros((16, 16, 3), np.uint8), "mask": np.zeros((16, 16), np.uint8)}
    features = {block: np.zeros((3, *shape), np.float16) for block, shape in cache.blocks.items()}
    cache.write(0, features, truth=np.zeros((20, 33), np.uint8), **zero)
    assert cache.done()[0]
    assert not cache.features(0, 6).any()
    assert len(list(cache.path.glob("features/*/c.0.*"))) == 9


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


def test_forgotten_row_is_pending_and_comes_back_the_same(copy, whole):
    copy.forget([2, 5])
    assert copy.pending() == [2, 5]
    # Its chunks are still there, and are not served.
    for read in (lambda row: copy.features(row, 6), copy.image, copy.mask, copy.truth):
        with pytest.raises(CacheError, match="not in the cache yet"):
            read(2)
    cases.fill(copy)
    assert cases.tree(copy.path) == cases.tree(whole.path)


@pytest.mark.parametrize(
    ("fingerprint", "rows", "words"),
    [
        ({"unet": {"heads": 8}}, None, ["unet.heads: 4 in the cache, 8 asked for"]),
        ({"blocks": [4, 6], "seed": 3}, None, ["blocks: [6, 8, 12] in the cache, [4, 6] asked", "seed: nothing in"]),
        ({"weights": "cd" * 32}, None, ["weights: ", "abab", "cdcd"]),
        ({}, lambda rows: rows[:-1], ["image 6, view 0: only in the cache"]),
        ({}, lambda rows: [*rows, replace(rows[0], view=7)], ["image 0, view 7: not in the cache"]),
        ({}, lambda rows: [*rows[:-1], replace(rows[-1], image_sha256="ef")], ["image 6, view 0: image_sha256"]),
        ({}, lambda rows: rows[::-1], ["another order"]),
    ],
)
def test_other_fingerprint_is_refused_with_what_differs(whole, fingerprint, rows, words):
    given_rows = (rows or list)(cases.make_rows())
    with pytest.raises(UserError) as error:
        whole.check_fingerprint(cases.FINGERPRINT | fingerprint, given_rows)
    message = str(error.value)
    assert all(word in message for word in [*words, str(whole.path), "--overwrite", "--cache"])
    assert "\n" not in message
    assert len(message) < 1000


def test_same_fingerprint_passes_whatever_the_order_of_its_fields(whole, tmp_path):
    shuffled = dict(reversed(cases.FINGERPRINT.items())) | {"blocks": (6, 8, 12)}
    whole.check_fingerprint(shuffled, cases.make_rows(), cases.TEXTS)
    other = cases.make(tmp_path / "c.zarr", fingerprint=shuffled)
    assert other.fingerprint_hash == whole.fingerprint_hash
    assert (other.path / "zarr.json").read_bytes() == (whole.path / "zarr.json").read_bytes()


def test_fingerprint_hash_is_the_sha256_of_the_canonical_json(whole):
    canonical = json.dumps(cases.FINGERPRINT, sort_keys=True, separators=(",", ":"))
    assert whole.fingerprint_hash == hashlib.sha256(canonical.encode()).hexdigest()


def test_changed_text_is_refused(whole):
    with pytest.raises(CacheError, match="text"):
        cases.make(whole.path, texts=["another", *cases.TEXTS[1:]])


def test_create_on_a_cache_continues_it(copy):
    before = cases.tree(copy.path)
    copy.forget([1])
    cases.fill(cases.make(copy.path))
    assert cases.tree(copy.path) == before


def test_create_with_another_fingerprint_refuses_and_overwrite_replaces(copy):
    other = {"fingerprint": cases.FINGERPRINT | {"size": 5}}
    with pytest.raises(CacheError, match="size: 16 in the cache, 5 asked for"):
        cases.make(copy.path, **other)
    assert copy.done().all()
    cache = cases.make(copy.path, **other, overwrite=True)
    assert not cache.done().any()
    assert cache.fingerprint["size"] == 5
    assert [p.name for p in copy.path.parent.iterdir()] == ["copy.zarr"]


@pytest.mark.parametrize("content", ["notes.txt", "zarr.json"])
def test_overwrite_never_deletes_what_is_not_a_cache(tmp_path, content):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / content).write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    for overwrite in (False, True):
        with pytest.raises(CacheError, match=r"not .*a TextDiff cache"):
            cases.make(tmp_path / "thesis", overwrite=overwrite)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == [content]


def test_create_takes_an_empty_directory_and_follows_a_link(tmp_path):
    (tmp_path / "disk/empty").mkdir(parents=True)
    (tmp_path / "link.zarr").symlink_to(tmp_path / "disk/empty")
    cases.fill(cases.make(tmp_path / "link.zarr"))
    assert FeatureCache.open(tmp_path / "disk/empty").done().all()
    cases.make(tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()


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


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def test_file_in_the_place_of_a_cache_gets_one_line(tmp_path):
    (tmp_path / "c.zarr").write_text("x")
    with pytest.raises(CacheError, match="not a TextDiff cache"):
        FeatureCache.open(tmp_path / "c.zarr")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"rows": cases.make_rows() * 2},
        {"texts": []},
        {"tokens": cases.TOKENS[:2]},
        {"token_mask": None},
        {"token_mask": np.zeros((3, 5), bool)},
        {"tokens": cases.TOKENS * np.inf},
        {"blocks": {}},
        {"steps": ()},
        {"fingerprint": {"dtype": "bfloat16"}},
    ],
)
def test_contradictory_arguments_make_no_cache(tmp_path, change):
    with pytest.raises(ValueError, match=r"\w"):
        cases.make(tmp_path / "c.zarr", **change)
    assert not list(tmp_path.iterdir())


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
