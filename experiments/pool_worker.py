"""A process that does groups of jobs: their names come line by line on standard input, answers go to standard output.

    python -m textdiff.experiments.pool_worker DIRECTORY SHARING

SHARING processes use the same device's memory.

It ends with its parent: when standard input closes in the middle of a group, that group is interrupted.
"""

__all__ = ["main"]

import _thread
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from textdiff.errors import UserError, explain

STOPPED = 130
GRACE = 30.0
"""Seconds for the end of a group that is interrupted, after which the process ends whatever it is doing."""


def main() -> None:
    """Serves until standard input ends; status 130 when that, or a signal, interrupts a group.

    The answer to a group is the list of what went wrong in it, or ``{"error": ...}`` where the machine failed: a full
    disk, too little memory. That ends the worker with status 2.
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

    status = 1
    try:
        for one in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, stop)
        threading.Thread(target=listen, daemon=True).start()
        status = _serve(commands, busy)
    finally:
        # Whatever the interruption has become: PyTorch fails to close the file whose writing was interrupted.
        if stopped.is_set():
            sys.exit(STOPPED)
    sys.exit(status)


def _serve(commands: "queue.SimpleQueue[str | None]", busy: threading.Event) -> int:
    try:
        import torch

        from textdiff.experiments.experiment import open_experiment
        from textdiff.experiments.job_runner import JobRunner, groups_to_do

        experiment = open_experiment(Path(sys.argv[1]))
        # From the environment PyTorch takes no more than there are cores: fewer, where those who began had more.
        torch.set_num_threads(experiment.threads)
        worker = JobRunner(experiment, int(sys.argv[2]))
        while (group := commands.get()) is not None:
            failures = worker.do(groups_to_do(experiment).get(group, []))
            busy.clear()
            print(json.dumps(failures), flush=True)
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else explain(error)
        if line is None:
            raise
        print(json.dumps({"error": line}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    main()
