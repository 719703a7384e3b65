"""A process that does groups of jobs: their names come line by line on standard input, answers go to standard output.

    python -m textdiff.experiments.pool_worker DIRECTORY SHARING

SHARING processes use the same device's memory. The answer to a group is the list of what went wrong in it, or
``{"error": ...}`` where the machine failed: a full disk, too little memory. That ends the worker with status 2.
"""

__all__ = ["serve"]

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from textdiff.pipeline.worker_process import serve_parent


def serve(lines: Iterator[str], answer: Callable[[object], None]) -> None:
    """Does the groups that the lines name; see ``serve_parent``."""
    import torch

    from textdiff.experiments.experiment import open_experiment
    from textdiff.experiments.job_runner import JobRunner, groups_to_do

    experiment = open_experiment(Path(sys.argv[1]))
    # From the environment PyTorch takes no more than there are cores: fewer, where those who began had more.
    torch.set_num_threads(experiment.threads)
    worker = JobRunner(experiment, int(sys.argv[2]))
    for group in lines:
        answer(worker.do(groups_to_do(experiment).get(group, [])))


if __name__ == "__main__":
    serve_parent(serve)
