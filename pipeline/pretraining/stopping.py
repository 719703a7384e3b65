"""Stopping long work where it can go on from."""

__all__ = ["stop_signals"]

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from textdiff import console


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM in the list it gives, so that the step under way can be finished and saved.

    A second signal raises KeyboardInterrupt at once. Outside the main thread signals cannot be caught; the list stays
    empty.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        console.info("")
        console.info("stopping after this step")

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
