"""A cache knows the options that made it, and is gone on with and updated by them."""

import shutil

import pytest

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.tests.file_tools import files
from textdiff.tests.lab_cases import new_image

MADE = {"views": 8, "test_views": 8, "jitter": "he", "steps": (0, 50), "tile": 32, "overlap": 0, "seed": 3}


@pytest.mark.parametrize("named", [{}, {"dataset": "folder"}])
def test_the_options_that_made_a_cache_are_those_it_is_updated_with(lab, forwards, named):
    lab.extract(overwrite=True, **MADE)
    new_image(lab)
    if named:
        named["data"] = lab.data
    cache = textdiff.extract(cache=lab.cache, update=True, **named)
    assert cache.pending() == []
    assert "aa" in {row.id for row in cache.rows}
    assert files(lab.cache) == lab.scratch(**MADE)


def test_a_cache_alone_says_how_it_is_to_be_finished(lab, forwards):
    lab.extract(overwrite=True, shard=(0, 2), **MADE)
    assert FeatureCache.open(lab.cache).pending()
    textdiff.extract(cache=lab.cache)
    assert files(lab.cache) == lab.scratch(**MADE)


def test_a_cache_is_gone_on_with_from_any_directory(lab, forwards, tmp_path, monkeypatch):
    monkeypatch.chdir(lab.root)
    textdiff.extract("folder", data="data", cache="own.zarr", preset="rgb", text_encoder="none", image_size=32)
    new_image(lab)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(lab.data, elsewhere / "data")
    (elsewhere / "data/images/b.png").unlink()
    monkeypatch.chdir(elsewhere)
    cache = textdiff.extract(cache=lab.root / "own.zarr", update=True)
    assert {"aa", "b"} <= {row.id for row in cache.rows}


def test_an_option_that_is_given_comes_before_that_of_the_cache(lab):
    lab.extract(overwrite=True, views=8)
    assert len(textdiff.extract(cache=lab.cache, views=1, update=True).rows) == 6
    with pytest.raises(UserError, match="steps: "):
        textdiff.extract(cache=lab.cache, steps=(250,), update=True)
