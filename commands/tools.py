"""What the commands that look at data and caches do with their options, where that is more than one call."""

__all__ = ["cache_export", "cache_info", "data_check"]

from pathlib import Path
from typing import Any

from textdiff.cache import FeatureCache, export_hdf5
from textdiff.options.tools import CacheExport, CacheInfo, DataCheck
from textdiff.pipeline.check import Check, check_dataset
from textdiff.readers.presets import find_data, get_preset


def data_check(options: DataCheck) -> Check:
    """Reads the data set and decodes every image and mask once."""
    data = Path(options.data) if options.data else find_data(options.dataset)
    encoder = str(options.text_encoder or get_preset(options.dataset).text_encoder)
    return check_dataset(options.dataset, data, options, encoder, options.tile)


def cache_info(options: CacheInfo) -> dict[str, Any]:
    """What the cache holds and how it was made."""
    return FeatureCache.open(options.path).info()


def cache_export(options: CacheExport) -> Path:
    """Writes the HDF5 file."""
    cache, out = FeatureCache.open(options.path), Path(options.out)
    export_hdf5(cache, out, native=not options.upsampled, compress=options.compress)
    return out
