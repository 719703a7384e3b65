"""What nothing vouches for in a bucket is found and removed, unless a process is at work there; killed, it goes on."""

import json
import threading

import pytest

from textdiff.cache import FeatureCache
from textdiff.cache.gc import collect
from textdiff.cache.stores import leases, writers
from textdiff.cache.stores.remote import RemoteStore
from textdiff.cache.stores.writers import removing, writing
from textdiff.cache.update import update_path
from textdiff.tests import cache_cases as cases
from textdiff.tests import object_store as cloud

pytest.importorskip("obstore")
pytest.importorskip("moto")


@pytest.mark.slow
def test_what_killed_processes_left_goes_and_a_kill_between_costs_nothing(url, monkeypatch):
    monkeypatch.setattr(leases, "SECONDS", 1.0)
    cache = cases.fill(cases.make(url))
    store, whole = cache.store, cloud.objects(url)
    kept = {"notes.txt": b"mine", "image/c.1.0.0.0/x": b"mine", "table/.lease-1-of-4": b"{}"}
    for key in ("table/.unfinished", "table/.writing-dead", "image/c.7.0.0.0", "mask/c.4.0.0", *kept):
        store.put(key, [kept.get(key, b"0123")])
    store.delete("ledger/c.2.0")
    update = RemoteStore(update_path(url, cache.fingerprint_hash, "0" * 64))
    for key in ("zarr.json", "table/c.0", "image/c.0.0.0.0"):
        update.put(key, [b"01"])
    before = cloud.objects(url.parent)
    listed = collect(url)
    assert {key for key in before if key not in cloud.objects(url.parent)} == {"c.zarr/table/.writing-dead"}
    removed = [one for one in listed if one.files]
    assert {(one.what.partition(" (")[0], one.files) for one in removed} == {
        ("left by a killed process", 1),
        ("chunks of rows that the table does not have", 1),
        ("a chunk that its row does not have", 1),
        ("row 2", sum(key.partition("/c.")[2].startswith("2.") for key in whole if "text" not in key) - 1),
        ("an update that was begun, damaged", 3),
    }
    assert {one.path for one in listed if not one.files} == {f"{url}/notes.txt", f"{url}/image/c.1.0.0.0/x"}

    def die(self, keys, remove=RemoteStore.remove):
        remove(self, [*keys][:4])
        raise cloud.Killed

    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "remove", die)
        with pytest.raises(cloud.Killed):
            collect(url, delete=True)
    left = collect(url, delete=True)
    assert sum(one.files or 0 for one in left) == sum(one.files for one in removed) - 4
    there = cloud.objects(url.parent)
    assert sum(map(len, before.values())) - sum(map(len, there.values())) == sum(one.nbytes for one in removed) + 4
    assert not any("update" in key for key in there)
    cases.fill(FeatureCache.open(url, writable=True))
    assert cloud.objects(url) == whole | kept


def test_a_writer_keeps_everything_and_one_that_comes_meanwhile_waits(url, monkeypatch):
    cache = cases.fill(cases.make(url), [1])
    store = cache.store
    whole = store.everything()
    store.delete("ledger/c.1.0")  # as between a row's chunks and its entry
    before = store.everything()
    monkeypatch.setattr(leases, "SECONDS", 6.0)  # renewed four times as often, and a busy machine may be late
    with writing(store):
        assert [one.what for one in collect(url, delete=True)] == ["in use"]
    assert store.everything() == before
    done = threading.Event()

    def write() -> None:
        with writing(store):
            done.set()

    child = cases.in_child(lambda: None)
    cases.ended(child)
    facts = {"here": writers.this_host(), "pid": child}
    store.put("table/.writing-killed", [json.dumps(facts).encode()])  # on this machine nobody has to wait to know
    with removing(store) as lease:
        assert lease is not None
        assert "table/.writing-killed" not in store.list("table")
        writer = threading.Thread(target=write)
        writer.start()
        assert not done.wait(1.0)
    writer.join()
    assert done.is_set()
    assert [one.what for one in collect(url, delete=True)] == ["row 1 (image 0, view 1), not in the ledger"]
    cases.fill(cache, [1])
    assert store.everything() == whole
