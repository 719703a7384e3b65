"""The commands on a cache in an object store: the same bytes and results as on a disk; shards of dead processes."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.cache.stores import leases, remote
from textdiff.places import Url
from textdiff.tests import object_store as cloud
from textdiff.tests.file_tools import files

pytest.importorskip("obstore")
pytest.importorskip("moto")
OPTIONS = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_lvit_once) -> Path:
    """A directory with a data set in its usual place, so that no cache says where it was."""
    root = tmp_path_factory.mktemp("data")
    make_lvit_once(root / "data/MoNuSeg", n_train=4, n_val=1, n_test=2)
    return root


@pytest.fixture(scope="module")
def local(data, textdiff_once) -> Path:
    textdiff_once(data, "extract", "--dataset", "monuseg", *OPTIONS, "--cache", "lab.zarr")
    return data / "lab.zarr"


@pytest.mark.slow
def test_extract_fit_and_score_give_the_bytes_that_they_give_on_a_disk(proxy, data, local, textdiff_once, tmp_path):
    root, url = Path(shutil.copytree(data, tmp_path / "root")), "s3://bucket/whole/lab.zarr"
    textdiff_once(root, "extract", "--dataset", "monuseg", *OPTIONS, "--cache", url)
    assert cloud.objects(url) == files(local)
    proxy.fail, proxy.cut = 10, 9
    results = []
    for cache in (url, "lab.zarr"):
        runs = root / cache[:2]
        fit = ("--labels", "2", "--epochs", "1", "--variant", "no-text", "--runs", str(runs))
        textdiff_once(root, "fit", "--cache", cache, *fit)
        textdiff_once(root, "score", "--runs", str(runs))
        run = next(runs.glob("lab-*"))
        results.append([(run / name).read_bytes() for name in ("head.safetensors", "log.csv", "scores.csv")])
    assert results[0][0] == results[1][0]
    assert results[0][2] == results[1][2]
    assert proxy.seen["failed"] > 5
    assert proxy.seen["cut"] > 5
    proxy.fail = proxy.cut = 0
    assert f"cache                {url}" in textdiff_once(root, "cache", "info", url).stdout
    assert textdiff_once(root, "cache", "verify", url).stdout == ""
    textdiff_once(root, "cache", "export", url, "lab.h5")
    assert textdiff_once(root, "cache", "import", "lab.h5", f"{url}2").stdout == f"{url}2\n"
    assert cloud.objects(f"{url}2") == files(local)
    again = textdiff_once(root, "extract", "--cache", url)
    assert "is complete, with 7 rows; there is nothing to do" in again.stderr
    textdiff_once(root, "extract", "--cache", url, "--overwrite", "--dataset", "monuseg", *OPTIONS)
    assert cloud.objects(url) == files(local)


EPOCH = ("--epochs", "1", "--device", "cpu")
SMALL = (*EPOCH, "--draws", "1", "--jobs", "1")
COMMANDS = {
    "ablate": (*SMALL, "--labels", "2", "--variants", "no-text", "--no-unet"),
    "sweep": (*SMALL, "--labels", "2", "--blocks", "6"),
    "curve": (*SMALL, "--labels", "1,2", "--variants", "no-text"),
    "table1": (*EPOCH, "--draws", "1", "--jobs", "1", "--labels", "2", "--models", "no-text"),
    "next": (),
    "report": (),
    "predict": ("data/MoNuSeg/Test_Folder/img", "--out", "masks"),
}


@pytest.fixture(scope="module")
def scored(proxy, data, tmp_path_factory, textdiff_once) -> tuple[Path, str]:
    """A directory with a run that is scored, on a cache in a bucket."""
    url = "s3://bucket/commands/lab.zarr"
    data = Path(shutil.copytree(data, tmp_path_factory.mktemp("commands") / "lab"))
    min((data / "data/MoNuSeg/Train_Folder/labelcol").iterdir()).unlink()  # an image to annotate next
    textdiff_once(data, "extract", "--dataset", "monuseg", *OPTIONS, "--cache", url)
    textdiff_once(data, "fit", "--cache", url, "--labels", "2", "--variant", "no-text", "--runs", "scored", *EPOCH)
    textdiff_once(data, "score", "--runs", "scored", "--device", "cpu")
    return data, url


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_cache_in_a_bucket(scored, command, textdiff_once):
    root, url = scored
    of = ("--runs", "scored") if command in ("next", "report", "predict") else ("--cache", url, "--runs", command)
    found = textdiff_once(root, command, *COMMANDS[command], *of)
    assert "Traceback" not in found.stderr
    if command == "predict":
        assert len(list((root / "masks").glob("*.png"))) == 2
    if command == "report":
        assert next((root / "scored").glob("lab-*/report.html")).stat().st_size > 10_000


@pytest.mark.slow
def test_extract_repairs_a_cache_in_a_bucket(proxy, data, local, textdiff_once):
    url = "s3://bucket/repair/lab.zarr"
    textdiff_once(data, "extract", "--dataset", "monuseg", *OPTIONS, "--cache", url)
    store, whole = remote.RemoteStore(Url(url)), cloud.objects(url)
    for damaged in (("image/zarr.json", "table/c.0"), ("zarr.json",)):
        for key in damaged:
            store.put(key, [whole[key][:-9]])
        again = textdiff_once(data, "extract", "--dataset", "monuseg", *OPTIONS, "--cache", url)
        assert "was damaged, and is repaired" in again.stderr
        assert cloud.objects(url) == whole
    store.delete("ledger/c.1.0")
    store.put("features/b06/c.2.0.0.0.0", [bytes(len(whole["features/b06/c.2.0.0.0.0"]))])
    assert "dropped 1 row;" in textdiff_once(data, "cache", "repair", url).stderr
    textdiff_once(data, "extract", "--cache", url)
    assert cloud.objects(url) == whole


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder of four images that can be changed."""
    for name in ("images", "masks"):
        (tmp_path / "slides" / name).mkdir(parents=True)
    for number in range(4):
        add(tmp_path, number)
    write_table(tmp_path, range(4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(root: Path, number: int) -> None:
    draw = np.random.default_rng(number)
    for folder, pixels in (
        ("images", draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)),
        ("masks", 255 * (draw.random((64, 64)) < 0.3).astype(np.uint8)),
    ):
        Image.fromarray(pixels).save(root / f"slides/{folder}/{number}.png")


def write_table(root: Path, numbers) -> None:
    with (root / "slides/texts.csv").open("w", newline="") as file:
        lines = [("image", "text", "split"), *((number, "words", "train") for number in numbers)]
        csv.writer(file).writerows(lines)


def extracted(cache: str, **options) -> FeatureCache:
    return textdiff.extract(
        "folder", data="slides", preset="rgb", text_encoder="none", image_size=64, views=1, cache=cache, **options
    )


def rest(found: dict[str, bytes]) -> dict[str, bytes]:
    """All but the root, which says where the data is: relative to a cache on a disk, and else absolute."""
    return {key: value for key, value in found.items() if key != "zarr.json"}


@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_update_copies_within_the_store_and_ends_what_a_killed_process_began(proxy, lab, killed, monkeypatch):
    url = f"s3://bucket/update-{killed}/lab.zarr"
    extracted(url)
    add(lab, 4)
    for folder in ("images", "masks"):
        (lab / f"slides/{folder}/0.png").unlink()
    write_table(lab, (1, 2, 3, 4))
    with pytest.raises(textdiff.UserError, match="--update keeps 3 of 4 rows"):
        extracted(url)
    proxy.stored.clear()
    if killed:
        monkeypatch.setattr(leases, "SECONDS", 0.3)
        calls, delete = [], remote.RemoteStore.delete

        def die(self, key):
            calls.append(key)
            if calls[-1] == "zarr.json" and "update" not in self.url.name:
                delete(self, key)
                raise KeyboardInterrupt
            delete(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(remote.RemoteStore, "delete", die)
            with pytest.raises(KeyboardInterrupt):
                extracted(url, update=True)
    extracted(url, update=True)
    extracted("new.zarr")
    assert rest(cloud.objects(url)) == rest(files(lab / "new.zarr"))
    assert FeatureCache.open(url).verify() == []
    left = [key for key in remote.RemoteStore(Url(url).parent).everything() if not key.startswith("lab.zarr/")]
    assert left == []


def test_who_has_done_its_shard_goes_on_with_one_of_a_dead_process_and_leaves_those_not_begun(
    proxy, lab, monkeypatch, capsys
):
    monkeypatch.setattr(leases, "SECONDS", 0.3)
    url = "s3://bucket/shards/lab.zarr"
    cache = extracted(url, shard=(2, 4))
    assert cache.pending() == [0, 1, 3]
    store = remote.RemoteStore(Url(url))
    store.put("table/.lease-1-of-4", [b"{}"])  # as a killed process leaves it
    cache = extracted(url, shard=(0, 4))
    assert cache.pending() == [3]
    assert "--shard 1/4 shows no sign of life; its 1 row is done here" in capsys.readouterr().err
    assert not any(".lease" in key for key in store.everything())
    extracted(url)
    extracted("one.zarr")
    assert rest(cloud.objects(url)) == rest(files(lab / "one.zarr"))


SLOWLY = """
import sys, time
from textdiff import cli
from textdiff.cache.stores import leases
from textdiff.cache.stores.remote import RemoteStore
leases.SECONDS = 4.0
replacing = RemoteStore.replacing
RemoteStore.replacing = lambda self, last: time.sleep(0.8) or replacing(self, last)
cli.main()
"""


def started(url: str, *more: str) -> subprocess.Popen:
    arguments = ("extract", "--dataset", "folder", "--data", "slides", *OPTIONS, "--cache", url, *more)
    return subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments], stderr=subprocess.PIPE, text=True)


def rows(url: str) -> int:
    return sum(key.startswith("ledger/c.") for key in remote.RemoteStore(Url(url)).everything())


@pytest.mark.slow
def test_a_killed_extract_goes_on_and_its_shard_is_taken_over_by_an_idle_one(proxy, lab):
    for number in range(4, 16):
        add(lab, number)
    write_table(lab, range(16))
    extracted("one.zarr")
    want = rest(files(lab / "one.zarr"))
    proxy.fail, proxy.cut, proxy.delay = 10, 11, 30
    url = "s3://bucket/killed/lab.zarr"
    for _ in range(5):
        process, before = started(url), rows(url)
        while process.poll() is None and rows(url) == before:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert FeatureCache.open(url).verify() == []
    assert started(url).wait() == 0
    assert rest(cloud.objects(url)) == want

    url = "s3://bucket/idle/lab.zarr"
    dead = started(url, "--shard", "1/2")
    while rows(url) < 2:
        time.sleep(0.02)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    idle = started(url, "--shard", "0/2")
    said = idle.communicate()[1]
    assert "--shard 1/2 shows no sign of life" in said
    assert rest(cloud.objects(url)) == want
    proxy.fail = proxy.cut = proxy.delay = 0
