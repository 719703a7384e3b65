"""Where the bytes of a cache are: on a disk (``local``), or in an object store (``remote``), behind one protocol.

The modules: ``base`` (the protocol), ``local``, ``remote``, ``refusals`` (what an object store's errors mean),
``leases`` (who works on what), ``writers`` (and who removes what nothing vouches for), ``exchange`` (one cache in the
place of another).
"""

__all__ = ["Batch", "Store", "store_at"]

from textdiff.cache.stores.base import Batch, Store
from textdiff.cache.stores.local import LocalStore
from textdiff.cache.stores.remote import RemoteStore
from textdiff.places import Location, Url


def store_at(place: Location) -> Store:
    """The store of the cache at a place; nothing is asked of it yet."""
    return RemoteStore(place) if isinstance(place, Url) else LocalStore(place)
