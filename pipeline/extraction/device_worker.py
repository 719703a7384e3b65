"""A process that fills rows on one device, for ``device_crew``; it ends with its parent.

    python -m textdiff.pipeline.extraction.device_worker DEVICE

The first line of standard input is an order, every other one a part of the rows, sealed and in base64. Answers are JSON
on standard output: ``{"rows": n}`` as rows come to be, ``{"took": ...}`` at the end of a part, its ``Timings``, and
``{"error": ...}`` and status 2 where something is to be put right.
"""

__all__ = ["serve"]

import base64
import sys
from collections.abc import Callable, Iterator

from textdiff.pipeline.worker_process import serve_parent


def serve(lines: Iterator[str], answer: Callable[[object], None]) -> None:
    """Fills the parts of the rows that the lines are; see ``serve_parent``."""
    import torch

    from textdiff.pipeline.extraction.row_worker import Order, Part, RowWorker, opened

    device = sys.argv[1]
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


if __name__ == "__main__":
    serve_parent(serve)
