"""Ctrl-C and SIGTERM, sent to real processes: the first stops the work, the second ends it whatever it is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textdiff.pipeline.runs import Run

PRELUDE = """
import hashlib, signal, sys, threading, time
from textdiff import cli
from textdiff.errors import UserError
from textdiff.stopping import stop_signals
from textdiff.pipeline import fetch as downloads

def say():
    print("stuck", file=sys.stderr, flush=True)

def stuck(*_, **__):  # takes hours in C, holds the interpreter's lock, and never looks for signals
    say(); sum(range(10**15))

def unlocked(*_, **__):  # the same without the lock
    say(); hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def elsewhere(function):
    def wait(*_, **__):
        # Not joined: Python 3.11 forgets a thread whose joining was interrupted, and ends without it.
        threading.Thread(target=function).start(); time.sleep(600)
    return wait
"""
COMMAND = "\nsys.argv = ['textdiff', 'download', 'monuseg']; cli.main()"
PLACES = {
    "in the main thread": "downloads.download = stuck",
    "in a thread": "downloads.download = elsewhere(stuck)",
    "in a thread without the lock": "downloads.download = elsewhere(unlocked)",
}


def started(code: str) -> subprocess.Popen:
    """``textdiff download``, which takes the least to start, with its work replaced by ``code``, once it is there."""
    process = subprocess.Popen([sys.executable, "-c", PRELUDE + code + COMMAND], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any(line == "stuck\n" for line in process.stderr)
    time.sleep(0.2)
    return process


@pytest.mark.parametrize("code", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("signals", [("INT", "INT"), ("INT", "TERM"), ("TERM", "INT"), ("TERM", "TERM")], ids="-".join)
def test_a_second_signal_ends_what_never_comes_back_from_c(code, signals):
    first, second = (signal.Signals[f"SIG{name}"] for name in signals)
    process = started(code)
    process.send_signal(first)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(second)
    assert process.wait(timeout=60) in (-signal.SIGKILL, -second)


BECOMES = {
    "an error of the clean-up": """
    try: say(); time.sleep(60)
    finally: raise RuntimeError("unexpected pos 3029184")""",
    "an error that forgets where it came from": """
    try: say(); time.sleep(60)
    except KeyboardInterrupt: pass
    raise SystemError("returned a result with an exception set")""",
    "a file taken for damaged": """
    try: say(); time.sleep(60)
    except KeyboardInterrupt: raise UserError("last.pt: damaged; remove it") from None""",
    "an exit": """
    try: say(); time.sleep(60)
    except KeyboardInterrupt: sys.exit(1)""",
    "an error after a step that was finished first": """
    try:
        with stop_signals() as received:
            say()
            while not received: time.sleep(0.01)
        raise KeyboardInterrupt
    finally: raise RuntimeError("unexpected pos 3029184")""",
}


@pytest.mark.parametrize("becomes", BECOMES.values(), ids=BECOMES)
def test_a_stop_is_a_stop_whatever_exception_becomes_of_it(becomes):
    process = started(f"def interrupted(*_, **__):{becomes}\ndownloads.download = interrupted")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "stopped; finished work is kept" in said
    assert "Traceback" not in said
    assert "error:" not in said


@pytest.mark.parametrize(
    ("command", "place", "hint"),
    [
        (("extract", "--dataset", "monuseg"), "extract.extract", "to go on"),
        (("fit", "--resume"), "fit.fit_or_resume", "to go on"),
        (("fit", "--cache", "c.zarr"), "fit.begin", "to go on"),
        (("fit", "--cache", "c.zarr"), "fit.resume", "with --resume, which goes on from the last checkpoint"),
    ],
)
def test_who_stops_a_command_is_told_how_this_one_goes_on(command, place, hint, textdiff_once, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    (tmp_path / "c.zarr").mkdir()
    monkeypatch.setattr("textdiff.pipeline.fit.begin", lambda *_: Run(tmp_path / "c"))
    monkeypatch.setattr(f"textdiff.pipeline.{place}", stop)
    said = textdiff_once(tmp_path, *command, status=130).stderr
    assert said.endswith(f"stopped; finished work is kept. Run the same command again {hint}\n")


def test_one_signal_is_enough_where_python_gets_a_turn():
    process = started("downloads.download = lambda *_: (say(), time.sleep(600))")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert "stopped; finished work is kept" in process.stderr.read()


def test_ctrl_c_stays_ignored_in_the_background():
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    process = started(ignored + "downloads.download = lambda *_: (say(), time.sleep(1), sys.exit(7))")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 7


def test_no_guard_is_left_and_none_holds_the_output():
    process = subprocess.run(
        [sys.executable, "-m", "textdiff", "--version"], capture_output=True, timeout=60, check=True
    )
    assert process.stdout.startswith(b"textdiff")
    process = started(PLACES["in the main thread"])
    guards = children(process.pid)
    assert len(guards) == 1
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{guard}").exists() and not zombie(guard) for guard in guards):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc to look for processes in")
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_that_the_caller_has_closed_are_no_defect(closed, tmp_path):
    redirect = " ".join(f"{number}>&-" for number in closed)
    command = f'"{sys.executable}" -m textdiff.cli score {redirect}'
    process = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert ("no run yet" in process.stderr) == (2 not in closed)
    assert process.stdout == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_finds_no_room_is_one_line():
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "textdiff.cli", "--version"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False,
        )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.startswith("error: standard output: the disk is full; free some space")
    assert len(process.stderr.splitlines()) == 1
