"""How many processes an experiment gets, and which GPU each of them works on; the GPUs are made up."""

from types import SimpleNamespace

import pytest
import torch

from textdiff.experiments import job_runner, pool


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes so many GPUs with so much free memory."""

    def make(count, free=80e9, cores=64, visible=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(80e9)))
        monkeypatch.setattr(pool, "cores", lambda: cores)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


@pytest.mark.parametrize(
    ("count", "free", "cores", "device", "processes"),
    [
        (1, 80e9, 16, "auto", 3),
        (1, 17e9, 16, "auto", 2),
        (1, 4e9, 16, "cuda", 1),
        (4, 80e9, 8, "auto", 8),
        (4, 80e9, 64, "cuda:1", 3),
    ],
)
def test_gpus_are_shared_as_far_as_memory_and_cores_go(gpus, count, free, cores, device, processes):
    gpus(count, free, cores)
    assert pool.choose_processes(device) == processes
    assert pool.choose_processes(device, asked=7) == 7


def started(monkeypatch, tmp_path, device, processes):
    """The GPU, and how many share it, of each process as it would be started."""
    made = []
    monkeypatch.setattr(
        "subprocess.Popen",
        lambda command, env, **_: made.append((env.get("CUDA_VISIBLE_DEVICES"), int(command[-1]))),
    )
    config = SimpleNamespace(device=device)
    experiment = SimpleNamespace(path=tmp_path, threads=1, plan=SimpleNamespace(jobs=[SimpleNamespace(config=config)]))
    for number in range(processes):
        pool.start_process(experiment, number, processes)
    return made


def test_processes_go_to_the_gpus_in_turn(gpus, monkeypatch, tmp_path):
    gpus(2)
    assert started(monkeypatch, tmp_path, "auto", 3) == [("0", 2), ("1", 2), ("0", 2)]
    gpus(2, visible="5,GPU-ab")
    assert started(monkeypatch, tmp_path, "cuda", 2) == [("5", 1), ("GPU-ab", 1)]


def test_a_gpu_that_was_named_is_kept_to_and_a_cpu_has_none(gpus, monkeypatch, tmp_path):
    gpus(2)
    assert started(monkeypatch, tmp_path, "cuda:1", 2) == [(None, 2), (None, 2)]
    assert started(monkeypatch, tmp_path, "cpu", 2) == [(None, 2), (None, 2)]


def test_rows_that_stay_share_what_is_free_of_the_gpu(gpus, monkeypatch):
    gpus(1, free=8e9)
    block = 2 * 1000 * 100 * 100 * 2
    layout = SimpleNamespace(tokens=None, block_nbytes={6: block}.__getitem__)
    cache = SimpleNamespace(image_size=100, layout=layout)
    row = block + 8 * 100**2
    for rows, expected in ((10, 10 * row), (1000, 2e9)):
        cache.rows = [None] * rows
        runner = job_runner.JobRunner.__new__(job_runner.JobRunner)
        runner.processes = 2
        assert runner.budget(cache, [6], torch.device("cuda")) == expected
