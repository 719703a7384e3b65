"""The options of the commands that look at data, caches and the machine."""

__all__ = [
    "CacheExport",
    "CacheGc",
    "CacheImport",
    "CacheInfo",
    "CacheRepair",
    "CacheVerify",
    "DataCheck",
    "Demo",
    "Doctor",
    "Download",
    "Start",
]

from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from textdiff.options.option import AnyPath, Argument, Exists, InStore, Known, Range
from textdiff.options.reading import DataSet, Masks, ReadOptions
from textdiff.options.record import Record
from textdiff.options.shared import CachePath, Computing, TileSide


@dataclass(frozen=True, kw_only=True)
class DataCheck(DataSet, ReadOptions):
    """Look through a data set before anything is computed.

    The status is 1 if something is wrong with it.
    """

    text_encoder: Annotated[AnyPath | None, Known("textdiff.models.weights:KNOWN_ENCODERS")] = None
    """Text encoder whose tokens are counted, if it is on this machine; that of the data set by default."""
    tile: TileSide | None = None
    """Side in pixels of the tiles that extract is to cut, which takes TIFFs of any size; none by default."""


@dataclass(frozen=True)
class Demo(Computing):
    """Extract, fit and score synthetic tissue, without download.

    It takes minutes and needs no data.
    """

    _: KW_ONLY
    out: AnyPath = "textdiff-demo"
    """Directory that everything is written into."""


@dataclass(frozen=True)
class Start(Masks):
    """Go from a folder of images to a report, command by command.

    Each command is explained, printed and run. What is done already is not done again: run it again once you have
    annotated images, or after a stop.
    """

    dir: Annotated[AnyPath, Argument, Exists("file or directory")]
    """Directory with images/, and with masks/ and texts.csv where you have them."""
    _: KW_ONLY
    dataset: Annotated[str, Known("textdiff.readers:READERS", strict=True)] = "folder"
    """Name of the data set's layout."""
    image_size: Annotated[int | None, Range(least=32)] = None
    """Height and width in pixels that images are resized to; that of the preset by default."""
    dry_run: bool = False
    """Print the commands and run none."""


@dataclass(frozen=True)
class Doctor(Record):
    """Check this machine: PASS, WARN or FAIL per line, with the fix.

    The status is 1 if a check fails.
    """

    _: KW_ONLY
    cache_dir: AnyPath = "."
    """Directory where caches will be stored."""


@dataclass(frozen=True)
class Download(Record):
    """Fetch weights or a data set ahead of time.

    Downloads are resumed, verified and atomic.
    """

    name: Annotated[str, Argument, Known("textdiff.pipeline.fetch:KNOWN")]
    """What to fetch: adm-256, clinical-biobert or monuseg."""
    _: KW_ONLY
    to: AnyPath | None = None
    """Directory to store it in; the usual place by default."""
    url: str | None = None
    """Address to fetch it from; the usual one by default."""


@dataclass(frozen=True)
class OfCache(Record):
    """Options."""

    path: Annotated[CachePath, Argument]
    """Cache."""


@dataclass(frozen=True)
class CacheInfo(OfCache):
    """Show what a cache holds and how it was made."""


@dataclass(frozen=True)
class CacheExport(Record):
    """Write a cache as one HDF5 file, for ilastik, MATLAB and others."""

    path: Annotated[CachePath, Argument]
    """Cache."""
    out: Annotated[AnyPath, Argument]
    """HDF5 file to write."""
    _: KW_ONLY
    upsampled: bool = False
    """Write activations at the image's size."""
    compress: bool = False
    """Compress with gzip."""


@dataclass(frozen=True)
class CacheImport(Record):
    """Make a cache from an exported HDF5 file."""

    path: Annotated[AnyPath, Argument, Exists("file", "give one that `cache export` wrote")]
    """HDF5 file that cache export wrote."""
    out: Annotated[AnyPath, InStore(), Argument]
    """Cache to make."""


@dataclass(frozen=True)
class CacheVerify(OfCache):
    """Recompute every checksum and name each bad row.

    The status is 1 if there is one.
    """


@dataclass(frozen=True)
class CacheRepair(OfCache):
    """Verify a cache and put right what is wrong.

    Metadata are made anew; bad rows are dropped, and the command that makes them again is named. Sound rows stay.
    """


@dataclass(frozen=True)
class CacheGc(OfCache):
    """List what nothing vouches for, and remove it if asked to.

    Killed processes and abandoned updates leave it. What is in use stays, and so does what is not of a cache.
    """

    _: KW_ONLY
    delete: bool = False
    """Remove it."""
