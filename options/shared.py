"""Options that several commands share."""

__all__ = [
    "DEVICES",
    "LATEST",
    "CachePath",
    "Computing",
    "Count",
    "Jitter",
    "Natural",
    "OfRun",
    "Precise",
    "Precision",
    "Protocol",
    "Repeats",
    "RunPath",
    "Runs",
    "Seed",
    "Split",
    "TileSide",
    "Truth",
]

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

from textdiff.console import form
from textdiff.errors import UserError, nearest, quoted
from textdiff.options.option import AnyPath, Exists, InStore, Known, Range
from textdiff.options.record import Record

LATEST = "latest"
"""What stands in a directory of runs for the one made last."""
DEVICES = ("auto", "cpu", "cuda", "mps")

Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Repeats = Annotated[int, Range(least=1, most=1000)]
Seed = Annotated[int, Range(least=0, most=2**32 - 1)]
TileSide = Annotated[int, Range(least=32)]
CachePath = Annotated[AnyPath, InStore(), Exists("cache", "make one with `textdiff extract`", "zarr.json")]
RunPath = Annotated[AnyPath, Exists("run directory", "make one with `textdiff fit`", "config.json")]
Precision = Literal["auto", "float32", "bfloat16"]
Protocol = Literal["clean", "paper"]
Split = Literal["train", "val", "test"]
Truth = Literal["clean", "paper", "original"]
Jitter = Literal["he", "cxr", "none"]


@dataclass(frozen=True, kw_only=True)
class Computing(Record):
    """Running."""

    device: Annotated[str, Known("textdiff.options.shared:DEVICES")] = "auto"
    """Device to compute on: auto is the GPU where there is one; cpu, cuda, cuda:1, mps."""


@dataclass(frozen=True, kw_only=True)
class Precise(Computing):
    """Running."""

    precision: Precision = "auto"
    """Precision to compute in: auto is bfloat16 on GPUs that have it, float32 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Runs(Record):
    """Runs."""

    run: RunPath | None = None
    """Run directory; the latest run in --runs by default."""
    runs: AnyPath = "runs"
    """Directory that holds the run directories."""

    def directory(self) -> Path:
        """The run directory that is meant, under its own name: called ``latest``, it could not be found again.

        Raises:
            UserError: there is no run yet.
        """
        runs = Path(self.runs)
        if self.run is not None:
            run = Path(self.run)
            return run.parent / run.readlink() if run.is_symlink() else run
        latest = runs / LATEST
        if latest.is_symlink() and latest.exists():
            return runs / latest.readlink()
        if latest.is_file() and (runs / (name := latest.read_text(encoding="utf-8").strip())).is_dir():
            return runs / name
        if (runs / "config.json").is_file():
            raise UserError(
                f"--runs {runs}: is a run, not a directory of runs; name it with --run {quoted(runs)},"
                " or make one of several with textdiff combine"
            )
        begun = sorted(file.parent for file in runs.glob("*/config.json"))
        if begun:
            newest = max(begun, key=lambda path: path.stat().st_mtime_ns)
            which = form(len(begun), "1 run; name it", f"{len(begun)} runs; name one")
            raise UserError(f"{latest}: not there, and {runs} has {which}, as with --run {newest}")
        empty = sorted(path for path in runs.glob("*") if path.is_dir() and path.name != LATEST)
        what = f", only {empty[-1].name} of a fit that ended before it began" if empty else nearest(runs)
        raise UserError(f"{runs}: no run yet{what}; make one with `textdiff fit`, or name one with --run")


@dataclass(frozen=True)
class OfRun(Runs):
    """Run."""

    run: RunPath | None = None
    _: KW_ONLY
    cache: CachePath | None = None
    """Cache of the run, where it was moved; its recorded place by default."""

    def check(self) -> None:
        """Refuses to look at a run where there is none."""
        super().check()
        self.directory()
