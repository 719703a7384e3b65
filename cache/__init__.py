"""The feature cache: decoder activations on disk, exact, checked, and quick to read.

    from textdiff.cache import FeatureCache, Loader

    cache = FeatureCache.open("cache/monuseg.zarr")
    grids = cache.features(row=0, block=8)  # (steps, C, h, w) float16, the native grid
    for item in Loader(cache, "cuda").epoch([0, 1, 2]): ...

    zarr.open("cache/monuseg.zarr")["features/b08"]  # (rows, steps, C, H, W), upsampled; needs no import of textdiff

The modules: ``rows`` (what determines a row), ``layout`` (what is stored where), ``codec`` (upsampling on reading),
``int8`` (8 bits a value), ``chunks`` (files), ``ledger`` (which rows exist, and whether their chunks are theirs),
``create``, ``writer``, ``update`` (from the cache that is there to the one that is wanted), ``repair``, ``staging``
(what is not finished, and locks), ``stores`` (where the bytes are: on a disk, or in an object store), ``reader``,
``feature_cache``, ``verify``, ``loader``, ``hdf5``. What guards a cache is told in docs/cache.md and docs/cloud.md.
This package knows arrays, not models.
"""

__all__ = [
    "CacheError",
    "Fault",
    "FeatureCache",
    "Item",
    "Loader",
    "Row",
    "Upsample",
    "export_hdf5",
    "format_info",
    "import_hdf5",
    "native_twin",
    "verify_cache",
]

from textdiff.cache.codec import Upsample, native_twin
from textdiff.cache.feature_cache import FeatureCache
from textdiff.cache.hdf5 import export_hdf5, import_hdf5
from textdiff.cache.info import format_info
from textdiff.cache.loader import Item, Loader
from textdiff.cache.rows import CacheError, Row
from textdiff.cache.verify import Fault, verify_cache
