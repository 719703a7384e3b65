"""The commands that look at data, caches and the machine."""

__all__ = ["cache_export", "cache_import", "cache_info", "cache_verify", "data_check", "doctor", "download"]

import json
from pathlib import Path

import typer

from textdiff.options.tools import CacheExport, CacheImport, CacheInfo, CacheVerify, DataCheck, Doctor, Download


def data_check(options: DataCheck, as_json: bool) -> None:
    """``textdiff data check``"""
    from textdiff.pipeline.check import check_dataset
    from textdiff.pipeline.locations import find_data
    from textdiff.pipeline.presets import get_preset

    data = Path(options.data) if options.data else find_data(options.dataset)
    encoder = str(options.text_encoder or get_preset(options.dataset).text_encoder)
    check = check_dataset(options.dataset, data, options, encoder, options.tile)
    print(json.dumps(check.as_json(), indent=2, ensure_ascii=False) if as_json else check.table())
    if not check.sound:
        raise typer.Exit(1)


def cache_info(options: CacheInfo, as_json: bool) -> None:
    """``textdiff cache info``"""
    from textdiff.cache import FeatureCache, format_info

    info = FeatureCache.open(options.path).info()
    print(json.dumps(info, indent=2) if as_json else format_info(info))


def cache_verify(options: CacheVerify, as_json: bool) -> None:
    """``textdiff cache verify``"""
    from textdiff.cache import verify_cache

    faults = verify_cache(Path(options.path), drop=options.drop)
    if as_json:
        print(json.dumps([fault._asdict() for fault in faults], indent=2))
    else:
        for fault in faults:
            print(fault)
    if faults:
        raise typer.Exit(1)


def cache_export(options: CacheExport) -> None:
    """``textdiff cache export``"""
    from textdiff.cache import FeatureCache, export_hdf5

    export_hdf5(FeatureCache.open(options.path), options.out, native=not options.upsampled, compress=options.compress)
    print(options.out)


def cache_import(options: CacheImport) -> None:
    """``textdiff cache import``"""
    from textdiff.cache import import_hdf5

    import_hdf5(options.path, options.out)
    print(options.out)


def doctor(options: Doctor, as_json: bool) -> None:
    """``textdiff doctor``"""
    from textdiff.pipeline.doctor import diagnose

    checks = diagnose(Path(options.cache_dir))
    if as_json:
        print(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        for check in checks:
            print(check)
    if any(check.status == "FAIL" for check in checks):
        raise typer.Exit(1)


def download(options: Download) -> None:
    """``textdiff download``"""
    from textdiff.pipeline.downloads.fetch import fetch

    print(fetch(options.name, Path(options.to) if options.to else None, options.url))
