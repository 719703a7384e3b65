"""Many workers on one cache: what they make is what one process makes, byte for byte."""

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import textdiff
from textdiff.cache.staging import STAGED, staged, staging
from textdiff.errors import UserError
from textdiff.options.extract import Extract
from textdiff.pipeline import extract as stage
from textdiff.pipeline.extraction import dask_crew
from textdiff.pipeline.extraction.config import array_shard
from textdiff.pipeline.extraction.row_worker import Order, RowWorker, opened, part_of, sealed, split_rows
from textdiff.tests.cache_cases import left_by_the_dead
from textdiff.tests.worker_cases import OPTIONS, check, of_array, rows

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


@pytest.fixture
def cache(place, tmp_path):
    """Where a cache is to be: beside the first one, because a cache says where its data are, seen from there."""
    return place / f"{tmp_path.name}.zarr"


def begun(place, cache):
    """A cache without rows, the order to fill it, and what is known of its samples."""
    work = stage.Work(stage.resolve(options(place, cache)), None)
    filling = stage.begin_filling(work.config, work.plan(), work.embed)
    return filling.cache, Order.of(work.config, filling.cache), {fact.sample.id: fact for fact in work.facts}


def test_a_part_that_is_given_again_is_not_made_again(place, cache):
    cache, order, facts = begun(place, cache)
    worker = RowWorker(opened(sealed(order)))
    told = []
    for part in split_rows(cache, range(ROWS), 25):
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

    class Remembered(subprocess.Popen):
        def __init__(self, words, **options):
            super().__init__(words, **options)
            if "textdiff.pipeline.extraction.device_crew" in words:
                started.append(self)

    def kill():
        while not rows(cache):
            time.sleep(0.002)
        started[0].kill()

    monkeypatch.setattr(subprocess, "Popen", Remembered)
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


def test_dask_workers_make_the_cache_of_one_process(place, cache, scheduler, monkeypatch, capfd):
    monkeypatch.setattr(dask_crew, "task_rows", lambda rows, workers: 7)
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


def test_rows_are_counted_while_a_task_is_under_way(place, cache, scheduler, monkeypatch, capfd):
    """A task of a slow network takes minutes: without this its user sees no line, and then a rate that is too low."""
    ended, told = vars(dask_crew.DaskCrew)["_next"], []

    def late(crew):
        if cache.exists() and not told:
            while not rows(cache):
                time.sleep(0.002)
            told.append("")
            return None
        if told == [""]:
            told[0] = capfd.readouterr().err
        return ended(crew)

    monkeypatch.setattr(dask_crew, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(dask_crew.DaskCrew, "_next", late)
    textdiff.extract("monuseg", data=place / "data", cache=cache, scheduler=scheduler, **OPTIONS)
    assert re.search(rf"extract: [1-9]\d*/{ROWS} rows, ", told[0])


def test_counting_the_rows_takes_a_small_share_of_the_time_however_long_it_takes(place, cache, scheduler, monkeypatch):
    """It reads as many files as there are rows, and who reads gives no tasks meanwhile."""
    fill, looks = vars(dask_crew.DaskCrew)["_fill"], []

    def told(crew, job, rows, took, look):
        fill(crew, job, rows, took, lambda: looks.append(look()))

    monkeypatch.setattr(dask_crew, "task_rows", lambda rows, workers: 1)
    monkeypatch.setattr(dask_crew, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(dask_crew, "_LOOK_SHARE", 1e-9)  # so that the next time comes after the test
    monkeypatch.setattr(dask_crew.DaskCrew, "_fill", told)
    textdiff.extract("monuseg", data=place / "data", cache=cache, scheduler=scheduler, **OPTIONS)
    assert len(looks) == 1


def test_the_row_that_a_dead_worker_was_writing_goes_once_all_are_done_and_that_of_a_living_one_stays(
    place, cache, scheduler, monkeypatch
):
    fill = dask_crew.DaskCrew.fill

    with ExitStack() as stack:

        def one_dies(crew, job):
            took = fill(crew, job)
            left_by_the_dead(cache / STAGED, "row")
            living.append(stack.enter_context(staging(cache / STAGED, "row")))
            return took

        living = []
        monkeypatch.setattr(dask_crew.DaskCrew, "fill", one_dies)
        textdiff.extract("monuseg", data=place / "data", cache=cache, scheduler=scheduler, **OPTIONS)
        assert staged(cache / STAGED, "row") == living
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
    assert dask_crew.task_rows(rows, workers) == size


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


@pytest.mark.parametrize("scheduler", ["nowhere", "bogus://127.0.0.1:8786"])
def test_what_is_no_address_begins_no_client_which_would_end_in_a_traceback(monkeypatch, scheduler):
    monkeypatch.setattr("distributed.Client", lambda *_, **__: pytest.fail("a client was made"))
    with (
        pytest.raises(UserError, match=f"--scheduler {scheduler}: no Dask scheduler"),
        dask_crew.dask_crew(scheduler, "cpu", "auto"),
    ):
        pass


def test_without_dask_the_command_to_install_it_is_told(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r'needs Dask; pip install "textdiff\[dask\]"'):
        stage.extract(options(place, tmp_path / "cache.zarr", scheduler="local"))


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
