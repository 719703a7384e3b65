"""Workers that are killed at will, for minutes, lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import textdiff
from textdiff.tests.worker_cases import OPTIONS, check, of_array, rows, start, wait_for

MANY = 600


@pytest.fixture(scope="module")
def large(tmp_path_factory, make_lvit_once):
    """As ``place``, with 600 images."""
    path = tmp_path_factory.mktemp("large")
    make_lvit_once(path / "data", n_train=1, n_val=0, n_test=MANY - 1, size=32)
    textdiff.extract("monuseg", data=path / "data", cache=path / "one.zarr", **OPTIONS)
    return path


def command(large, cache, *more):
    given = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    start = [sys.executable, "-m", "textdiff.cli", "extract", "--dataset", "monuseg"]
    return [*start, "--data", str(large / "data"), "--cache", str(cache), *given, *more]


def children(parent, program):
    """The processes below ``parent`` that run ``program``."""
    found = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    table = [line.split(None, 2) for line in found.splitlines()[1:]]
    below = {parent}
    for _ in range(4):
        below |= {int(pid) for pid, above, _ in table if int(above) in below}
    return sorted(int(pid) for pid, _, words in table if int(pid) in below - {parent} and program in words)


@pytest.mark.slow
def test_twenty_kills_of_dask_workers_lose_nothing(large, tmp_path):
    pytest.importorskip("distributed")
    cache, log, file = large / "dask.zarr", tmp_path / "log", tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    scheduler = start([*dask, "--scheduler-file", str(file)], tmp_path / "scheduler.log")
    wait_for(file.exists)
    address = json.loads(file.read_text())["address"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", "2", "--nthreads", "1"]
    workers = start([*worker, "--no-dashboard", "--local-directory", str(tmp_path)], tmp_path / "worker.log")
    killed = 0
    try:
        while rows(cache) < MANY:
            run = start(command(large, cache, "--scheduler", address), log)
            while run.poll() is None:
                there = rows(cache)
                if (
                    killed < 20
                    and there >= (killed + 1) * MANY // 22
                    and (alive := children(workers.pid, "spawn_main"))
                ):
                    os.kill(alive[killed % len(alive)], signal.SIGKILL)
                    killed += 1
                time.sleep(0.02)
            assert run.returncode in (0, 2), log.read_text()
    finally:
        for process in (workers, scheduler):
            process.terminate()
            process.wait()
    assert killed == 20
    check(large, cache)


@pytest.mark.slow
def test_kills_of_device_processes_and_of_their_parent_lose_nothing(large, tmp_path):
    cache, log = large / "devices.zarr", tmp_path / "log"

    def gone(pids):
        return not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids)

    for _ in range(5):
        before = rows(cache)
        run = start(command(large, cache, "--devices", "cpu,cpu"), log)
        wait_for(lambda before=before: rows(cache) > before + 10)
        alive = children(run.pid, "device_crew")
        os.kill(alive[0], signal.SIGKILL)
        before = rows(cache)
        wait_for(lambda before=before: rows(cache) > before + 10)
        run.kill()
        assert run.wait() == -signal.SIGKILL
        wait_for(lambda alive=alive: gone(alive))
    assert rows(cache) < MANY
    subprocess.run(command(large, cache, "--devices", "cpu,cpu"), check=True, capture_output=True)
    assert "Traceback" not in log.read_text()
    check(large, cache)


@pytest.mark.slow
def test_array_tasks_that_start_at_once_on_nothing_share_one_cache(large, tmp_path):
    cache, count = large / "array.zarr", 5

    def tasks():
        return [
            start(
                command(large, cache, "--shard", "slurm"),
                tmp_path / f"log-{task}",
                **of_array(ID=task, COUNT=count, MIN=1, MAX=count, STEP=1),
            )
            for task in range(1, count + 1)
        ]

    first = tasks()
    wait_for(lambda: rows(cache) > 20)
    first[2].kill()
    assert [task.wait() for task in first] == [0, 0, -signal.SIGKILL, 0, 0]
    assert [task.wait() for task in tasks()] == [0] * count
    check(large, cache)
    assert [*large.glob(".*")] == []


@pytest.mark.slow
@pytest.mark.parametrize("crew", [("--devices", "cpu,cpu"), ("--scheduler", "local:2")], ids=["devices", "dask"])
def test_ctrl_c_ends_all_workers_and_the_same_command_goes_on(large, tmp_path, crew):
    cache, log = large / f"{crew[1][:3]}.zarr", tmp_path / "log"
    run = start(command(large, cache, *crew), log)
    wait_for(lambda: rows(cache) > 20)
    alive = children(run.pid, "python")
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait() == 130
    assert "Traceback" not in log.read_text()
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in alive), 30)
    assert rows(cache) < MANY
    subprocess.run(command(large, cache, *crew), check=True, capture_output=True)
    check(large, cache)
