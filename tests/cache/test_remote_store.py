"""A cache in an object store: the bytes of one on a disk, whatever breaks off on the way, and nothing half there."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from textdiff.cache import CacheError, FeatureCache
from textdiff.cache.stores import leases, remote, store_at
from textdiff.places import Url, located
from textdiff.tests import cache_cases as cases
from textdiff.tests import object_store as cloud
from textdiff.tests.file_tools import files

pytest.importorskip("obstore")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> FeatureCache:
    """The same with its first two rows."""
    return cases.fill(cases.make(tmp_path_factory.mktemp("begun") / "c.zarr"), [0, 1])


def held(cache: FeatureCache, row: int) -> list[np.ndarray | None]:
    return [
        *(cache.features(row, block) for block in cache.blocks),
        cache.image(row),
        cache.mask(row),
        cache.truth(row),
    ]


def same(cache: FeatureCache, whole: FeatureCache, row: int) -> bool:
    return all(
        np.array_equal(a, b) if b is not None else a is None
        for a, b in zip(held(cache, row), held(whole, row), strict=True)
    )


def test_faults_on_the_way_leave_the_bytes_of_a_cache_on_a_disk_and_rows_read_as_there(proxy, url, whole):
    proxy.fail, proxy.cut, proxy.delay = 10, 7, 50
    cache = cases.fill(cases.make(url))
    assert all(same(FeatureCache.open(url), whole, row) for row in (0, 4, 5))
    assert cache.pending() == []
    assert cache.verify() == []
    assert all(proxy.seen[fault] >= 3 for fault in ("failed", "cut", "delayed"))
    proxy.fail = proxy.cut = proxy.delay = 0
    assert cloud.objects(url) == files(whole.path)
    assert cache.info() | {"path": ""} == whole.info() | {"path": ""}


def test_of_a_new_cache_the_root_is_put_last_and_of_a_row_the_ledgers_entry(proxy, url):
    cache = cases.make(url)
    assert proxy.stored[-1].endswith(".zarr/zarr.json")
    assert sum(key.endswith(".zarr/zarr.json") for key in proxy.stored) == 1
    proxy.stored.clear()
    cases.fill(cache, [3])
    assert len(proxy.stored) == 13
    assert proxy.stored[-1].endswith("/ledger/c.3.0")


def test_zarr_opens_it_through_obstore(url, whole):
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    cases.fill(cases.make(url), [2])
    group = zarr.open(ObjectStore(from_url(str(url), client_options={"allow_http": True}), read_only=True), mode="r")
    here = zarr.open(whole.path, mode="r")
    for name in ("features/b08", "image", "truth"):
        assert np.array_equal(group[name][2], here[name][2])


@pytest.mark.parametrize(
    "requests", [0, 12, 20, 32, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 19, 25, 33, 40))]
)
def test_who_is_killed_leaves_nothing_that_is_vouched_for_and_the_next_one_ends_with_the_same_bytes(
    url, begun, whole, requests, monkeypatch
):
    """The process stops for good at its n-th PUT: all its threads, as with SIGKILL."""
    left, put = [requests], remote.RemoteStore.put

    def die(self, key, parts):
        left[0] -= 1
        if left[0] < 0:
            raise cloud.Killed
        put(self, key, parts)

    with monkeypatch.context() as patch:
        patch.setattr(remote.RemoteStore, "put", die)
        with pytest.raises(cloud.Killed):
            cases.fill(cases.make(url), [0, 1])
    try:
        cache = FeatureCache.open(url)
    except CacheError:
        assert requests < 21
    else:
        assert all(same(cache, whole, row) for row in np.flatnonzero(cache.done()))
    cache = cases.make(url)
    cases.fill(cache, sorted({0, 1} & {*cache.pending()}))
    assert cache.verify() == []
    assert cloud.objects(url) == files(begun.path)


@pytest.mark.parametrize(
    "key", [pytest.param("truth/c.0.0.0", marks=pytest.mark.slow), "features/b08/c.1.2.0.0.0", "ledger/c.1.0"]
)
def test_a_flipped_byte_is_found_and_mended(url, begun, key):
    store, good = store_at(url), files(begun.path)
    cases.fill(cases.make(url), [0, 1])
    row = int(key.split(".")[1])
    store.put(key, [bytes([good[key][0] ^ 4]) + good[key][1:]])
    cache = FeatureCache.open(url, writable=True)
    faults = cache.verify()
    assert [(fault.row, fault.array) for fault in faults] == [(row, key.partition("/c.")[0])]
    assert key.startswith("ledger") == (not cache.done()[row])
    cache.forget([row])
    cases.fill(cache, [row])
    assert cloud.objects(url) == good


def test_a_reader_of_a_cache_that_was_replaced_stops(url, monkeypatch):
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.0)
    reader = cases.fill(cases.make(url), [0])
    reader.image(0)
    time.sleep(1.1)  # S3 tells times in seconds
    cases.make(url, overwrite=True)
    with pytest.raises(CacheError, match="was replaced by another cache"):
        reader.image(0)


def test_of_several_that_find_a_lease_without_a_sign_of_life_one_gets_it(url, monkeypatch):
    monkeypatch.setattr(leases, "SECONDS", 6.0)  # renewed four times as often, and a busy machine may be late
    store = remote.RemoteStore(url)
    with leases.Lease.take(store, "alive"):
        assert leases.wait_for_dead(store, ["alive", "none"]) is None
        assert leases.Lease.take(store, "alive") is None
    assert store.everything() == {}
    monkeypatch.setattr(leases, "SECONDS", 0.2)
    store.put("dead", [b"{}"])
    found = leases.wait_for_dead(store, ["dead"])
    assert found is not None
    with ThreadPoolExecutor(4) as pool:
        got = [lease for lease in pool.map(lambda _: leases.Lease.take(store, *found), range(4)) if lease]
    assert len(got) == 1
    with got[0]:
        pass
    assert store.everything() == {}


def test_a_lease_is_held_while_it_is_being_renewed(url, monkeypatch):
    monkeypatch.setattr(leases, "SECONDS", 0.4)
    store = remote.RemoteStore(url)
    renewed, answered = threading.Event(), threading.Event()

    class LateAnswers(remote.RemoteStore):
        def put_if(self, key, data, mode):
            tag = store.put_if(key, data, mode)
            if mode != "create" and not answered.is_set():
                renewed.set()
                assert answered.wait(60)
            return tag

    with leases.Lease.take(LateAnswers(url), "mine") as lease:
        assert renewed.wait(60)
        threading.Timer(0.3, answered.set).start()
        assert lease.held


def test_a_path_that_was_made_of_an_address_is_one_again():
    address = Url("s3://bucket/a/x.zarr")
    assert located(Path(str(address))) == located(str(address)) == address
    assert str(address) == "s3://bucket/a/x.zarr"
    assert (address.bucket, address.key, address.name) == ("s3://bucket", "a/x.zarr", "x.zarr")
    assert located("a/x.zarr") == Path("a/x.zarr")
    assert located("C://a/x.zarr") == Path("C://a/x.zarr")


AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}


@pytest.mark.parametrize(
    ("url", "environment", "words"),
    [
        ("s3://none/x.zarr", {}, ["there is no such bucket", "s3://none/x.zarr"]),
        ("s3://bucket/none.zarr", {}, ["no such cache; make it with textdiff extract"]),
        ("s3://", {}, ["names no bucket"]),
        ("S3://bucket/x.zarr", {}, ["an address of a kind that is not read", "s3://, gs://, az://"]),
        ("https://host/x.zarr", {}, ["an address of a kind that is not read", "give a path"]),
        ("s3://bucket/x.zarr", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ["cannot be reached", "check the network"]),
        ("s3://bucket/x.zarr", {"AWS_ALLOW_HTTP": "false"}, ["AWS_ALLOW_HTTP=true"]),
        ("az://bucket/x.zarr", {}, ["no credentials were found", "AZURE_STORAGE_ACCOUNT_NAME"]),
        ("s3://bucket/x.zarr", {"obstore": ""}, ["pip install 'textdiff[cloud]'"]),
    ],
    ids=["bucket", "cache", "name", "capitals", "scheme", "network", "http", "credentials", "extra"],
)
def test_what_a_user_can_mend_gets_one_line(proxy, url, environment, words, monkeypatch, textdiff_once, tmp_path):
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 1})
    if "obstore" in environment:
        for name in [one for one in sys.modules if one.partition(".")[0] == "obstore"]:
            monkeypatch.setitem(sys.modules, name, None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    remote.client.cache_clear()
    try:
        said = textdiff_once(tmp_path, "cache", "info", url, status=2).stderr
    finally:
        remote.client.cache_clear()
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(word in said for word in words)
