"""The rows of a filling, one after the other: read ahead, computed, written behind."""

__all__ = ["fill_rows", "full_disk"]

import errno
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.extractor import Extractor
from textdiff.pipeline.extraction.filling import Filling, take_over
from textdiff.pipeline.extraction.prepare import Prepared
from textdiff.places import Location


class Counter(Protocol):
    """What is told of finished rows, such as ``console.Progress``."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts ``count`` more rows."""


def fill_rows(filling: Filling, prepare: Callable[[int], Prepared], backbone: Extractor, progress: Counter) -> None:
    """Reads ahead and writes behind while the backbone works; at most one row is in flight on either side."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        try:
            for ready in _ahead(reader, prepare, filling.to_do) if filling.to_do else ():
                if take_over(filling, ready):
                    progress.advance()
                    continue
                features = backbone(ready.image, ready.text)
                if written is not None:
                    written.result()
                    progress.advance()
                written = writer.submit(
                    filling.cache.write, ready.row, features, ready.image, ready.mask, ready.truth, ready.instances
                )
            if written is not None:
                written.result()
                progress.advance()
        except BaseException:
            reader.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def full_disk(place: Location, cache: FeatureCache) -> Iterator[None]:
    """Says of a disk that is full meanwhile what is safe there, and how much is to be freed.

    Raises:
        UserError: it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        left = len(cache.pending())
        raise UserError(
            f"{place}: the disk is full; the {len(cache.rows) - left} finished rows are safe. Free "
            f"{console.size(left * cache.row_nbytes)} and run the same command again to go on"
        ) from error


def _ahead(pool: ThreadPoolExecutor, prepare: Callable[[int], Prepared], rows: list[int]) -> Iterator[Prepared]:
    """``map(prepare, rows)`` with one call running ahead of the consumer."""
    following = pool.submit(prepare, rows[0])
    for row in rows[1:]:
        current, following = following, pool.submit(prepare, row)
        yield current.result()
    yield following.result()
