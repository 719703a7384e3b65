"""Several devices of this machine: a process each, which take parts of the rows as they get done with the last."""

__all__ = ["DeviceCrew", "serve"]

import base64
import json
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from textdiff import console
from textdiff.errors import UserError
from textdiff.models.device import choose_device, resolve_precision
from textdiff.options.shared import Precision
from textdiff.pipeline.extraction.row_worker import Job, Order, Part, RowWorker, opened, sealed, split_rows
from textdiff.pipeline.extraction.timings import Timings
from textdiff.pipeline.worker_process import attend_all, start_worker

_LARGEST_PART = 64
_PARTS_EACH = 8
"""So many parts a process, if there are rows enough: at the end, others wait for the last one."""


class DeviceCrew:
    """A crew of one process for each device.

    Args:
        devices: numbers of GPUs, or names of devices; one named twice has two processes.
        precision: as it was asked for.

    Raises:
        UserError: there is no such device, or one computes in another precision than the others.
    """

    def __init__(self, devices: Sequence[str], precision: Precision) -> None:
        names = [f"cuda:{name}" if name.isdecimal() else name for name in devices]
        found = {name: resolve_precision(precision, choose_device(name)) for name in names}
        if len(set(found.values())) > 1:
            each = ", ".join(f"{name} in {its}" for name, its in found.items())
            raise UserError(f"--devices: {each}; give --precision float32, or devices of one kind")
        self._devices = names
        self.precision: str = found[names[0]]
        self.where = f"{len(names)} processes ({', '.join(names)})"

    def fill(self, job: Job) -> Timings:
        """Has the rows made; see ``Crew``."""
        size = max(1, min(_LARGEST_PART, len(job.rows) // (len(self._devices) * _PARTS_EACH)))
        work = _Work(job, size)
        workers = [_start(device, self._devices.count("cpu")) for device in self._devices]
        attend_all(workers, lambda worker: _attend(worker, job, work), work.stop)
        work.check()
        return Timings.total(work.took)


class _Work:
    """The parts that are still to be done, shared by the threads that attend to one worker each."""

    def __init__(self, job: Job, size: int) -> None:
        self._job, self._todo = job, deque(split_rows(job.cache, job.rows, size))
        self._given = 0
        self._changed = threading.Condition()
        self._error: str | None = None
        self._deaths: list[str] = []
        self.took: list[Timings] = []
        """Where the time of each finished part went."""

    def take(self) -> list[int] | None:
        """The next part; waits for those that others have, as they may die. None if there is nothing to come."""
        with self._changed:
            while not self._todo and self._given and self._error is None:
                self._changed.wait()
            if not self._todo or self._error is not None:
                return None
            self._given += 1
            return self._todo.popleft()

    def advance(self, count: int) -> None:
        """Counts rows; fewer than none where a part has to be looked at again."""
        with self._changed:
            self._job.progress.advance(count)

    def done(self, took: Timings) -> None:
        """Ends a part, all of whose rows are there."""
        self.took.append(took)
        self.end()

    def end(self, rows: list[int] | None = None, death: str | None = None, error: str | None = None) -> None:
        """Ends a part: it is done, its worker died of ``death`` and ``rows`` are to be done, or all is to end."""
        with self._changed:
            self._given -= 1
            self._error = self._error or error
            if rows and death:
                self._todo.append(rows)
                self._deaths.append(death)
                if error is None and self._error is None:
                    console.warn(f"a worker {death}; its rows are done by the others")
            self._changed.notify_all()

    def stop(self) -> None:
        """Keeps what ends now from being taken for a death."""
        with self._changed:
            self._error = self._error or "stopped"
            self._changed.notify_all()

    def check(self) -> None:
        """Raises UserError if not all was done."""
        if self._error is not None:
            raise UserError(self._error)
        if self._todo:
            left = sum(map(len, self._todo))
            raise UserError(
                f"{self._job.order.config.cache}: the last worker {self._deaths[-1]}, and up to {left} rows are left; "
                "run the same command again, with fewer --devices if memory was short"
            )


def _attend(worker: "subprocess.Popen[str]", job: Job, work: _Work) -> None:
    """Gives one worker parts until there are no more, or it dies."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    first = sealed(job.order)
    while (rows := work.take()) is not None:
        counted, end = 0, dict[str, Any]()
        try:
            for data in filter(None, (first, job.sealed_part(rows))):
                print(base64.b64encode(data).decode(), file=worker.stdin, flush=True)
            first = b""
            while not end and (line := worker.stdout.readline()):
                said = json.loads(line)
                if "rows" in said:
                    counted += said["rows"]
                    work.advance(said["rows"])
                else:
                    end = said
        except OSError:
            pass  # it died while it was written to
        if "took" in end:
            work.done(Timings.of_json(end["took"]))
            continue
        work.advance(-counted)
        work.end(rows, _death(worker), None if "error" not in end else str(end["error"]))
        return


def _death(worker: "subprocess.Popen[str]") -> str:
    status = worker.wait()
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"ended {how}"


def _start(device: str, on_cpu: int) -> "subprocess.Popen[str]":
    environment = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // on_cpu))} if device == "cpu" else {}
    # In a group of its own: who presses Ctrl-C stops this process, which stops the others.
    return start_worker(__name__, device, environment=environment, process_group=0)


def serve(lines: Iterator[str], answer: Callable[[object], None], device: str) -> None:
    """Fills rows on one device, in a process of its own; see ``serve_parent``.

    Args:
        lines: an order first, then parts of the rows, sealed and in base64.
        answer: is given ``{"rows": n}`` as rows come to be, and ``{"took": ...}``, its ``Timings``, after a part.
        device: where to compute.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # else every process takes memory of the first one, too
    worker: RowWorker | None = None
    for line in lines:
        match opened(base64.b64decode(line)):
            case Order() as order:
                worker = RowWorker(order, device)
            case Part() as part:
                assert worker is not None
                answer({"took": worker.fill(part, lambda count: answer({"rows": count})).as_json()})
