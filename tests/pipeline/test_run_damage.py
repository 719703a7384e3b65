"""Runs with a bit or a file gone wrong: found, or harmless, and one line says what to do."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from textdiff.pipeline.runs import Run, write_config
from textdiff.tests.file_tools import halve
from textdiff.tests.run_cases import anyhow, copied, one_line

FLIPS = 20


def flips(path: Path, seed: int) -> Iterator[bytes]:
    """Puts copies with a flipped bit in the file's place, one after the other, in all its parts."""
    sound, draw = path.read_bytes(), np.random.default_rng(seed)
    spans = itertools.cycle([(0, len(sound)), (0, min(4096, len(sound))), (-min(4096, len(sound)), 0)])
    for span, _ in zip(spans, range(FLIPS), strict=False):
        data = bytearray(sound)
        data[draw.integers(*span)] ^= 1 << draw.integers(8)
        path.write_bytes(data)
        yield bytes(data)
    path.write_bytes(sound)


def flip(path: Path) -> None:
    next(flips(path, 0))


def test_a_flipped_bit_in_a_checkpoint_changes_no_weights(small_runs, tmp_path, textdiff_once):
    whole, found = (copied(small_runs, tmp_path, "done") / "head.safetensors").read_bytes(), 0
    stopped = copied(small_runs, tmp_path, "stopped")
    for number, data in enumerate(flips(stopped / "last.pt", seed=1)):
        run = Path(shutil.copytree(stopped, tmp_path / str(number)))
        result = anyhow(textdiff_once, small_runs, "fit", "--resume", "--run", str(run))
        if result.status:
            found += 1
            assert f"{run / 'last.pt'}: damaged" in one_line(result.stderr)
            assert (run / "last.pt").read_bytes() == data
        else:
            assert (run / "head.safetensors").read_bytes() == whole
    assert found >= FLIPS // 2


def test_a_flipped_bit_in_the_weights_changes_no_prediction(small_runs, tmp_path, textdiff_once):
    run = copied(small_runs, tmp_path, "done")

    def predict() -> tuple[int, str, bytes]:
        result = anyhow(
            textdiff_once, small_runs, "predict", "data/images/c3.png", "--run", str(run),
            *("--out", str(tmp_path / "out"), "--overwrite", "--format", "png"),
        )  # fmt: skip
        return result.status, result.stderr, b"".join(file.read_bytes() for file in sorted(tmp_path.glob("out/*.png")))

    status, _, whole = predict()
    assert status == 0
    found = 0
    for _ in flips(run / "head.safetensors", seed=2):
        status, said, got = predict()
        if status:
            found += 1
            assert f"{run / 'head.safetensors'}: damaged" in one_line(said)
        else:
            assert got == whole
    assert found >= FLIPS - 2


def test_a_flipped_bit_in_the_configuration_changes_nothing_of_it(small_runs, tmp_path, textdiff_once):
    run = copied(small_runs, tmp_path, "done")
    whole, found = Run(run).config, 0
    for _ in flips(run / "config.json", seed=3):
        result = anyhow(textdiff_once, small_runs, "score", "--run", str(run))
        if result.status:
            found += 1
            assert "config.json: damaged" in one_line(result.stderr)
        else:
            assert Run(run).config == whole
    assert found >= FLIPS - 5


COMMANDS = {
    "score": ("score", "--run"),
    "predict": ("predict", "data/images/c3.png", "--out", "out", "--run"),
    "next": ("next", "--run"),
}


@pytest.mark.parametrize("command", ["fit --resume", "score", "predict data/images/c3.png", "report"])
def test_a_run_of_another_version_is_refused(small_runs, tmp_path, textdiff_once, command):
    run = copied(small_runs, tmp_path, "stopped" if command.startswith("fit") else "done")
    config = Run(run).config
    del config["unlabelled"]
    write_config(Run(run), config | {"schema": config["schema"] - 1})
    result = anyhow(textdiff_once, small_runs, *command.split(), "--run", str(run))
    assert result.status == 2
    assert f"{run / 'config.json'}: made by another version of TextDiff; fit again" in one_line(result.stderr)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_weights_of_a_member_are_looked_at_too(small_runs, tmp_path, textdiff_once, command):
    run = copied(small_runs, tmp_path, "mean")
    flip(run / "members/1/head.safetensors")
    said = one_line(textdiff_once(small_runs, *command, str(run), status=2).stderr)
    assert f"{run / 'members/1/head.safetensors'}: damaged" in said
    assert f"textdiff fit --resume --run {run / 'members/1'}" in said


@pytest.mark.parametrize(
    ("place", "name", "other", "file"),
    [
        ("done", "", "mean/members/1", "head.safetensors"),
        ("mean", "members/1", "mean/members/0", "head.safetensors"),
        ("mean", "members/1", "mean/members/0", "."),
        ("mean", "members/1", "short", "."),
    ],
)
def test_sound_weights_of_another_fit_are_refused_and_the_advice_works(
    small_runs, tmp_path, textdiff_once, place, name, other, file
):
    run = copied(small_runs, tmp_path, place)
    (made_run,) = (path for path in (small_runs / other.split("/")[0]).iterdir() if not path.is_symlink())
    put, taken = run / name / file, made_run / "/".join(other.split("/")[1:]) / file
    whole = (run / name / "head.safetensors").read_bytes()
    if file == ".":
        shutil.rmtree(put)
        shutil.copytree(taken, put)
    else:
        shutil.copy(taken, put)
    for command in COMMANDS.values():
        line = one_line(textdiff_once(small_runs, *command, str(run), status=2).stderr)
        assert "another run" in line
        assert str(run / name) in line
    shutil.rmtree(put) if file == "." else put.unlink()
    textdiff_once(small_runs, *line.split("`")[1].split()[1:])
    assert (run / name / "head.safetensors").read_bytes() == whole


def test_a_checkpoint_of_another_fit_is_not_gone_on_from(small_runs, tmp_path, textdiff_once):
    run, other = copied(small_runs, tmp_path, "stopped"), copied(small_runs, tmp_path, "done")
    config = Run(other).config
    write_config(Run(other), config | {"fit": config["fit"] | {"seed": 5}})
    shutil.copy(run / "last.pt", other / "last.pt")
    (other / "head.safetensors").unlink()
    line = one_line(textdiff_once(small_runs, "fit", "--resume", "--run", str(other), status=2).stderr)
    assert f"{other / 'last.pt'}: damaged, or of another run" in line


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4000))


def nest(path: Path) -> None:
    path.write_text("[" * 100_000)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = (empty, halve, scramble, nest, replace_by_directory)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("name", "file", "command"),
    [
        ("stopped", "last.pt", ("fit", "--resume", "--run")),
        ("done", "head.safetensors", ("score", "--run")),
        ("done", "config.json", ("score", "--run")),
        ("done", "log.csv", ("report", "--run")),
        ("done", "scores.json", ("report", "--run")),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(small_runs, tmp_path, textdiff_once, damage, name, file, command):
    run = copied(small_runs, tmp_path, name)
    damage(run / file)
    line = one_line(textdiff_once(small_runs, *command, str(run), status=2).stderr)
    assert str(run / file) in line
    assert any(fix in line for fix in ("remove it", "restore it", "move it away", "fit again"))


@pytest.mark.parametrize(
    ("name", "file", "command"),
    [
        ("stopped", "last.pt", ("fit", "--resume", "--run")),
        ("done", "head.safetensors", ("fit", "--resume", "--run")),
        ("done", "log.csv", ("report", "--run")),
    ],
)
@pytest.mark.parametrize("damage", [empty, replace_by_directory])
def test_without_the_damaged_file_the_advice_works(small_runs, tmp_path, textdiff_once, name, file, command, damage):
    whole = (copied(small_runs, tmp_path / "whole", "done") / "head.safetensors").read_bytes()
    run = copied(small_runs, tmp_path, name)
    damage(run / file)
    shutil.rmtree(run / file) if (run / file).is_dir() else (run / file).unlink()
    textdiff_once(small_runs, *command, str(run))
    assert (run / "head.safetensors").read_bytes() == whole
    assert not (run / "last.pt").exists()


def test_what_a_killed_process_left_is_removed_when_its_run_goes_on(small_runs, tmp_path, textdiff_once):
    run = copied(small_runs, tmp_path, "stopped")
    code = (
        "import os, signal, sys; from textdiff.files import atomic_path\n"
        "for name in ('last.pt', 'log.csv', 'head.safetensors'):\n"
        "    atomic_path(os.path.join(sys.argv[1], name)).__enter__().write_text('half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=False)
    assert len(list(run.glob(".*.partial.*"))) == 3
    textdiff_once(small_runs, "fit", "--resume", "--run", str(run))
    assert sorted(path.name for path in run.iterdir()) == [
        "calibration.json",
        "config.json",
        "head.safetensors",
        "likeness.safetensors",
        "log.csv",
    ]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--labels", "1", "begun without"),
        ("--epochs", "9", "begun with 3"),
        ("--seed", "7", "begun with 0"),
        ("--window", "32", "begun without"),
        ("--blocks", "8,12", "begun without"),
        ("--variant", "concat", "begun with no-text"),
        ("--variant", "full", "begun with no-text"),
    ],
)
def test_a_resumed_fit_takes_its_own_options_and_refuses_others(small_runs, textdiff_once, option, value, said):
    own = ("--cache", "cache.zarr", "--variant", "no-text", "--epochs", "3", "--window", "0", "--recipe", "fair")
    again = textdiff_once(small_runs, "fit", *own, "--runs", "done", "--resume", status=2)
    assert "finished already" in one_line(again.stderr)
    line = one_line(textdiff_once(small_runs, "fit", "--runs", "stopped", "--resume", option, value, status=2).stderr)
    assert line.startswith(f"error: {option}: stopped/")
    assert said in line


def test_a_fit_that_died_early_is_named(small_runs, tmp_path, textdiff_once):
    assert "no run yet; make one" in one_line(textdiff_once(tmp_path, "fit", "--resume", status=2).stderr)
    (tmp_path / "runs/folder-20260101-000000").mkdir(parents=True)
    said = one_line(textdiff_once(tmp_path, "fit", "--resume", status=2).stderr)
    assert "folder-20260101-000000 of a fit that ended before it began" in said
    run = copied(small_runs, tmp_path / "runs", "stopped")
    said = one_line(textdiff_once(tmp_path, "fit", "--resume", status=2).stderr)
    assert f"--run runs/{run.name}" in said


@pytest.mark.parametrize("mask", [0o002, *(pytest.param(mask, marks=pytest.mark.slow) for mask in (0o022, 0o077))])
def test_files_have_the_modes_that_the_user_asks_for(small_runs, tmp_path, mask):
    run = copied(small_runs, tmp_path, "stopped")
    command = [sys.executable, "-m", "textdiff.cli", "fit", "--resume", "--run", str(run)]
    subprocess.run(command, cwd=small_runs, check=True, capture_output=True, umask=mask)
    assert {(run / name).stat().st_mode & 0o777 for name in ("head.safetensors", "log.csv")} == {0o666 & ~mask}
