"""Who writes to a cache in an object store, and who removes what nothing vouches for: never at the same time.

Each says that it is there, by a lease of its own, and looks for the other only then. So of two that come at once one at
least sees the other: who writes waits, and who removes gives it up.
"""

__all__ = ["WRITING", "removing", "this_host", "writing"]

import json
import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textdiff import console
from textdiff.cache.chunks import MissingError
from textdiff.cache.stores import leases
from textdiff.cache.stores.base import Store
from textdiff.cache.stores.remote import RemoteStore
from textdiff.files import alive

# Beside the table, as what lists the group should not come across it.
WRITING = "table/.writing-"
"""What the keys of writers' leases begin with."""
_REMOVING = "table/.removing"


@contextmanager
def writing(store: Store) -> Iterator[None]:
    """Says meanwhile that this process writes rows; waits first for who removes. On a disk locks say so."""
    if not isinstance(store, RemoteStore):
        yield
        return
    lease = leases.Lease.take(store, WRITING + uuid.uuid4().hex, here=this_host(), pid=os.getpid())
    assert lease is not None
    try:
        _clear(store)
        while store.tag(_REMOVING) is not None:
            if leases.wait_for_dead(store, [_REMOVING]) is not None:
                store.delete(_REMOVING)
        yield
    finally:
        lease.give_back()


@contextmanager
def removing(store: RemoteStore) -> Iterator[leases.Lease | None]:
    """The lease of who removes, which is to be held still; None where a process writes, or another one removes."""
    lease = leases.Lease.take(store, _REMOVING)
    if lease is None and (dead := leases.wait_for_dead(store, [_REMOVING])) is not None:
        lease = leases.Lease.take(store, *dead)
    if lease is None:
        yield None
        return
    try:
        yield None if _someone_writes(store) else lease
    finally:
        lease.give_back()


def _someone_writes(store: RemoteStore) -> bool:
    """Whether a writer shows a sign of life; the leases of those that show none are removed."""
    _clear(store)
    while found := _writers(store):
        console.info(f"{store.url}: may be written to; looking for {leases.SECONDS:g} s whether it is")
        if (dead := leases.wait_for_dead(store, found)) is None:
            return bool(_writers(store))
        store.delete(dead[0])
    return False


def _writers(store: RemoteStore) -> list[str]:
    return [key for key in store.list("table") if key.startswith(WRITING)]


def _clear(store: RemoteStore) -> None:
    """Removes the leases of processes of this machine that have ended, which nobody has to wait for to know."""
    for key in _writers(store):
        with suppress(MissingError, ValueError, TypeError, KeyError):
            said = json.loads(store.get(key))
            if said["here"] == this_host() and not alive(said["pid"]):
                store.delete(key)


def this_host() -> str:
    """The machine and, where there are several, the container whose numbers of processes ours is one of."""
    namespace = Path("/proc/self/ns/pid")
    return f"{platform.node()} {namespace.readlink() if namespace.is_symlink() else ''}"
