"""What the commands that look at data, caches and the machine do with their options."""

__all__ = [
    "cache_export",
    "cache_gc",
    "cache_import",
    "cache_info",
    "cache_repair",
    "cache_verify",
    "data_check",
    "demo",
    "doctor",
]

from pathlib import Path
from typing import Any

from textdiff.cache import Fault, FeatureCache, export_hdf5, import_hdf5, verify_cache
from textdiff.cache.gc import Leftover, collect
from textdiff.cache.repair import repair_cache
from textdiff.options.tools import (
    CacheExport,
    CacheGc,
    CacheImport,
    CacheInfo,
    CacheRepair,
    CacheVerify,
    DataCheck,
    Demo,
    Doctor,
)
from textdiff.pipeline import demo as phantom_demo
from textdiff.pipeline.check import Check, check_dataset
from textdiff.pipeline.doctor import Check as MachineCheck
from textdiff.pipeline.doctor import diagnose
from textdiff.places import Location, located
from textdiff.readers.locations import find_data
from textdiff.readers.presets import get_preset


def data_check(options: DataCheck) -> Check:
    """Reads the data set and decodes every image and mask once."""
    data = Path(options.data) if options.data else find_data(options.dataset)
    encoder = str(options.text_encoder or get_preset(options.dataset).text_encoder)
    return check_dataset(options.dataset, data, options, encoder, options.tile)


def cache_info(options: CacheInfo) -> dict[str, Any]:
    """What the cache holds and how it was made."""
    return FeatureCache.open(options.path).info()


def cache_verify(options: CacheVerify) -> list[Fault]:
    """Everything in the cache that is not as it was written."""
    return verify_cache(options.path)


def cache_repair(options: CacheRepair) -> list[Fault]:
    """Puts right what is wrong with the cache, and tells what it was."""
    return repair_cache(options.path)


def cache_gc(options: CacheGc) -> list[Leftover]:
    """Finds what nothing vouches for."""
    return collect(options.path, options.delete)


def cache_export(options: CacheExport) -> Path:
    """Writes the HDF5 file."""
    cache, out = FeatureCache.open(options.path), Path(options.out)
    export_hdf5(cache, out, native=not options.upsampled, compress=options.compress)
    return out


def cache_import(options: CacheImport) -> Location:
    """Makes the cache."""
    return located(import_hdf5(options.path, options.out))


def doctor(options: Doctor) -> list[MachineCheck]:
    """Examines the machine."""
    return diagnose(Path(options.cache_dir))


def demo(options: Demo) -> phantom_demo.Demo:
    """Extracts, fits and scores the phantom."""
    return phantom_demo.demo(Path(options.out), options.device)
