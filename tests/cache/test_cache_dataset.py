"""A cache as a data set of PyTorch."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader

import textdiff
from textdiff.tests import experiment_cases as cases


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> textdiff.FeatureCache:
    return cases.make_cache(tmp_path_factory.mktemp("cache") / "tiny.zarr")


def test_an_item_is_what_the_cache_holds(cache):
    rows = textdiff.CacheDataset(cache, "test")
    assert [rows[index]["id"] for index in range(len(rows))] == [f"test {number}" for number in range(4)]
    item = rows[2]
    entry = cache.rows[item["row"]]
    assert (item["id"], item["split"], item["view"]) == (entry.id, entry.split, entry.view) == ("test 2", "test", 0)
    for block in cache.blocks:
        assert (item["features"][block].numpy() == cache.features(item["row"], block)).all()
    assert (item["image"].numpy() == cache.image(item["row"]).transpose(2, 0, 1)).all()
    assert (item["mask"].numpy() == cache.mask(item["row"])).all()
    assert item["mask"].dtype == torch.int64
    assert item["text"] == cache.texts[entry.text]
    tokens, mask = cache.embedding(entry.text)
    assert (item["tokens"].numpy() == tokens).all()
    assert (item["token_mask"].numpy() == mask).all()


def test_upsampled_activations_are_those_that_any_zarr_reader_sees(cache):
    rows = textdiff.CacheDataset(cache.path, "val", blocks=[8], upsampled=True)
    item = rows[0]
    assert list(item["features"]) == [8]
    seen = zarr.open(cache.path)["features/b08"][item["row"]]
    assert (item["features"][8].numpy() == seen).all()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_batches_of_what_the_parent_reads(cache, context):
    rows = textdiff.CacheDataset(cache, "train")
    assert len(pickle.dumps(rows)) < 10_000
    batches = list(DataLoader(rows, batch_size=2, num_workers=2, multiprocessing_context=context))
    assert [len(batch["text"]) for batch in batches] == [2, 2, 1]
    assert [name for batch in batches for name in batch["id"]] == [f"train {number}" for number in range(5)]
    for index in range(len(rows)):
        batch, place = batches[index // 2], index % 2
        for name in ("image", "mask", "tokens", "token_mask"):
            assert torch.equal(batch[name][place], rows[index][name]), name
        for block, grid in rows[index]["features"].items():
            assert torch.equal(batch["features"][block][place], grid)


def _without_mask(path: Path) -> textdiff.FeatureCache:
    rows = [textdiff.cache.Row("a", "train", 0, -1, "a.png", "0" * 64, None, 8, 8)]
    cache = textdiff.FeatureCache.create(
        path, fingerprint={"made": "up"}, rows=rows, blocks={6: (2, 4, 4)}, steps=(50,), image_size=8
    )
    cache.write(0, {6: np.ones((1, 2, 4, 4))}, np.zeros((8, 8, 3), np.uint8))
    return cache


def test_images_without_a_mask_are_left_out_unless_they_are_asked_for(tmp_path):
    cache = _without_mask(tmp_path / "c.zarr")
    with pytest.raises(textdiff.UserError, match="has no train image with a mask"):
        textdiff.CacheDataset(cache, "train")
    (item,) = textdiff.CacheDataset(cache, "train", annotated=False)
    assert item["text"] == ""
    assert not {"mask", "tokens"} & set(item)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [7]}, "holds no block 7; its blocks are 6, 8"),
        ({"split": "tset"}, r"split tset: must be .* \(did you mean test\?\)"),
    ],
)
def test_what_is_not_there_is_one_clear_error(cache, options, message):
    with pytest.raises(textdiff.UserError, match=message):
        textdiff.CacheDataset(cache, **options)


def test_rows_that_are_not_made_yet_are_told(tmp_path):
    cache = cases.make_cache(tmp_path / "c.zarr")
    textdiff.FeatureCache.open(cache.path, writable=True).forget([0])
    with pytest.raises(textdiff.UserError, match="1 row is not made yet"):
        textdiff.CacheDataset(cache.path)
    assert len(textdiff.CacheDataset(cache.path, "test")) == 4
