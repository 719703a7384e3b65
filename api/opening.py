"""Caches and runs as they are given: opened, or where they are."""

__all__ = ["AnyPath", "cache_path", "open_cache", "open_run"]

from os import PathLike
from pathlib import Path

from textdiff.cache import FeatureCache
from textdiff.pipeline.runs import Run, find_run

AnyPath = str | PathLike[str]


def open_cache(path: AnyPath) -> FeatureCache:
    """Opens a feature cache for reading.

    Raises:
        UserError: nothing there, no TextDiff cache, or a damaged one.
    """
    return FeatureCache.open(path)


def open_run(run: Run | AnyPath | None = None, *, runs: AnyPath = "runs") -> Run:
    """The run in directory ``run``; the latest one in ``runs`` by default; a ``Run`` is given back as it is.

    Raises:
        UserError: there is none.
    """
    if isinstance(run, Run):
        return run
    return find_run(None if run is None else Path(run), Path(runs))


def cache_path(cache: FeatureCache | AnyPath) -> Path:
    """Where a cache is."""
    return cache.path if isinstance(cache, FeatureCache) else Path(cache)
