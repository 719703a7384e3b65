"""Pools of threads that Ctrl-C leaves none of behind."""

__all__ = ["started_pool"]

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads are all there, so that ``submit`` starts none and ``shutdown`` waits for each.

    A pool forgets a thread if Ctrl-C comes while it starts it, and that thread may write a row when all else has
    ended. Only the main thread is interrupted, so another one starts them.
    """
    pool, together = ThreadPoolExecutor(threads, name), Barrier(threads)

    def start() -> None:
        try:
            for _ in range(threads):
                pool.submit(together.wait)
        except RuntimeError:  # it was shut down: no further thread will come for the others to go on
            together.abort()

    starter = Thread(target=start)
    try:
        starter.start()
        starter.join()
    except BaseException:
        pool.shutdown(wait=False)
        raise
    return pool
