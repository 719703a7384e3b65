"""The cache of many small images, which workers make together, and how they are started."""

import os
import subprocess
import time

from textdiff.cache import FeatureCache
from textdiff.tests.file_tools import files

OPTIONS = {"preset": "rgb", "views": 1, "text_encoder": "none", "image_size": 32}


def rows(cache):
    return len([*cache.glob("ledger/c*")])


def check(place, cache):
    """Every row of the cache is there and sound, and nothing tells that many made it."""
    assert FeatureCache.open(cache).verify() == []
    made, expected = files(cache), files(place / "one.zarr")
    assert sorted(made) == sorted(expected)
    assert [name for name, data in expected.items() if made[name] != data] == []


def of_array(**values):
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def start(words, log, **environment):
    with log.open("a") as file:
        return subprocess.Popen(words, stderr=file, stdout=file, env=os.environ | environment, process_group=0)


def wait_for(what, seconds=240.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
