"""What runs on a worker of a Dask cluster: it finds out what it computes in, and fills parts of the rows.

The scheduler imports this module too, so PyTorch waits until a worker needs it.

Results are counts and seconds. What is to be put right is a result too: Dask would log an exception, and try
again what must fail.
"""

__all__ = ["fill_part", "probe"]

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from distributed import get_worker

from textdiff.errors import UserError, explain

if TYPE_CHECKING:
    from textdiff.options.shared import Precision
    from textdiff.pipeline.extraction.row_worker import RowWorker

# A worker may have several threads, which use one network and one cache one after the other.
_one_at_a_time = threading.Lock()


class _CancelledError(Exception):
    """Nobody waits for this part any more."""


def probe(device: str, precision: "Precision") -> dict[str, Any]:
    """What this worker computes in: ``{"precision": ...}``, or ``{"error": ...}``."""
    from textdiff.models.device import choose_device, resolve_precision

    try:
        return {"precision": resolve_precision(precision, choose_device(device))}
    except UserError as error:
        return {"error": str(error)}


def fill_part(order: bytes, part: bytes) -> dict[str, Any]:
    """Fills a part of the rows; what was done of it before a worker died is not done again.

    Args:
        order: a sealed ``Order``; the network of the last one stays loaded.
        part: a sealed ``Part``.

    Returns:
        ``{"took": ...}``, its ``Timings`` as JSON; ``{"error": ...}`` where something is to be put right.
    """
    from textdiff.pipeline.extraction.row_worker import Part, opened

    try:
        with _one_at_a_time:
            rows = opened(part)
            assert isinstance(rows, Part)
            return {"took": _row_worker(order).fill(rows, _stop_if_cancelled).as_json()}
    except _CancelledError:
        return {}  # nobody reads it
    except Exception as error:
        if (said := explain(error)) is None:
            raise
        return {"error": said}


@lru_cache(maxsize=1)
def _row_worker(order: bytes) -> "RowWorker":
    import torch

    from textdiff.pipeline.extraction.row_worker import Order, RowWorker, opened

    asked = opened(order)
    assert isinstance(asked, Order)
    # Dask sets the environment so that each of its threads computes alone; here one computes at a time.
    torch.set_num_threads(get_worker().state.nthreads)
    return RowWorker(asked)


def _stop_if_cancelled(count: int) -> None:
    """Dask cannot stop a thread: without this, a worker would go on after Ctrl-C until its part is done."""
    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    if task is None or task.state == "cancelled":
        raise _CancelledError
