"""The loader: the right tensors in the right order, ahead of time, within its memory, and no thread left behind."""

import gc
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from textdiff.cache import CacheError, FeatureCache, Item, Loader
from textdiff.tests import cache_cases as cases

ROW_BYTES = sum(3 * C * h * w * 2 for C, h, w in cases.BLOCKS.values()) + 16 * 16 * 8


@pytest.fixture
def counted(whole, monkeypatch) -> list[int]:
    """The rows whose images were read, in the order of reading; opens the cache anew."""
    read, mask = [], FeatureCache.mask

    def count(self, row):
        read.append(row)
        return mask(self, row)

    monkeypatch.setattr(FeatureCache, "mask", count)
    return read


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "textdiff-loader" in thread.name]


def assert_is(item: Item, cache: FeatureCache, row: int) -> None:
    assert item.row == row
    assert len(item.features) == 3
    for block, level in zip((6, 8, 12), item.features, strict=True):
        grid = cache.features(row, block)
        assert level.dtype == torch.float16
        assert level.shape == (1, 3 * grid.shape[1], *grid.shape[2:])
        assert np.array_equal(level[0].numpy(), np.concatenate(list(grid)))  # step-major
    mask, text = cache.mask(row), cache.text(row)
    assert (item.mask is None) == (mask is None)
    if mask is not None:
        assert item.mask.dtype == torch.int64
        assert np.array_equal(item.mask.numpy(), mask[None])
    assert (item.tokens is None) == (item.token_mask is None) == (text is None)
    if text is not None:
        assert np.array_equal(item.tokens.numpy(), text[0][None])
        assert np.array_equal(item.token_mask.numpy(), text[1][None])


@pytest.mark.parametrize("resident", ["auto", "never"])
@pytest.mark.parametrize(("worker_threads", "prefetch"), [(1, 1), (2, 2), (4, 9)])
def test_rows_come_in_the_order_asked_for_exactly_as_stored(whole, resident, worker_threads, prefetch):
    loader = Loader(whole, "cpu", threads=worker_threads, prefetch=prefetch, resident=resident)
    for order in ([3, 0, 6, 0, 1, 2, 4, 5], [5, 5, 5], [], [6, 5, 4]):
        items = list(loader.epoch(order))
        assert [item.row for item in items] == order
        for item, row in zip(items, order, strict=True):
            assert_is(item, whole, row)
    assert not threads()


def test_rows_may_get_the_text_of_other_rows(whole):
    texts = {0: 3, 3: 5, 5: 0}
    for item in Loader(whole, "cpu").epoch([0, 3, 5], texts):
        expected = whole.text(texts[item.row])
        assert (item.tokens is None) == (expected is None)
        if expected is not None:
            assert np.array_equal(item.tokens[0].numpy(), expected[0])
        assert np.array_equal(item.features[0][0].numpy(), np.concatenate(list(whole.features(item.row, 6))))


def test_what_is_kept_of_an_item_stays_as_it_was_while_others_are_read(whole):
    """Buffers are used again, but only once nothing refers to them."""
    loader, kept = Loader(whole, "cpu", resident="never"), []
    for item in loader.epoch([0, 1, 2, 3, 5, 6] * 3):
        kept.append((item.row, item.features[1][0, 7], item.features[2].numpy()[0, 3:5]))
        del item
    for row, view, array in kept:
        assert np.array_equal(view.numpy(), whole.features(row, 8)[1, 1])
        assert np.array_equal(array, whole.features(row, 12)[0, 3:5])


def test_blocks_can_be_chosen_and_come_ascending(whole):
    (item,) = Loader(whole, "cpu", blocks=(12, 6)).epoch([2])
    assert [tuple(level.shape[1:]) for level in item.features] == [(24, 2, 2), (15, 8, 8)]


def test_rows_that_fit_the_budget_are_read_once(whole, counted):
    loader = Loader(whole, "cpu")
    for _ in range(3):
        list(loader.epoch([2, 0, 3]))
    assert sorted(counted) == [0, 2, 3]
    assert loader.resident_rows == 3


def test_rows_are_read_each_time_if_told_so(whole, counted):
    loader = Loader(whole, "cpu", resident="never")
    for _ in range(3):
        list(loader.epoch([2, 0, 3]))
    assert sorted(counted) == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    assert loader.resident_rows == 0


def test_rows_that_are_read_once_do_not_stay(whole, counted):
    loader = Loader(whole, "cpu")
    for keep, resident in ((False, 0), (True, 3), (False, 3)):
        assert [item.row for item in loader.epoch([0, 1, 2], keep=keep)] == [0, 1, 2]
        assert loader.resident_rows == resident
    assert sorted(counted) == [0, 0, 1, 1, 2, 2]


def test_resident_rows_never_exceed_the_budget(whole):
    loader = Loader(whole, "cpu", budget_bytes=int(2.5 * ROW_BYTES))
    for _ in range(2):
        list(loader.epoch([2, 0, 3, 5, 6]))
    assert loader.resident_rows == 2


def test_rows_are_read_ahead_while_the_consumer_computes_but_no_further(whole, counted):
    epoch = Loader(whole, "cpu", prefetch=2, resident="never").epoch([0, 1, 2, 3, 5, 6])
    next(epoch)
    deadline = time.monotonic() + 10
    while len(counted) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)  # if it would read further, it had the time
    assert sorted(counted) == [0, 1, 2]
    epoch.close()


def test_damage_surfaces_when_its_row_comes_and_ends_the_threads(whole, tmp_path):
    cache = FeatureCache.open(shutil.copytree(whole.path, tmp_path / "c.zarr"))
    file = cache.path / "features/b12/c.3.0.0.0.0"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    got = []
    with pytest.raises(CacheError, match=r"row 3 \(image 3, view 0\) is damaged: block 12"):
        got.extend(item.row for item in Loader(cache, "cpu", prefetch=4).epoch([0, 1, 3, 5, 6]))
    assert not threads()
    items = Loader(cache, "cpu", prefetch=4).epoch([0, 1, 3])
    assert [next(items).row, next(items).row] == [0, 1]


def test_rows_that_do_not_exist_are_refused(tmp_path):
    cache = cases.fill(cases.make(tmp_path / "c.zarr"), [0])
    with pytest.raises(CacheError, match="not in the cache yet"):
        list(Loader(cache, "cpu").epoch([0, 1]))


def fail_on_first(epoch) -> None:
    for _ in epoch:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("how", ["break", "close", "exception", "never started"])
def test_no_thread_is_left_when_the_consumer_stops_early(whole, how):
    epoch = Loader(whole, "cpu", threads=3, prefetch=3).epoch([0, 1, 2, 3, 5, 6] * 3)
    if how == "break":
        for _ in epoch:
            assert threads()
            break
        del epoch
    elif how == "close":
        next(epoch)
        epoch.close()
    elif how == "exception":
        with pytest.raises(RuntimeError, match="out of memory"):
            fail_on_first(epoch)
        del epoch
    else:
        del epoch
    gc.collect()
    assert not threads()


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    """Written and read row by row in a process of its own: 3 MB a row, 90 MB in all."""
    code = """
import resource, sys, numpy as np
from textdiff.cache import FeatureCache, Loader, Row
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
rows = [Row(f"i{i}", "train", 0, -1, "i", "a", None, 64, 64) for i in range(30)]
cache = FeatureCache.create(
    sys.argv[1], fingerprint={}, rows=rows, blocks={6: (512, 32, 32)}, steps=(1, 2, 3), image_size=32
)
loader = Loader(cache, "cpu", resident="never")
features = {6: np.ones((3, 512, 32, 32), np.float32)}
image = np.zeros((32, 32, 3), np.uint8)
def run(rows):
    for row in rows:
        cache.write(row, features, image)
    for item in loader.epoch(rows):
        item.features[0].sum()
run(range(6))
before = peak()
run(range(6, 30))
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "c.zarr"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert float(done.stdout) < 12  # MB; the rows since are 75


@pytest.mark.gpu
@pytest.mark.parametrize("resident", ["auto", "never"])
def test_rows_arrive_on_the_gpu_as_stored(whole, resident):
    loader = Loader(whole, "cuda", resident=resident)
    for _ in range(3):
        for item, row in zip(loader.epoch(range(7)), range(7), strict=True):
            tensors = [*item.features, *(t for t in (item.mask, item.tokens, item.token_mask) if t is not None)]
            assert all(tensor.is_cuda for tensor in tensors)
            host = [None if t is None else t.cpu() for t in (item.mask, item.tokens, item.token_mask)]
            assert_is(Item(row, [level.cpu() for level in item.features], *host), whole, row)
