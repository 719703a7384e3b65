"""Ctrl-C and SIGTERM: the first asks a command to stop, the second ends it at once."""

__all__ = ["how_to_go_on", "say_how_to_go_on", "stop_on_signals", "stop_signals"]

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from textdiff import console

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_how = [""]


def say_how_to_go_on(how: str) -> None:
    """From now on who stops the command is told to repeat it like this: ``with --resume, which ...``."""
    # Whatever exception becomes of a stop, it could not say so: see ``stop_on_signals``.
    _how[0] = how


def how_to_go_on() -> str:
    """What was said last since the command began; nothing where it simply goes on."""
    return _how[0]


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Raises KeyboardInterrupt at the first signal; the second ends the process, whatever it is doing.

    The list it gives holds that first signal from then on: what was interrupted may make another exception of it.
    For a whole command: a signal after it, while Python shuts down, ends the process too. Python handles signals
    between two steps of the main thread, so C code that never returns would outlive any number of them. A guard process
    that hears of each signal as it arrives kills such a process.
    """
    received: list[int] = []
    say_how_to_go_on("")

    def interrupt(number: int) -> None:
        received.append(number)
        raise KeyboardInterrupt

    with _handled(interrupt, restore=False), _guarded():
        yield received


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects the first signal in the list it gives, so that the step under way can be finished and saved.

    The second one ends the process. Outside the main thread signals cannot be caught; the list stays empty.
    """
    received: list[int] = []

    def remember(number: int) -> None:
        received.append(number)
        console.info("\nstopping after this step")

    with _handled(remember, restore=True):
        yield received


@contextmanager
def _handled(first: Callable[[int], None], restore: bool) -> Iterator[None]:
    """Calls ``first`` at the first signal and leaves later ones to the kernel, which ends the process."""

    def handle(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        first(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A shell starts what it runs in the background with Ctrl-C ignored, and so it stays.
    before = {one: signal.getsignal(one) for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, handle)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler if restore else signal.SIG_DFL)


@contextmanager
def _guarded() -> Iterator[None]:
    """Keeps a guard process, which kills this one when Python has been sent a second signal."""
    # A copy of a process with threads may find locks that nobody will ever open.
    if threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    listen, tell = os.pipe()
    guarded = os.getpid()
    if (guard := os.fork()) == 0:
        _guard(listen, tell, guarded)
    os.close(listen)
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)
        with suppress(ChildProcessError):
            os.waitpid(guard, 0)


def _guard(listen: int, tell: int, guarded: int) -> None:
    """The guard's life. It ends with the process that it guards, which closes the other end of the pipe."""
    try:
        for one in (*_SIGNALS, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(one, signal.SIG_IGN)
        # Who reads our standard streams to their end must not wait for the guard.
        for stream in (0, 1, 2, tell):
            os.close(stream)
        heard = 0
        while heard < 2 and (said := os.read(listen, 1)):
            heard += said[0] in _SIGNALS
        if heard == 2 and os.getppid() == guarded:
            os.kill(guarded, signal.SIGKILL)
    finally:
        os._exit(0)
