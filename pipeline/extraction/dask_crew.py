"""The workers of a Dask cluster: each task is a part of the rows, which commit themselves.

Dask gives the tasks of a worker that is lost to others (https://distributed.dask.org/en/stable/resilience.html), and
what the lost one had finished is not made again. Only a few tasks for each worker are under way at a time, so the
scheduler's memory does not grow with the data set.
"""

__all__ = ["dask_crew", "task_rows"]

import logging
import math
import queue
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import textdiff
from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.options.shared import Precision
from textdiff.pipeline.extraction.row_worker import Job, sealed, split_rows
from textdiff.pipeline.extraction.timings import Timings

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 5.0
"""So often the rows that are there are counted: a task may take minutes, and a cluster ends many in a second."""
_LOOK_SHARE = 0.05
"""Counting takes at most this share of the time: it reads an entry of every row, and no task is given meanwhile."""
_LEAST_ROWS, _MOST_ROWS = 64, 512
_TASKS_EACH = 4
"""So many tasks a worker, if there are rows enough: at the end, others wait for the last one."""
_UNDER_WAY = 2
"""Tasks under way for each worker: the next one is there when one ends."""
_ROUNDS = 3
"""How often rows are asked for that a worker should have made and that are not there."""
_LOCAL = "local"


@contextmanager
def dask_crew(scheduler: str, device: str, precision: Precision) -> Iterator["DaskCrew"]:
    """The workers of ``scheduler``, or of a cluster of processes on this machine that ends with the context.

    Args:
        scheduler: ``tcp://host:port``, ``local`` for a process a core, or ``local:n``.
        device: where each worker computes.
        precision: as it was asked for.

    Raises:
        UserError: Dask is not installed, no scheduler is there, or its workers have no or another TextDiff.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError('--scheduler: needs Dask; pip install "textdiff[dask]"') from None
    with _quiet(), _cluster(scheduler) as cluster:
        try:
            if isinstance(cluster, str):
                _check_address(cluster)
            client = Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--scheduler {scheduler}: no Dask scheduler answers there ({_one_line(error)}); start one with `dask "
                "scheduler`, which says its address, or give local"
            ) from None
        with client:
            yield DaskCrew(client, scheduler, device, precision)


def _check_address(address: str) -> None:
    """Refuses what is no address before there is a client: one that was made for it would fail once more when it ends.

    Raises:
        ValueError: no port, or a protocol that Dask does not know.
    """
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    protocol, place = parse_address(address)
    get_backend(protocol)
    if protocol != "inproc":  # a scheduler in this process has no port
        parse_host_port(place)


class DaskCrew:
    """A crew of the workers that a scheduler has, however many that are from time to time."""

    def __init__(self, client: "Client", scheduler: str, device: str, precision: Precision) -> None:
        from textdiff.pipeline.extraction.dask_task import probe

        self._client, self._scheduler = client, scheduler
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._alone = False
        # A worker says what it computes in, once there is one; each checks it again by itself.
        future = self._submit(probe, device, precision)
        while self._next() is None:
            pass
        self.precision: str = self._result(future)["precision"]

    @property
    def where(self) -> str:
        """Who and where they are, in a few words."""
        return f"{console.counted(self._count(), 'Dask worker')} ({self._scheduler})"

    def fill(self, job: Job) -> Timings:
        """Has the rows made; see ``Crew``."""
        rows, took, before = job.rows, list[Timings](), job.progress.done

        def look() -> list[int]:
            """The rows that are not there yet; the progress is told of the others."""
            missing = set(job.cache.pending())
            left = [row for row in job.rows if row in missing]
            if more := before + len(job.rows) - len(left) - job.progress.done:
                job.progress.advance(more)
            return left

        for _ in range(_ROUNDS):
            self._fill(job, rows, took, look)
            rows = look()
            if not rows:
                return Timings.total(took)
        raise UserError(
            f"{job.order.config.cache}: {len(rows)} rows are not to be seen here after workers made them; all need the "
            "same file system at this path"
        )

    def _fill(self, job: Job, rows: Sequence[int], took: list[Timings], look: Callable[[], object]) -> None:
        from distributed import KilledWorker

        from textdiff.pipeline.extraction.dask_task import fill_part

        todo = deque(split_rows(job.cache, rows, task_rows(len(rows), self._count())))
        under_way: dict[object, tuple[Future[Any], list[int]]] = {}
        order, next_look = sealed(job.order), time.monotonic() + _LOOK_SECONDS
        try:
            while todo or under_way:
                while todo and len(under_way) < _UNDER_WAY * self._count():
                    part = todo.popleft()
                    future = self._submit(fill_part, order, job.sealed_part(part))
                    under_way[future.key] = future, part
                if (ended := self._next()) is not None:
                    future, part = under_way.pop(ended.key)
                    try:
                        took.append(Timings.of_json(self._result(future)["took"]))
                    except KilledWorker as error:
                        left = _what_is_left(part, job.cache, error.allowed_failures + 1)
                        todo.extend([left] if left else [])
                if (begun := time.monotonic()) >= next_look:
                    look()
                    ended_at = time.monotonic()
                    next_look = ended_at + max(_LOOK_SECONDS, (ended_at - begun) / _LOOK_SHARE)
        finally:
            self._client.cancel([future for future, _ in under_way.values()])

    def _submit(self, function: Any, *arguments: object) -> "Future[Any]":
        future = self._client.submit(function, *arguments, pure=False)
        future.add_done_callback(self._ended.put)
        return future

    def _next(self) -> "Future[Any] | None":
        """The next task that ends; None if none does for a while, of which the reason is said once."""
        try:
            return self._ended.get(timeout=CONNECT_SECONDS)
        except queue.Empty:
            alone = self._count() == 0
            if alone and not self._alone:
                console.info(f"{self._scheduler}: has no worker yet, or none any more; waiting for one")
            self._alone = alone
            return None

    def _result(self, future: "Future[Any]") -> dict[str, Any]:
        """What a task returned.

        Raises:
            UserError: something is to be put right.
            KilledWorker: several workers died of it.
        """
        from distributed import CancelledError

        try:
            result: dict[str, Any] = future.result()
        except CancelledError:
            raise UserError(
                f"--scheduler {self._scheduler}: the scheduler is gone; start one and run the same command again. "
                "Finished rows are kept"
            ) from None
        except Exception as error:
            if lacking := _import_error(error):
                raise UserError(
                    f"--scheduler {self._scheduler}: its workers or it cannot import TextDiff ({_one_line(lacking)}); "
                    f'install textdiff {textdiff.__version__} there, as with pip install "textdiff[dask]"'
                ) from error
            raise
        if "error" in result:
            raise UserError(result["error"])
        return result

    def _count(self) -> int:
        """How many workers there are now."""
        return len(self._client.nthreads())


def task_rows(rows: int, workers: int) -> int:
    """Rows of a task: few tasks where there are many rows, work for every worker where there are few."""
    workers = max(1, workers)
    few = min(_LEAST_ROWS, math.ceil(rows / workers))
    return max(1, few, min(_MOST_ROWS, rows // (_TASKS_EACH * workers)))


def _what_is_left(part: Sequence[int], cache: FeatureCache, times: int) -> list[int]:
    """The rows of a part that several workers died of one after the other, if these have made some of it.

    Raises:
        UserError: they have not, so more would die of it.
    """
    missing = set(cache.pending())
    left = [row for row in part if row in missing]
    if len(left) == len(part):
        first = cache.rows[part[0]]
        raise UserError(
            f"{cache.path}: {times} workers died one after the other where they made the {len(part)} rows from {first} "
            "on; see their logs, and give them more memory. Finished rows are kept, so run the same command again then"
        )
    return left


@contextmanager
def _cluster(scheduler: str) -> Iterator[Any]:
    """What a client connects to: the address, or a cluster of this machine."""
    name, _, number = scheduler.partition(":")
    if name != _LOCAL:
        yield scheduler
        return
    if number and not (number.isdecimal() and int(number)):
        raise UserError(f"--scheduler {scheduler}: must be an address, local, or as local:4 with a number of processes")
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    # Ctrl-C at a terminal goes to all its processes. Those that Dask starts, and starts again, inherit that the thread
    # from which they come does not hear it; this process does, and ends them.
    resource_tracker.ensure_running()  # it would end the blocking when it is first started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        cluster = LocalCluster(
            n_workers=int(number or CPU_COUNT),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with cluster:
        yield cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what Dask logs: a worker that is lost is no news for who reads ours."""
    names = ["distributed", "tornado", *(name for name in logging.root.manager.loggerDict if "distributed." in name)]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="distributed")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _import_error(error: BaseException | None) -> ImportError | None:
    """That what was asked of a worker could not be imported there, if this is why."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__ or error.__context__
    return error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
