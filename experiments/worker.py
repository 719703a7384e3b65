"""A process that does groups of jobs: their names come line by line on standard input, answers go to standard output.

    python -m textdiff.experiments.worker DIRECTORY PROCESSES

It ends with its parent: when standard input closes in the middle of a group, that group is interrupted.
"""

__all__ = ["main"]

import _thread
import json
import queue
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from textdiff.errors import UserError, explain


def main() -> None:
    """Serves until standard input ends; status 130 when that, or a signal, interrupts a group.

    The answer to a group is the list of what went wrong in it, or ``{"error": ...}`` where the machine failed: a full
    disk, too little memory. That ends the worker with status 2.
    """
    signal.signal(signal.SIGTERM, _stop)
    commands: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            commands.put(line.strip())
        commands.put(None)
        if busy.is_set():
            # Not SIGINT: shells start commands in the background with that one ignored, and nothing would happen.
            _thread.interrupt_main(signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()
    try:
        import torch

        from textdiff.experiments.jobs import open_experiment
        from textdiff.experiments.work import Worker, groups_to_do

        experiment = open_experiment(Path(sys.argv[1]))
        # From the environment PyTorch takes no more than there are cores: fewer, where those who began had more.
        torch.set_num_threads(experiment.threads)
        worker = Worker(experiment, int(sys.argv[2]))
        while (group := commands.get()) is not None:
            busy.set()
            failures = worker.do(groups_to_do(experiment).get(group, []))
            busy.clear()
            print(json.dumps(failures), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else explain(error)
        if line is None:
            raise
        print(json.dumps({"error": line}), flush=True)
        sys.exit(2)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
