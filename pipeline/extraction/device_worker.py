"""A process that fills rows on one device, for ``device_crew``; it ends with its parent.

    python -m textdiff.pipeline.extraction.device_worker DEVICE

The first line of standard input is an order, every other one a part of the rows, sealed and in base64. Answers are JSON
on standard output: ``{"rows": n}`` as rows come to be, ``{"took": ...}`` at the end of a part, its ``Timings``, and
``{"error": ...}`` and status 2 where something is to be put right.
"""

__all__ = ["main"]

import base64
import json
import os
import queue
import sys
import threading

from textdiff.errors import explain
from textdiff.pipeline.worker_process import STOPPED, serve_parent


def main() -> None:
    """Serves until standard input ends; status 130 when that, or a signal, interrupts a part."""
    serve_parent(_serve)


def _serve(commands: "queue.SimpleQueue[str | None]", busy: threading.Event) -> int:
    # What libraries print must not come between the answers.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(what: str, value: object) -> None:
        os.write(answers, json.dumps({what: value}).encode() + b"\n")

    try:
        import torch

        from textdiff.pipeline.extraction.row_worker import Order, Part, RowWorker, opened

        device = sys.argv[1]
        if device.startswith("cuda"):
            torch.cuda.set_device(device)  # else every process takes memory of the first one, too
        worker: RowWorker | None = None
        while (line := commands.get()) is not None:
            match opened(base64.b64decode(line)):
                case Order() as order:
                    worker = RowWorker(order, device)
                case Part() as part:
                    assert worker is not None
                    answer("took", worker.fill(part, lambda count: answer("rows", count)).as_json())
            busy.clear()
    except BrokenPipeError:
        return STOPPED  # nobody is there to be told
    except Exception as error:
        if (said := explain(error)) is None:
            raise
        answer("error", said)
        return 2
    return 0


if __name__ == "__main__":
    main()
