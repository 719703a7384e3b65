"""Stage one as a pipeline: the same bytes however much is under way, and errors, full disks and Ctrl-C at any stage."""

import errno
import itertools
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache, chunks
from textdiff.errors import UserError
from textdiff.images.formats import BadImageError
from textdiff.models.backbones.adm import ADM
from textdiff.models.backbones.checkpoints import load_unet
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.outbox import Outbox
from textdiff.models.device import autocast
from textdiff.pipeline.extraction import fill_rows, prepare
from textdiff.pipeline.extraction.fill_rows import Flow
from textdiff.pipeline.extraction.reading import ReadAhead
from textdiff.pipeline.extraction.timings import Clock, Timings
from textdiff.tests.file_tools import files

IMAGES = 20
MANY = Flow(batch=3, ahead=1, readers=3, writers=4)
FLOWS = {
    "one by one": Flow(1, 0, 1, 1),
    "four writers": Flow(1, 0, 3, 4),
    "batches": MANY,
    "one batch": Flow(IMAGES + 1, 2, 1, 1),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("many")
    (root / "images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / f"images/{number:02d}.png")
    lines = [f"{number:02d},,{'test' if number % 3 else 'train'}" for number in range(IMAGES)]
    (root / "texts.csv").write_text("\n".join(["image,text,split", *lines]))
    return root


def extract(data: Path, cache: Path) -> FeatureCache:
    return textdiff.extract("folder", data=data, preset="rgb", image_size=32, text_encoder="none", cache=cache)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> dict[str, bytes]:
    return files(extract(data, tmp_path_factory.mktemp("whole") / "c.zarr").path)


@pytest.fixture
def flow(monkeypatch) -> Callable[[Flow], None]:
    """Sets how much is under way, with casting and buffers as on a device that is none of the CPU's."""

    def use(wanted: Flow) -> None:
        monkeypatch.setattr(Flow, "of", classmethod(lambda *_: wanted))
        if wanted.ahead:
            monkeypatch.setattr(fill_rows, "Outbox", lambda *arguments: Outbox(*arguments, cast=True))

    return use


@pytest.mark.parametrize("wanted", FLOWS.values(), ids=FLOWS)
def test_the_bytes_are_the_same_however_much_is_under_way(data, whole, flow, tmp_path, wanted):
    flow(wanted)
    cache = extract(data, tmp_path / "c.zarr")
    assert files(cache.path) == whole
    assert cache.filled["rows"] == IMAGES


def test_an_outbox_packs_what_an_int8_cache_holds_as_the_writer_does(data, flow, tmp_path):
    made = {}
    for name, wanted in {"as made": FLOWS["one by one"], "packed before": MANY}.items():
        flow(wanted)
        options = {"preset": "rgb", "image_size": 32, "text_encoder": "none", "dtype": "int8"}
        made[name] = files(textdiff.extract("folder", data=data, cache=tmp_path / name / "c.zarr", **options).path)
    assert made["as made"] == made["packed before"]


def fails_at(count: int, then: Callable[[], object], once: bool, real: Callable) -> Callable:
    """``real``, which does something else at the call with that number, and unless ``once`` at all later ones."""
    calls = itertools.count(1)

    def call(*arguments, **named):
        number = next(calls)
        if number == count or (number > count and not once):
            then()
        return real(*arguments, **named)

    return call


def raises(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


STAGES = {
    "reading": (prepare, "load_image", 8, BadImageError(Path("x.png"), "is gone", "")),
    "the backbone": (Extractor, "grids", 3, RuntimeError("the backbone is broken")),
    "writing": (FeatureCache, "write", 8, PermissionError(errno.EACCES, "not yours")),
}


@pytest.mark.parametrize("wanted", [Flow(1, 0, 1, 1), MANY], ids=["one by one", "many"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("stopped", [False, True], ids=["error", "Ctrl-C"])
def test_what_stops_a_stage_stops_all_of_them_and_every_row_is_whole_or_absent(
    data, whole, flow, tmp_path, monkeypatch, wanted, stage, stopped
):
    flow(wanted)
    owner, name, count, error = STAGES[stage]
    then = (lambda: os.kill(os.getpid(), signal.SIGINT)) if stopped else raises(error)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails_at(count, then, stopped, getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt if stopped else type(error)):
            extract(data, tmp_path / "c.zarr")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]
    cache = FeatureCache.open(tmp_path / "c.zarr")
    assert 0 < cache.done().sum() < IMAGES or wanted is MANY
    assert cache.verify() == []
    assert files(extract(data, cache.path).path) == whole


@pytest.mark.parametrize("from_then_on", [True, False], ids=["full", "full once"])
def test_a_disk_that_four_writers_fill_is_one_line_and_no_row_is_lost(
    data, whole, flow, tmp_path, monkeypatch, from_then_on
):
    flow(MANY)
    left = [60]
    write = chunks.write

    def full(path: Path, parts):
        left[0] -= 1
        if left[0] == 0 or (from_then_on and left[0] < 0):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, parts)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "write", full)
        with pytest.raises(UserError) as found:
            extract(data, tmp_path / "c.zarr")
    cache = FeatureCache.open(tmp_path / "c.zarr")
    assert f"the disk is full; the {cache.done().sum()} finished rows are safe" in str(found.value)
    assert 0 < cache.done().sum() < IMAGES
    assert not list(tmp_path.rglob("*.partial"))
    assert cache.verify() == []
    assert files(extract(data, cache.path).path) == whole


def test_the_end_says_where_the_time_went(data, tmp_path, capsys):
    filled = extract(data, tmp_path / "c.zarr").filled
    said = capsys.readouterr().err
    assert "where the time went: read " in said
    assert "; limit: " in said
    assert sum(filled["waited"].values()) <= filled["seconds"]
    assert filled["limit"] == max(filled["waited"], key=filled["waited"].get)
    assert extract(data, tmp_path / "c.zarr").filled is None


def test_timings_are_shares_and_add_up():
    one = Timings(3, 30, 10.0, {"read": 0.3, "device": 9.1, "write": 0.6}, {"read": 2.0, "device": 9.1, "write": 4.0})
    assert str(one) == "read 3 %, device 91 %, write 6 %; limit: the device"
    both = Timings.total([one, one])
    assert (both.rows, both.nbytes, both.seconds, both.busy["write"]) == (6, 60, 20.0, 8.0)
    assert str(both) == str(one)


@pytest.mark.parametrize(
    ("waited", "seconds", "limit"),
    [
        ((0.155, 0.183, 0.007), 1.0, "none of these"),
        ((1 / 3, 1 / 3, 1 / 3), 1.0, "reading"),
        ((0.996, 0.002, 0.002), 1.0, "reading"),
        ((0.2, 0.3, 0.1), 0.9, "none of these" if 0.9 - 0.6 > 0.3 else "the device"),
    ],
)
def test_the_shares_of_the_time_add_up_to_100(waited, seconds, limit):
    stages = dict(zip(("read", "device", "write"), waited, strict=True))
    said = str(Timings(1, 1, seconds, stages, stages))
    found = [int(share) for share in re.findall(r"(\d+) %", said)]
    assert sum(found) == 100
    exact = [*(100 * one / seconds for one in waited), 100 * (1 - sum(waited) / seconds)]
    assert np.abs(np.subtract(found, exact[: len(found)])).max() < 1
    assert said.endswith(f"limit: {limit}")


def test_rows_of_an_image_have_one_reader_and_come_in_order():
    readers: list[list[int]] = []

    def prepare() -> Callable[[int], int]:
        mine: list[int] = []
        readers.append(mine)
        return lambda row: mine.append(row) or row

    waited = Clock()
    waited.seconds["read"] = 1e9  # whoever asks is told that all wait for the readers
    rows = list(range(60))
    with ReadAhead(prepare, lambda row: row // 4, 2, 3, waited, Clock()) as reading:
        assert list(reading(rows)) == rows
    assert len(readers) == 3
    assert sorted(row for mine in readers for row in mine) == rows
    of = {row // 4: number for number, mine in enumerate(readers) for row in mine}
    assert all(of[row // 4] == number for number, mine in enumerate(readers) for row in mine)


def test_one_reader_is_enough_while_nobody_waits_for_it():
    made: list[int] = []
    waited = Clock()
    waited.seconds["device"] = 1e9
    with ReadAhead(lambda: made.append(1) or (lambda row: row), lambda row: row, 2, 3, waited, Clock()) as reading:
        assert len(list(reading(range(60)))) == 60
    assert len(made) == 1


def test_a_tuned_network_computes_what_autocast_does(tiny_backbone):
    device = torch.device("cpu")
    plain, tuned = (ADM(load_unet(tiny_backbone, image_size=64, device=device)).eval() for _ in range(2))
    for network in (plain, tuned):
        network.prepare(64, 0, "rgb")
    tuned.tune("bfloat16")
    assert tuned.unet.input_blocks[0][0].weight.dtype == torch.bfloat16
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8))
    with torch.inference_mode(), autocast(device, "bfloat16"):
        ours, theirs = (n.features(images, torch.tensor([50, 250]), ["", ""], [4, 12]) for n in (tuned, plain))
    for block, grid in theirs.items():
        assert torch.equal(ours[block], grid)


def test_digests_of_batches_are_those_of_single_images(data, tmp_path):
    """What --batch does on a CPU: with a network of sums the rounding may differ, and nothing else."""
    one = extract(data, tmp_path / "one.zarr")
    options = {"preset": "rgb", "image_size": 32, "text_encoder": "none", "batch": 7}
    many = textdiff.extract("folder", data=data, cache=tmp_path / "many.zarr", **options)
    assert one.fingerprint_hash == many.fingerprint_hash
    for row in range(IMAGES):
        for block in one.blocks:
            np.testing.assert_allclose(one.features(row, block), many.features(row, block), rtol=2e-3, atol=2e-3)
