"""A process that does groups of jobs: their names come line by line on standard input, answers go to standard output.

    python -m textdiff.experiments.pool_worker DIRECTORY SHARING

SHARING processes use the same device's memory.

It ends with its parent.
"""

__all__ = ["main"]

import json
import queue
import sys
import threading
from pathlib import Path

from textdiff.errors import explain
from textdiff.pipeline.worker_process import serve_parent


def main() -> None:
    """Serves until standard input ends; status 130 when that, or a signal, interrupts a group.

    The answer to a group is the list of what went wrong in it, or ``{"error": ...}`` where the machine failed: a full
    disk, too little memory. That ends the worker with status 2.
    """
    serve_parent(_serve)


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
        if (line := explain(error)) is None:
            raise
        print(json.dumps({"error": line}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    main()
