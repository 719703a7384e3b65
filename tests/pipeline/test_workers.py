"""Many workers on one cache: what they make, killed or not, is what one process makes, byte for byte."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.options.extract import Extract
from textdiff.pipeline import extract as stage
from textdiff.pipeline.extraction import dask_crew, device_crew
from textdiff.pipeline.extraction.job_array import array_shard
from textdiff.pipeline.extraction.row_worker import Order, RowWorker, opened, part_of, parts, sealed

OPTIONS = {"preset": "rgb", "views": 1, "text_encoder": "none", "image_size": 32}
ROWS = 61


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_lvit_once):
    """A directory with a data set of 61 small images, and ``one.zarr``, which one process made of it."""
    path = tmp_path_factory.mktemp("workers")
    make_lvit_once(path / "data", n_train=40, n_val=1, n_test=20, size=32)
    textdiff.extract("monuseg", data=path / "data", cache=path / "one.zarr", **OPTIONS)
    return path


def options(place, cache, **changes):
    return Extract("monuseg", data=place / "data", cache=cache, **OPTIONS | changes)


def files(path):
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in path.rglob("*") if p.is_file()
    }


def rows(cache):
    return len([*cache.glob("ledger/c*")])


def check(place, cache):
    """Every row of the cache is there and sound, and nothing tells that many made it."""
    assert FeatureCache.open(cache).verify() == []
    assert files(cache) == files(place / "one.zarr")


@pytest.fixture
def cache(place, tmp_path):
    """Where a cache is to be: beside the first one, because a cache says where its data are, seen from there."""
    return place / f"{tmp_path.name}.zarr"


def begun(place, cache):
    """A cache without rows, the order to fill it, and what is known of its samples."""
    work = stage._Work(stage.resolve(options(place, cache)), None)
    filling = stage.begin_filling(work.config, work.plan(), work.embed)
    return filling.cache, Order.of(work.config, filling.cache), {fact.sample.id: fact for fact in work.facts}


def test_a_part_that_is_given_again_is_not_made_again(place, cache):
    cache, order, facts = begun(place, cache)
    worker = RowWorker(opened(sealed(order)))
    told = []
    for part in parts(cache, range(ROWS), 25):
        given = opened(sealed(part_of(cache, facts, part)))
        assert [worker.fill(given, told.append).rows for _ in range(2)] == [len(part), 0]
    assert sum(told) == 2 * ROWS
    check(place, cache.path)


def test_a_worker_without_the_cache_the_data_or_the_version_says_so(place, cache, monkeypatch):
    cache, order, facts = begun(place, cache)
    part = part_of(cache, facts, [0])
    with pytest.raises(UserError, match=r"does not see the cache at /elsewhere/c.zarr; all workers need the same file"):
        RowWorker(replace(order, cache=Path("/elsewhere/c.zarr")))
    with pytest.raises(UserError, match="sees another cache at"):
        RowWorker(replace(order, content=("1", "2")))
    sample = replace(part.facts["train_000"].sample, image=Path("/elsewhere/1.png"))
    gone = {"train_000": replace(part.facts["train_000"], sample=sample)}
    with pytest.raises(UserError, match=r"does not see /elsewhere/1.png; all workers need the data at the same path"):
        RowWorker(order).fill(replace(part, facts=gone))
    theirs = sealed(order)
    monkeypatch.setattr(textdiff, "__version__", "9.9")
    with pytest.raises(UserError, match=r"worker has textdiff 9.9, and who asks has .*; install the same version"):
        opened(theirs)


def test_of_two_who_make_the_cache_at_once_one_does(place, cache, monkeypatch):
    """The second comes while the first one builds it, finishes its shard, and the first goes on with what is there."""
    build = sys.modules["textdiff.cache.feature_cache"].build_cache

    def slow(*arguments):
        monkeypatch.undo()
        stage.extract(options(place, cache, shard=(1, 2)))
        assert rows(cache) == ROWS // 2
        build(*arguments)

    monkeypatch.setattr("textdiff.cache.feature_cache.build_cache", slow)
    stage.extract(options(place, cache, shard=(0, 2)))
    check(place, cache)


def test_the_rows_of_a_device_process_that_is_killed_are_done_by_the_other(place, cache, monkeypatch, capfd):
    started = []
    start = device_crew._start

    def remember(*arguments):
        started.append(start(*arguments))
        return started[-1]

    def kill():
        while not rows(cache):
            time.sleep(0.002)
        started[0].kill()

    monkeypatch.setattr(device_crew, "_start", remember)
    killer = threading.Thread(target=kill)
    killer.start()
    textdiff.extract("monuseg", data=place / "data", cache=cache, devices="cpu,cpu", **OPTIONS)
    killer.join()
    check(place, cache)
    assert started[0].returncode == -signal.SIGKILL
    said = capfd.readouterr().err
    assert said.count("by SIGKILL; its rows are done by the others") <= 1  # none if it had just done its last part
    assert f"{ROWS}/{ROWS} rows" in said
    assert "where the time of 2 processes (cpu, cpu) went: read " in said


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with two workers in this process, of two threads each."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def test_dask_workers_make_the_cache_of_one_process(place, cache, scheduler, monkeypatch, capfd):
    monkeypatch.setattr(dask_crew, "_task_rows", lambda rows, workers: 7)
    textdiff.extract("monuseg", data=place / "data", cache=cache, scheduler=scheduler, **OPTIONS)
    check(place, cache)
    said = capfd.readouterr().err
    assert f"2 Dask workers ({scheduler})" in said
    assert f"where the time of 2 Dask workers ({scheduler}) went: read " in said
    # The workers know the network already, and a cache that is not there any more.
    made = textdiff.extract("monuseg", data=place / "data", cache=cache, scheduler=scheduler, overwrite=True, **OPTIONS)
    assert made.filled["rows"] == ROWS
    assert made.filled["seconds"] >= sum(made.filled["waited"].values()) > 0
    check(place, cache)


def test_what_a_dask_worker_cannot_do_is_its_own_line(place, tmp_path, scheduler, monkeypatch, capfd):
    data, fill = tmp_path / "data", dask_crew.DaskCrew.fill

    def spoil(crew, *arguments):
        next(data.glob("Test_Folder/img/test_007.*")).write_bytes(b"no image")
        return fill(crew, *arguments)

    shutil.copytree(place / "data", data)
    monkeypatch.setattr(dask_crew.DaskCrew, "fill", spoil)
    with pytest.raises(UserError, match=r"test_007.*: (cannot be|is no|was changed)"):
        textdiff.extract("monuseg", data=data, cache=tmp_path / "cache.zarr", scheduler=scheduler, **OPTIONS)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("rows", "workers", "size"), [(1, 4, 1), (40, 2, 20), (400, 2, 64), (2000, 4, 125), (10**6, 8, 512), (9, 0, 9)]
)
def test_a_task_is_64_to_512_rows_and_fewer_of_few(rows, workers, size):
    assert dask_crew._task_rows(rows, workers) == size


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"scheduler": "tcp://127.0.0.1:9"}, r"--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there"),
        ({"scheduler": "nowhere"}, r"--scheduler nowhere: no Dask scheduler answers there"),
        ({"scheduler": "local:0"}, r"--scheduler local:0: must be an address, local, or as local:4"),
        ({"scheduler": "local", "devices": "cpu"}, r"--devices starts workers here, --scheduler finds them elsewhere"),
        ({"device": "cpu", "devices": "cpu"}, r"--device cpu: --devices says where to compute"),
        ({"devices": "cpu,99"}, r"cuda:99: PyTorch sees \d+ CUDA devices here"),
        ({"shard": "slurm"}, r"--shard slurm: SLURM_ARRAY_TASK_ID is not set"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_workers_that_cannot_be_had_are_one_line(place, tmp_path, monkeypatch, given, line):
    monkeypatch.setattr(dask_crew, "CONNECT_SECONDS", 0.2)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    with pytest.raises(UserError, match=line):
        stage.extract(options(place, tmp_path / "cache.zarr", **given))
    assert not (tmp_path / "cache.zarr").exists()


def test_without_dask_the_command_to_install_it_is_told(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r'needs Dask; pip install "textdiff\[dask\]"'):
        stage.extract(options(place, tmp_path / "cache.zarr", scheduler="local"))


def of_array(**values):
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("array", "shard"),
    [
        ({"ID": 3, "COUNT": 8, "MIN": 0, "MAX": 7, "STEP": 1}, (3, 8)),
        ({"ID": 8, "COUNT": 8, "MIN": 1, "MAX": 8, "STEP": 1}, (7, 8)),
        ({"ID": 14, "COUNT": 8, "MIN": 0, "MAX": 15, "STEP": 2}, (7, 8)),
        ({"ID": 5, "COUNT": 1, "MIN": 5, "MAX": 5, "STEP": 1}, (0, 1)),
        ({"ID": 7, "COUNT": 3, "MIN": 1, "MAX": 7, "STEP": 1}, "no range"),
        ({"ID": "x"}, "no numbers"),
    ],
)
def test_the_shard_of_an_array_task(array, shard):
    if isinstance(shard, tuple):
        assert array_shard(of_array(**array)) == shard
    else:
        with pytest.raises(UserError, match=shard):
            array_shard(of_array(**array))


def test_an_array_task_says_its_shard_or_how_to_have_one(place, cache, monkeypatch, capfd):
    for name, value in of_array(ID=2, COUNT=2, MIN=1, MAX=2, STEP=1).items():
        monkeypatch.setenv(name, value)
    stage.extract(options(place, cache, shard="slurm"))
    assert "shard 1/2: task 2 of the job array" in capfd.readouterr().err
    assert rows(cache) == ROWS // 2
    stage.extract(options(place, cache))
    assert "which does all rows; with --shard slurm they share them" in capfd.readouterr().err
    check(place, cache)


# With processes that are killed at will: minutes.

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


def start(words, log, **environment):
    with log.open("a") as file:
        return subprocess.Popen(words, stderr=file, stdout=file, env=os.environ | environment, process_group=0)


def children(parent, program):
    """The processes below ``parent`` that run ``program``."""
    found = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    table = [line.split(None, 2) for line in found.splitlines()[1:]]
    below = {parent}
    for _ in range(4):
        below |= {int(pid) for pid, above, _ in table if int(above) in below}
    return sorted(int(pid) for pid, _, words in table if int(pid) in below - {parent} and program in words)


def wait_for(what, seconds=240.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


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
        alive = children(run.pid, "device_worker")
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
