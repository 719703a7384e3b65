"""Disks that are full, read-only or in the way: one line that names the file and the fix, and nothing half written."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from textdiff.tests.run_cases import anyhow, copied, one_line

FIT = ("--variant", "no-text", "--epochs", "2")
# What each command writes is below DISK.
COMMANDS = {
    "extract": (
        *("extract", "--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "64", "--views", "1"),
        *("--text-encoder", "none", "--cache", "DISK/new.zarr"),
    ),
    "fit": ("fit", "--cache", "cache.zarr", *FIT, "--runs", "DISK/runs"),
    "fit --ensemble": ("fit", "--cache", "cache.zarr", *FIT, "--ensemble", "2", "--runs", "DISK/runs"),
    "fit --resume": ("fit", "--resume", "--run", "DISK/stopped"),
    "combine": ("combine", "done/latest", "mean/latest", "--runs", "DISK/runs"),
    "score": ("score", "--run", "DISK/done"),
    "report": ("report", "--run", "DISK/done"),
    "predict": ("predict", "data/images", "--runs", "done", "--out", "DISK/out", "--format", "png,geojson"),
    "curve": (
        *("curve", "--cache", "cache.zarr", "--labels", "1", "--draws", "1", "--seeds", "1", "--epochs", "1"),
        *("--variants", "no-text", "--jobs", "1", "--runs", "DISK/runs"),
    ),
    "panel": ("panel", "done/latest", "--images", "1", "--out", "DISK/panel.png"),
    "pretrain": (
        *(
            "pretrain",
            "--data",
            "data/images",
            "--steps",
            "2",
            "--batch-size",
            "1",
            "--crop",
            "32",
            "--modality",
            "none",
        ),
        *("--set", "image_size=32", "--set", "channel_mult=[1,1]", "--set", "num_res_blocks=1"),
        *("--eval-every", "1", "--samples", "1", "--workers", "1", "--out", "DISK/weights.safetensors"),
    ),
    "cache export": ("cache", "export", "cache.zarr", "DISK/cache.h5"),
    "cache import": ("cache", "import", "cache.h5", "DISK/imported.zarr"),
}
RUNS = {"fit --resume": "stopped", "score": "done", "report": "done"}


@pytest.fixture(scope="module")
def made(small_runs, textdiff_once) -> Path:
    """Those runs, and ``cache.h5`` beside them."""
    textdiff_once(small_runs, "cache", "export", "cache.zarr", "cache.h5")
    return small_runs


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A file system of its own, of four megabytes."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only the superuser can mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def nearly_full(place: Path, begin: Callable[[Path], None], left: int = 0) -> Iterator[Path]:
    with mounted(place) as disk:
        begin(disk)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - left))
        assert shutil.disk_usage(disk).free <= left
        yield disk


@contextmanager
def read_only(place: Path, begin: Callable[[Path], None]) -> Iterator[Path]:
    with mounted(place) as disk:
        begin(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk


@contextmanager
def limited(place: Path, begin: Callable[[Path], None]) -> Iterator[Path]:
    """No file may be larger than 64 bytes."""
    place.mkdir()
    begin(place)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield place
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def below_a_file(place: Path, begin: Callable[[Path], None]) -> Iterator[Path]:
    place.write_text("a file")
    yield place / "below"


@contextmanager
def too_long(place: Path, begin: Callable[[Path], None]) -> Iterator[Path]:
    yield place / ("x" * 300)


@contextmanager
def directory_in_place(place: Path, begin: Callable[[Path], None]) -> Iterator[Path]:
    """Directories stand where the files should."""
    begin(place)
    for name in ("done/report.html", "done/scores.csv", "panel.png", "weights.safetensors", "cache.h5"):
        (place / name).unlink(missing_ok=True)
        (place / name).mkdir(parents=True)
    yield place


FAULTS = {
    "full": (nearly_full, "full"),
    "nearly full": (partial(nearly_full, left=1 << 14), "full"),
    "soon full": (partial(nearly_full, left=1 << 16), "full"),
    "read-only": (read_only, "read-only"),
    "limited": (limited, "`ulimit -f` allows"),
    "below a file": (below_a_file, "a director"),
    "too long": (too_long, "too long"),
    "a directory in its place": (directory_in_place, "a directory, where a file should be"),
}
# These need less room than there is, have no file of that name, or read a run that is not there.
DONE = {"a directory in its place": {*COMMANDS} - {"score", "report", "panel", "cache export"}}
DONE |= {fault: {"fit --resume", "score", "report"} for fault in ("below a file", "too long")}


SLOW = {"nearly full"}
"""Between two disks that have less and more room left."""


@pytest.mark.parametrize(
    ("fault", "command"),
    [
        pytest.param(fault, command, marks=[pytest.mark.slow] * (fault in SLOW))
        for fault in FAULTS
        for command in COMMANDS
        if command not in DONE.get(fault, ())
    ],
)
def test_what_cannot_be_written_is_named_with_the_fix_and_leaves_nothing(made, tmp_path, textdiff_once, fault, command):
    make, words = FAULTS[fault]
    arguments = COMMANDS[command]

    def begin(disk: Path) -> None:
        if command in RUNS:
            copied(made, disk, RUNS[command])

    with make(tmp_path / "disk", begin) as disk:
        before = files(tmp_path)
        result = anyhow(textdiff_once, made, *(word.replace("DISK", str(disk)) for word in arguments))
        if result.status or not fault.endswith(" full"):
            line = one_line(result.stderr)
            assert words in line.lower() or "the disk has" in line
            assert str(disk) in line
            assert "Nothing was written" in line or any(verb in line for verb in ("free", "choose", "move", "raise"))
            assert not [path for path in files(tmp_path) if ".partial" in path]
            assert {path: content for path, content in files(tmp_path).items() if path in before} == before
            assert not [path for path in tmp_path.glob("disk/runs/*/") if not any(path.iterdir())]


def files(place: Path) -> dict[str, bytes]:
    """The content of every file below a place that a command is not about to renew."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
        and path.name.partition(".")[0] not in ("log", "last", "filler", "scores", "report", "overlay")
    }


def test_what_fails_in_a_process_of_an_experiment_is_told_by_the_command(made, tmp_path, textdiff_once):
    command = [word.replace("DISK", str(tmp_path / "disk")) for word in COMMANDS["curve"]]
    command[command.index("--draws") + 1] = command[command.index("--jobs") + 1] = "2"
    with nearly_full(tmp_path / "disk", lambda _: None, left=1 << 16) as disk:
        line = one_line(textdiff_once(made, *command, status=2).stderr)
        assert "the disk is full; free some space" in line
        assert str(disk) in line
        assert list(disk.rglob("worker-1.log"))
        assert not list(disk.rglob("*.partial*"))


def test_a_fit_that_found_the_disk_full_goes_on_to_the_same_weights(made, tmp_path, textdiff_once):
    whole = (copied(made, tmp_path, "done") / "head.safetensors").read_bytes()
    with mounted(tmp_path / "disk") as disk:
        run = copied(made, disk, "stopped")
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        textdiff_once(made, "fit", "--resume", "--run", str(run), status=2)
        (disk / "filler").unlink()
        textdiff_once(made, "fit", "--resume", "--run", str(run))
        assert (run / "head.safetensors").read_bytes() == whole


def test_too_many_open_files_and_too_little_memory_are_one_line(made, textdiff_once):
    width = ("fit", "--cache", "cache.zarr", *FIT, "--width", "100000000", "--runs", "large")
    assert "not enough memory" in one_line(textdiff_once(made, *width, status=2).stderr)
    assert not (made / "large").exists()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest number that a file could have
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        result = anyhow(textdiff_once, made, "score", "--runs", "done")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "too many files are open; raise the limit" in one_line(result.stderr)
