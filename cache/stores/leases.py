"""Leases: who works on what, among processes that share nothing but an object store.

A lease is an object that its holder writes again every few seconds. Whoever sees one that has not changed for
``SECONDS`` takes its holder for dead, and may have it: by a conditional PUT, which of several succeeds for one. Each
goes by its own clock and by nothing but changes, so clocks need not agree.

Leases save work, and guard nothing. Rows come out the same whoever makes them, and what is read is checked; so a holder
that was only slow, and whose lease another one has, does no harm by going on.
"""

__all__ = ["SECONDS", "Lease", "wait_for_dead"]

import json
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

from textdiff.cache.stores.remote import RemoteStore
from textdiff.errors import UserError

SECONDS = 60.0
"""How long a lease holds without a sign of life."""


class Lease:
    """A lease that is held, and renewed by a thread. Given back at the end of its context, unless that is an error."""

    def __init__(self, store: RemoteStore, key: str, tag: Any, data: dict[str, Any]) -> None:
        self.store, self.key = store, key
        self._tag, self._data = tag, data
        self._renewing = threading.Lock()  # between a renewal and the tag that it gives, the store's is not ours
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="textdiff-lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, store: RemoteStore, key: str, seen: Any = None, **facts: Any) -> "Lease | None":
        """Takes the lease that nobody has, or that is as it was ``seen``; None if another process was quicker."""
        data = {"owner": uuid.uuid4().hex, "seconds": SECONDS, "renewed": 0, **facts}
        tag = store.put_if(key, json.dumps(data).encode(), "create" if seen is None else seen)
        return None if tag is None else cls(store, key, tag, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # Of who fails it stays, so that another one goes on.
        if error is None:
            self.give_back()
        self._end()

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def held(self) -> bool:
        """Whether no other process has it by now."""
        with self._renewing:
            return self._tag is not None and self.store.tag(self.key) == self._tag

    def give_back(self) -> None:
        """Ends it; one that another process has stays."""
        self._end()
        if self.held:
            self.store.delete(self.key)

    def _renew(self) -> None:
        while self._tag is not None and not self._ended.wait(SECONDS / 4):
            self._data["renewed"] += 1
            with self._renewing, suppress(UserError):  # the store does not answer now: tried again next time
                self._tag = self.store.put_if(self.key, json.dumps(self._data).encode(), self._tag)


def wait_for_dead(store: RemoteStore, keys: Iterable[str]) -> tuple[str, Any] | None:
    """Watches leases until one has not changed for ``SECONDS``: its key and its tag.

    None as soon as all others were seen to be renewed, or are gone.
    """
    began = time.monotonic()
    first = {key: tag for key in keys if (tag := store.tag(key)) is not None}
    while first:
        time.sleep(SECONDS / 20)
        waited = time.monotonic() - began
        first = {key: tag for key, tag in first.items() if store.tag(key) == tag}
        if first and waited >= SECONDS:
            return next(iter(first.items()))
    return None
