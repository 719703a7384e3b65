"""A process that does what its parent asks, line by line on standard input, and that ends with it.

When standard input closes in the middle of something, that is interrupted.
"""

__all__ = ["GRACE", "STOPPED", "serve_parent"]

import _thread
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

STOPPED = 130
GRACE = 30.0
"""Seconds for the end of what is interrupted, after which the process ends whatever it is doing."""


def serve_parent(serve: "Callable[[queue.SimpleQueue[str | None], threading.Event], int]") -> None:
    """Serves until standard input ends; status 130 when that, or a signal, interrupts something.

    Args:
        serve: gets the lines, None after the last, and an event that it clears when it has done what it was asked;
            returns the status.
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
        status = serve(commands, busy)
    finally:
        interrupted = stopped.is_set()
        stopped.set()  # from here on nothing is left to be interrupted but Python's own end
        # Whatever the interruption has become: PyTorch fails to close the file whose writing was interrupted.
        if interrupted:
            sys.exit(STOPPED)
    sys.exit(status)
