"""A prediction that is stopped within a slide goes on there, to the files that it would have written undisturbed."""

import re
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from textdiff.tests.file_tools import files
from textdiff.tests.worker_cases import start, wait_for

pytest.importorskip("openslide")
cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slide_cases.py")))
SIZE = (480, 640)
FRAME = 4 * 2 * 64 * 64  # the probabilities of a tile
HOW = ("--tissue", "0", "--views", "8", "--format", "geojson,ome-zarr", "--probabilities", "--min-area", "3")


@pytest.fixture(scope="module")
def root(tmp_path_factory, textdiff_once) -> Path:
    """A slide of 1 µm, a run on it that sees tiles of 2 µm, and ``whole``, what it says of the slide."""
    root = tmp_path_factory.mktemp("stopped")
    for name in ("images", "masks"):
        (root / "slides" / name).mkdir(parents=True)
    image, inside = cases.tissue(*SIZE, seed=1)
    cases.write_svs(root / "slides/images/b.svs", [image, cases.halved(image)], mpp=1.0)
    tifffile.imwrite(root / "slides/masks/b.tif", np.uint8(255) * inside)
    (root / "slides/texts.csv").write_text("image,text,split\nb,Sparse.,train\n")
    textdiff_once(
        root, "extract", "--dataset", "folder", "--data", "slides", "--mpp", "2", "--tile", "64", "--overlap", "8",
        *("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1", "--cache", "c.zarr"),
    )  # fmt: skip
    textdiff_once(root, "fit", "--cache", "c.zarr", "--variant", "no-text", "--width", "16", "--epochs", "2")
    textdiff_once(root, "predict", "slides/images/b.svs", "--out", "whole", *HOW)
    return root


@pytest.mark.parametrize(
    ("stop", "damaged"), [(signal.SIGINT, False), (signal.SIGKILL, False), (signal.SIGKILL, True)]
)
def test_it_goes_on_after_the_tiles_that_were_predicted(root, textdiff_once, tmp_path, monkeypatch, stop, damaged):
    monkeypatch.chdir(root)
    out = tmp_path / "out"
    command = ("predict", "slides/images/b.svs", "--out", str(out), *HOW)
    process = start([sys.executable, "-m", "textdiff", *command], tmp_path / "log", OMP_NUM_THREADS="1")
    log = out / ".records/images/b.tiles"
    wait_for(lambda: (log.exists() and log.stat().st_size > 6 * FRAME) or process.poll() is not None)
    process.send_signal(stop)
    assert process.wait() == (130 if stop == signal.SIGINT else -stop), (tmp_path / "log").read_text()
    kept = log.stat().st_size // FRAME
    if damaged:
        data = bytearray(log.read_bytes())
        data[3 * FRAME + 100] ^= 1
        log.write_bytes(data)
    said = textdiff_once(root, *command).stderr
    recalled = re.search(r"b: goes on after (\d+) tiles of the prediction that was stopped", said)
    assert recalled is not None
    assert int(recalled[1]) == (2 if damaged else kept)
    assert not log.exists()
    found, whole = files(out), files(root / "whole")
    assert sorted(found) == sorted(whole)
    assert [name for name in whole if found[name] != whole[name]] == []


def test_tiles_of_another_slide_or_text_are_not_taken(root, textdiff_once, tmp_path):
    program = runpy.run_path(str(Path(__file__).parents[2] / "pipeline/prediction/tile_log.py"))
    key_of, said = program["key_of"], program["Said"](np.ones((1, 2, 4, 4), np.float32), np.ones((2, 3)), True)
    pixels = np.zeros((4, 4, 3), np.uint8)
    log = program["TileLog"](tmp_path / "x.tiles", "x")
    assert log.recall(key_of(pixels, "text")) is None
    log.keep(key_of(pixels, "text"), said)
    log.close()
    for other, known in (
        (key_of(pixels, "text"), True),
        (key_of(pixels, "words"), False),
        (key_of(pixels + 1, "text"), False),
    ):
        again = program["TileLog"](tmp_path / "x.tiles", "x")
        found = again.recall(other)
        assert (found is not None) == known
        if found is not None:
            np.testing.assert_array_equal(found.members, said.members)
            np.testing.assert_array_equal(found.moments, said.moments)
            again.close()
    assert (tmp_path / "x.tiles").stat().st_size == 0
