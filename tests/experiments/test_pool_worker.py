"""A worker of the pool: it ends with its parent and when it is asked to, in the middle of whatever it does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from textdiff.experiments.experiment import Plan, make_job, plan_experiment
from textdiff.pipeline.fit import FitConfig


def test_a_worker_in_the_background_ends_with_its_parent_in_the_middle_of_a_group(cache, tmp_path):
    threads = (os.cpu_count() or 1) + 1
    job = make_job("long", {}, "long", FitConfig(cache.path, labels=2, epochs=100_000, width=8, device="cpu"))
    experiment = plan_experiment(tmp_path / "long", Plan("ablate", {}, "test", [job]), cache, threads)
    arguments = (str(experiment.path), "1")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does, and the worker inherits it
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "textdiff.pipeline.worker_process", "textdiff.experiments.pool", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        process.stdin.write(b"long\n")
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not (experiment.run(job).path / "log.csv").is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.communicate(timeout=60)  # closes standard input, as the parent's end does
        assert process.returncode == 130
        # Also where the experiment was begun with more threads than there are cores here.
        assert f"{threads} threads" in experiment.run(job).config["device"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("becomes", ["raise RuntimeError('unexpected pos 64 vs 0')", "return", "pass"])
@pytest.mark.parametrize("way", ["its parent ends", "a signal"])
def test_a_worker_asked_to_stop_says_so_whatever_becomes_of_the_interruption(way, becomes):
    code = f"""
import time
from textdiff.pipeline import worker_process
worker_process.GRACE = 0.2
def serve(lines, answer):
    answer(next(lines))
    try: time.sleep(60)
    except BaseException: {becomes}
    time.sleep(60 if {way == "its parent ends"} else 0)
worker_process.serve_parent(serve)"""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    process.stdin.write("group\n")
    process.stdin.flush()
    assert process.stdout.readline() == '"group"\n'
    if way == "a signal":
        process.terminate()
        assert process.wait(timeout=60) == 130
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
