"""``textdiff cache info | verify | export | import``"""

__all__ = ["cache_export", "cache_import", "cache_info", "cache_verify"]

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from textdiff.commands.options import AsJson


def cache_info(path: Annotated[Path, typer.Argument(help="The cache.")], as_json: AsJson = False) -> None:
    """What a cache holds and how it was made."""
    from textdiff.cache import FeatureCache, format_info

    info: dict[str, Any] = FeatureCache.open(path).info()
    print(json.dumps(info, indent=2) if as_json else format_info(info))


def cache_export(
    path: Annotated[Path, typer.Argument(help="The cache.")],
    out: Annotated[Path, typer.Argument(help="The HDF5 file to write.")],
    upsampled: Annotated[bool, typer.Option("--upsampled", help="Activations at the image's size.")] = False,
    compress: Annotated[bool, typer.Option("--compress", help="Compress with gzip.")] = False,
) -> None:
    """Write a cache as one HDF5 file, for ilastik, MATLAB and others."""
    from textdiff.cache import FeatureCache, export_hdf5

    export_hdf5(FeatureCache.open(path), out, native=not upsampled, compress=compress)
    print(out)


def cache_import(
    path: Annotated[Path, typer.Argument(help="An HDF5 file that `cache export` wrote.")],
    out: Annotated[Path, typer.Argument(help="The cache to make.")],
) -> None:
    """Make a cache from an exported HDF5 file."""
    from textdiff.cache import import_hdf5

    import_hdf5(path, out)
    print(out)


def cache_verify(
    path: Annotated[Path, typer.Argument(help="The cache.")],
    drop: Annotated[bool, typer.Option("--drop", help="Forget bad rows, so that extract makes them again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute every checksum and name each bad row. Status 1 if there is one."""
    from textdiff.cache import verify_cache

    faults = verify_cache(path, drop=drop)
    if as_json:
        print(json.dumps([fault._asdict() for fault in faults], indent=2))
    else:
        for fault in faults:
            print(fault)
    if faults:
        raise typer.Exit(1)
