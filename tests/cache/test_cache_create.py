"""Creating a cache, and opening one for what it was made for: gone on with, replaced or refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from textdiff.cache import CacheError, FeatureCache
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases


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
        cases.make(whole.path, fingerprint=cases.FINGERPRINT | fingerprint, rows=given_rows)
    message = str(error.value)
    assert all(word in message for word in [*words, str(whole.path), "--overwrite", "--cache"])
    assert "\n" not in message
    assert len(message) < 1000


def test_same_fingerprint_passes_whatever_the_order_of_its_fields(whole, tmp_path):
    shuffled = dict(reversed(cases.FINGERPRINT.items())) | {"blocks": (6, 8, 12)}
    whole.check_fingerprint(shuffled)
    assert whole.differing_table(cases.make_rows(), cases.TEXTS) == []
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


@pytest.mark.parametrize("change", [{"text": cases.TEXTS}, {"blocks": None}], ids=["misspelt", "missing"])
def test_fields_that_are_misspelt_or_missing_make_no_cache(tmp_path, change):
    plan = {"fingerprint": {}, "rows": cases.make_rows(), "steps": cases.STEPS, "image_size": cases.SIZE}
    plan |= {"texts": cases.TEXTS, "blocks": cases.BLOCKS} | change
    given = {name: value for name, value in plan.items() if value is not None}
    with pytest.raises(TypeError, match=f"{next(iter(change))}.*see CachePlan"):
        FeatureCache.create(tmp_path / "c.zarr", **given)
    assert not list(tmp_path.iterdir())
