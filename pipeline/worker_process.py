"""Processes that do what their parent asks, line by line on standard input, and that end with it.

    python -m textdiff.pipeline.worker_process MODULE ARGUMENTS

When standard input closes in the middle of something, that is interrupted.
"""

__all__ = ["GRACE", "STOPPED", "attend_all", "serve_parent", "start_worker"]

import _thread
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar

from textdiff.errors import explain

T = TypeVar("T")

STOPPED = 130
GRACE = 30.0
"""Seconds for the end of what is interrupted, after which the process ends whatever it is doing."""


def start_worker(
    module: str, *arguments: str, environment: Mapping[str, str], **options: Any
) -> "subprocess.Popen[str]":
    """A process that serves this one by a module's ``serve``.

    Args:
        module: one with ``serve(lines, answer, *arguments)``; see ``serve_parent``.
        arguments: more for it.
        environment: what it has beside that of this process.
        options: more for ``subprocess.Popen``.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "textdiff.pipeline.worker_process", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        **options,
    )


def attend_all(
    workers: "Sequence[subprocess.Popen[str]]",
    attend: "Callable[[subprocess.Popen[str]], T]",
    failed: Callable[[], object] = bool,
) -> list[T]:
    """What ``attend`` returns of each worker, with a thread for each; then, and at an error, the workers are ended.

    ``failed`` is called at an error before they are.
    """

    def stop() -> None:
        for worker in workers:
            worker.terminate()

    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            try:
                return list(pool.map(attend, workers))
            except BaseException:
                # Before the pool is waited for: its threads wait for the workers.
                failed()
                stop()
                raise
    finally:
        stop()
        for worker in workers:
            worker.communicate()


def serve_parent(serve: Callable[[Iterator[str], Callable[[object], None]], None]) -> None:
    """Serves until standard input ends; status 130 when that, or a signal, interrupts something.

    What is to be put right is answered as ``{"error": ...}``, and ends the process with status 2.

    Args:
        serve: is given the lines, each once the one before is done, and what answers with a value, as a line of JSON
            on standard output.
    """
    commands: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy, stopped = threading.Event(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        # The parent may ask several times, and each would interrupt what cleans up after the one before.
        if not stopped.is_set():
            stopped.set()
            raise KeyboardInterrupt

    def listen() -> None:
        for line in sys.stdin:
            busy.set()
            commands.put(line.strip())
        commands.put(None)
        if busy.is_set():
            # Not SIGINT: shells start commands in the background with that one ignored, and nothing would happen.
            _thread.interrupt_main(signal.SIGTERM)
            # Python drops an interruption that falls into a destructor or a callback from C.
            time.sleep(GRACE)
            os._exit(STOPPED)

    def lines() -> Iterator[str]:
        while (line := commands.get()) is not None:
            yield line
            busy.clear()

    # What libraries print must not come between the answers.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(value: object) -> None:
        os.write(answers, json.dumps(value).encode() + b"\n")

    status = 1
    try:
        for one in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, stop)
        threading.Thread(target=listen, daemon=True).start()
        serve(lines(), answer)
        status = 0
    except BrokenPipeError:
        status = STOPPED  # nobody is there to be told
    except Exception as error:
        if (said := explain(error)) is None:
            raise
        answer({"error": said})
        status = 2
    finally:
        interrupted = stopped.is_set()
        stopped.set()  # from here on nothing is left to be interrupted but Python's own end
        # Whatever the interruption has become: PyTorch fails to close the file whose writing was interrupted.
        if interrupted:
            sys.exit(STOPPED)
    sys.exit(status)


if __name__ == "__main__":
    # Imported once it can be interrupted: PyTorch takes seconds.
    serve_parent(lambda lines, answer: import_module(sys.argv[1]).serve(lines, answer, *sys.argv[2:]))
