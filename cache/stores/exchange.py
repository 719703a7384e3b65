"""A cache in an object store put in the place of another, where nothing can be renamed.

The new one is copied object by object, by the store itself. So there is a time in which the place holds neither; a
lease beside it says so, and by which cache it is to be filled. Whoever finds that lease without its holder does the
whole once more, which gives the same whatever was done already.
"""

__all__ = ["complete", "exchange", "updates"]

import fnmatch
import json

from textdiff import console
from textdiff.cache.stores.leases import Lease, wait_for_dead
from textdiff.cache.stores.remote import ROOT, RemoteStore
from textdiff.cache.stores.writers import WRITING, writing
from textdiff.places import Url


def updates(final: Url, pattern: str) -> list[Url]:
    """The caches beside the one at ``final`` whose names fit a pattern."""
    names = RemoteStore(final.parent).children()
    return [final.with_name(name) for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]


def exchange(new: Url, final: Url, marker: Url) -> None:
    """Puts the complete cache ``new`` in the place of the one at ``final``; of several processes, one does it.

    Args:
        new: is removed.
        final: what is there is removed.
        marker: the lease on doing that.
    """
    lease = Lease.take(RemoteStore(marker.parent), marker.name, new=new.name)
    if lease is None:
        complete(final, marker)  # another process is at it
        return
    with lease:
        _copy(new, final)


def complete(final: Url, marker: Url) -> None:
    """Waits for an exchange that is under way, and ends one whose process has died."""
    store = RemoteStore(marker.parent)
    if store.tag(marker.name) is None:
        return
    console.info(f"{final}: is being replaced by an updated cache; waiting for that")
    while (tag := store.tag(marker.name)) is not None:
        if wait_for_dead(store, [marker.name]) is None:
            continue
        new = json.loads(store.get(marker.name))["new"]
        if (lease := Lease.take(store, marker.name, tag, new=new)) is not None:
            with lease:
                _copy(final.with_name(new), final)


def _copy(new: Url, final: Url) -> None:
    source, target = RemoteStore(new), RemoteStore(final)
    wanted = source.everything()
    if ROOT in wanted:  # else it was copied to the end: of the source the root is removed first
        with writing(target):
            target.delete(ROOT)
            target.remove(key for key in target.everything().keys() - wanted.keys() if not key.startswith(WRITING))
            with target.replacing(ROOT) as batch:
                for key in sorted(wanted, key=lambda key: key == ROOT):
                    batch.copy(key, source, key)
    source.clear()
