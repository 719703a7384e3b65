"""The shards of a cache in an object store, and what becomes of those whose process has died."""

__all__ = ["shares"]

from collections.abc import Iterator
from dataclasses import replace

from textdiff import console
from textdiff.cache.stores import leases
from textdiff.cache.stores.remote import RemoteStore
from textdiff.cache.stores.writers import writing
from textdiff.cache.update import find_rows
from textdiff.pipeline.extraction.filling import Filling

# Beside the table, as what lists the group should not come across it.
_LEASE = "table/.lease-{}-of-{}"


def shares(filling: Filling, shard: tuple[int, int]) -> Iterator[Filling]:
    """The rows that this process is to do: its own, and then those of shards whose process shows no sign of life.

    Every process holds a lease on its shard while it works. One that has done its own watches the leases of the others,
    takes over what is left of those that are not renewed, and ends once all others are. A shard that no process has
    begun is left to the one that is to come. On a disk there are no leases, and each does its own.

    Args:
        filling: with this process's rows.
        shard: (k, n), which these are.
    """
    store, (own, count) = filling.cache.store, shard
    with writing(store):
        if not isinstance(store, RemoteStore) or count == 1:
            if filling.to_do:
                yield filling
            return
        names = {_LEASE.format(other, count): other for other in range(count)}
        mine = _LEASE.format(own, count)
        # Who is asked to do a shard does it, whoever had it before.
        if filling.to_do and (lease := leases.Lease.take(store, mine, store.tag(mine))) is not None:
            with lease:
                yield filling
        elif filling.to_do:
            yield filling
        while left := {row % count for row in filling.cache.pending()}:
            dead = leases.wait_for_dead(store, [name for name, other in names.items() if other in left])
            if dead is None:
                return
            name, tag = dead
            taken, made = find_rows(filling.cache, [filling.old] if filling.old else [], (names[name], count))
            if (lease := leases.Lease.take(store, name, tag)) is not None:
                console.info(
                    f"{filling.cache.path}: the process of --shard {names[name]}/{count} shows no sign of life; its "
                    f"{len(taken) + len(made)} rows are done here"
                )
                with lease:
                    yield replace(filling, taken=taken, made=made)
        for name in names:
            store.delete(name)  # of who was killed after its last row
