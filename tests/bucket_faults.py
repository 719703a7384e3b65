"""``extract`` to a bucket under faults: killed, raced, over a network that fails, over objects that are damaged."""

import hashlib
from typing import Any

from textdiff.cache.stores.remote import RemoteStore
from textdiff.places import Url
from textdiff.tests.fault_cases import FAULTS, Outcome, Scene

FAILING = "requests fail (1 of 10), bodies break off (1 of 7), answers are late (1 of 30)"


class BucketScene(Scene):
    """A scene whose caches are in the bucket of ``object_store.bucket``, behind its proxy.

    Args:
        proxy: of that bucket.
    """

    def __init__(self, *arguments: Any, proxy: Any, **options: Any) -> None:
        self.proxy = proxy
        super().__init__(*arguments, **options)

    def fresh(self) -> Any:
        self._number += 1
        return Url(f"s3://bucket/faults/{self._number}/c.zarr")

    def tree(self, cache: Any) -> dict[str, str]:
        store = RemoteStore(cache)
        keys = [*store.everything()]
        return {
            key: hashlib.sha256(data).hexdigest() for key, data in zip(keys, store.map(store.get, keys), strict=True)
        }

    def entries(self, cache: Any) -> int:
        return len(RemoteStore(cache).list("ledger"))

    def beside(self, cache: Any) -> list[str]:
        beside = RemoteStore(cache.parent)
        return [key for key in beside.everything() if not key.startswith(cache.name + "/")]

    def drop(self, cache: Any) -> None:
        RemoteStore(cache).clear()

    def copied(self) -> Any:
        cache, source = self.fresh(), RemoteStore(self.whole)
        target = RemoteStore(cache)
        target.map(lambda key: target.put(key, [source.get(key)]), source.everything())
        return cache

    def read(self, cache: Any, name: str) -> bytes:
        return RemoteStore(cache).get(name)

    def write(self, cache: Any, name: str, data: bytes) -> None:
        RemoteStore(cache).put(name, [data])


def failing(scene: BucketScene, outcome: Outcome, times: int) -> None:
    """The network does while a command runs; it has to end well all the same."""
    proxy = scene.proxy
    for _ in range(times):
        cache = scene.fresh()
        proxy.fail, proxy.cut, proxy.delay = 10, 7, 30
        try:
            scene.told(scene.command(cache), outcome)
        finally:
            proxy.fail = proxy.cut = proxy.delay = 0
        outcome.unequal += scene.tree(cache) != scene.bytes
        scene.drop(cache)
        outcome.times += 1


BUCKET_FAULTS = {
    name: FAULTS[name]
    for name in (
        "SIGKILL at a random moment",
        "SIGKILL of one worker",
        "two writers race, one of every second pair is killed",
        "a flipped byte in each kind of object",
    )
} | {FAILING: failing}
