"""Does what is missing of an experiment, in as many processes as there is room for."""

__all__ = ["choose_processes", "run_experiment", "serve", "start_process"]

import json
import math
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from textdiff import console
from textdiff.errors import UserError
from textdiff.experiments.experiment import Experiment, Job, open_experiment
from textdiff.experiments.job_runner import JobRunner, available_memory, cores, groups_to_do
from textdiff.models.device import choose_device
from textdiff.pipeline.worker_process import attend_all, start_worker

PROCESS_BYTES = 2.5e9
"""What a process takes besides cached rows: PyTorch and one training step of the nano network at 256 pixels."""

ON_A_GPU = 3
"""Processes that share a GPU at most: a small head leaves most of it idle, a large one gains nothing from company."""
GPU_PROCESS_BYTES = 8e9
"""What a process takes of a GPU besides cached rows: CUDA itself, and a step of the paper's head at 256 pixels."""


def choose_processes(device: str, asked: int | None = None) -> int:
    """How many processes to use: as asked, or some for each GPU, or one for each core that there is memory for."""
    if asked is not None:
        return asked
    where = choose_device(device)
    if where.type == "cuda":
        gpus = len(_gpus(device)) or 1
        free = torch.cuda.mem_get_info(where)[0]
        return gpus * max(1, min(ON_A_GPU, cores() // gpus, int(free // GPU_PROCESS_BYTES)))
    if where.type != "cpu":
        return 1
    memory = available_memory()
    return max(1, min(cores(), cores() if memory is None else int(memory // PROCESS_BYTES)))


def run_experiment(experiment: Experiment, processes: int) -> list[str]:
    """Does all jobs that are not done. Each process does whole groups; which does which changes no result.

    Returns:
        What went wrong, one line each; the other jobs are done nevertheless.

    Raises:
        UserError: a process died.
        KeyboardInterrupt: stopped; the next call goes on.
    """
    todo = groups_to_do(experiment)
    total, missing = len(experiment.plan.jobs), len(experiment.missing())
    if not missing:
        console.info(f"{experiment.path}: {console.form(total, 'the only job is', f'all {total} jobs are')} done")
        return []
    processes = min(processes, len(todo))
    console.info(
        f"{experiment.path}: {missing} of {console.counted(total, 'job')} {console.form(missing, 'is', 'are')} to do, "
        f"by {processes} {console.form(processes, 'process', 'processes')} of "
        f"{console.counted(experiment.threads, 'thread')}{_on_gpus(experiment, processes)}; "
        "stop it whenever you like, the same command goes on"
    )
    with console.Progress(total, experiment.plan.kind, "jobs", done=total - missing) as progress:
        if processes == 1:
            return _here(experiment, todo, progress)
        return _elsewhere(experiment, todo, processes, progress)


def _gpus(device: str) -> list[str]:
    """The GPUs that processes are spread over, as CUDA_VISIBLE_DEVICES names them; none where ``device`` is one."""
    where = choose_device(device)
    if where.type != "cuda" or where.index is not None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _device(experiment: Experiment) -> str:
    return experiment.plan.jobs[0].config.device


def _sharing(experiment: Experiment, processes: int) -> int:
    """How many processes share the memory of one device, or of the machine."""
    return math.ceil(processes / (len(_gpus(_device(experiment))) or 1))


def _on_gpus(experiment: Experiment, processes: int) -> str:
    if choose_device(_device(experiment)).type != "cuda":
        return ""
    return f", {_sharing(experiment, processes)} on a GPU at most (--jobs changes that)"


def _here(experiment: Experiment, todo: dict[str, list[Job]], progress: console.Progress) -> list[str]:
    before = torch.get_num_threads()
    torch.set_num_threads(experiment.threads)
    failures: list[str] = []
    try:
        worker = JobRunner(experiment)
        for name, jobs in todo.items():
            failures += worker.do(jobs)
            progress.advance(len(jobs), note=name)
    finally:
        torch.set_num_threads(before)
    return failures


def _elsewhere(
    experiment: Experiment, todo: dict[str, list[Job]], processes: int, progress: console.Progress
) -> list[str]:
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in todo:
        names.put(name)
    lock, failures = threading.Lock(), list[str]()

    def done(name: str, found: list[str]) -> None:
        with lock:
            failures.extend(found)
            progress.advance(len(todo[name]), note=name)

    workers = [start_process(experiment, number, processes) for number in range(processes)]
    if dead := list(filter(None, attend_all(workers, lambda worker: _serve(worker, names, done)))):
        raise UserError(
            f"{experiment.path}: a process died while it did {dead[0]} (see the worker logs there); "
            "run the same command again, with a smaller --jobs if memory was short"
        )
    return failures


def start_process(experiment: Experiment, number: int, processes: int) -> "subprocess.Popen[str]":
    """A worker; its messages go to a file, because those of several would be mixed."""
    environment = {"OMP_NUM_THREADS": str(experiment.threads), "MKL_NUM_THREADS": str(experiment.threads)}
    if gpus := _gpus(_device(experiment)):
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    sharing = str(_sharing(experiment, processes))
    with (experiment.path / f"worker-{number}.log").open("a", encoding="utf-8") as log:
        return start_worker(__name__, str(experiment.path), sharing, environment=environment, stderr=log)


def serve(lines: Iterator[str], answer: Callable[[object], None], directory: str, sharing: str) -> None:
    """Does the groups of jobs that the lines name, in a process of its own; see ``serve_parent``.

    Args:
        lines: names of groups.
        answer: is given the list of what went wrong in each.
        directory: of the experiment.
        sharing: how many processes use the same device's memory.
    """
    experiment = open_experiment(Path(directory))
    # From the environment PyTorch takes no more than there are cores: fewer, where those who began had more.
    torch.set_num_threads(experiment.threads)
    worker = JobRunner(experiment, int(sharing))
    for group in lines:
        answer(worker.do(groups_to_do(experiment).get(group, [])))


def _serve(
    worker: "subprocess.Popen[str]", names: "queue.SimpleQueue[str]", done: Callable[[str, list[str]], None]
) -> str | None:
    """Gives one worker groups until there are no more; the group it died in, if it did.

    Raises:
        UserError: the machine failed it.
    """
    assert worker.stdin is not None
    assert worker.stdout is not None
    while True:
        try:
            name = names.get_nowait()
        except queue.Empty:
            return None
        try:
            print(name, file=worker.stdin, flush=True)
            answer = worker.stdout.readline()
        except OSError:
            return name
        if not answer:
            return name
        found = json.loads(answer)
        if isinstance(found, dict):
            raise UserError(found["error"])
        done(name, found)
