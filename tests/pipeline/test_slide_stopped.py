"""A prediction that is stopped within a slide goes on there, to the files that it would have written undisturbed."""

import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from textdiff.pipeline.prediction.tile_log import Said, TileLog, key_of
from textdiff.tests.file_tools import files, flip, read_csv

pytest.importorskip("openslide")
cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slide_cases.py")))
SIZE = (480, 640)
HOW = ("--tissue", "0", "--format", "geojson,ome-zarr", "--probabilities", "--min-area", "3")
STOPPED = """
import os, sys
from textdiff import cli
from textdiff.pipeline.prediction.tile_log import TileLog

kept, keep, signal, after = 0, TileLog.keep, int(sys.argv.pop(1)), int(sys.argv.pop(1))

def keep_and_stop(self, key, said):
    global kept
    keep(self, key, said)
    kept += 1
    if kept == after:
        os.kill(os.getpid(), signal)

TileLog.keep = keep_and_stop
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, textdiff_once) -> Path:
    """Two slides of 1 µm, a run on them that sees tiles of 2 µm, and ``whole``, what it says of one of them."""
    root = tmp_path_factory.mktemp("stopped")
    for name in ("images", "masks"):
        (root / "slides" / name).mkdir(parents=True)
    for number, name in enumerate("ab"):
        image, inside = cases.tissue(*SIZE, seed=number)
        cases.write_svs(root / f"slides/images/{name}.svs", [image, cases.halved(image)], mpp=1.0)
        tifffile.imwrite(root / f"slides/masks/{name}.tif", np.uint8(255) * inside)
    (root / "slides/texts.csv").write_text("image,text,split\na,Sparse.,train\nb,Sparse.,train\n")
    textdiff_once(
        root, "extract", "--dataset", "folder", "--data", "slides", "--mpp", "2", "--tile", "64", "--overlap", "8",
        *("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1", "--cache", "c.zarr"),
    )  # fmt: skip
    textdiff_once(root, "fit", "--cache", "c.zarr", "--variant", "no-text", "--width", "16", "--epochs", "2")
    said = textdiff_once(root, "predict", "slides/images/b.svs", "--out", "whole", *HOW).stderr
    assert re.search(r"[1-9]\d* of 30 tiles holds? nothing", said)
    assert read_csv(root / "whole/images.csv")[0]["distance"]
    return root


@pytest.mark.parametrize(
    ("stop", "after", "damage", "recalled"),
    [
        (signal.SIGINT, 20, None, 20),
        (signal.SIGKILL, 30, None, 30),
        (signal.SIGKILL, 6, -1, 5),
        (signal.SIGKILL, 6, 8 + 16 + 1, 0),  # the shape of what follows
    ],
)
def test_it_goes_on_after_the_tiles_that_were_predicted(
    root, textdiff_once, tmp_path, monkeypatch, stop, after, damage, recalled
):
    monkeypatch.chdir(root)
    command = ("predict", "slides/images/b.svs", "--out", str(tmp_path / "out"), *HOW)
    program = [sys.executable, "-c", STOPPED, str(int(stop)), str(after), *command]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == (130 if stop == signal.SIGINT else -stop), done.stderr
    log = tmp_path / "out/.records/images/b.tiles"
    if damage is not None:
        flip(log, damage)
    said = textdiff_once(root, *command).stderr
    assert (f"b: goes on after {recalled} tiles of the prediction that was stopped" in said) == (recalled > 0)
    assert not log.exists()
    found, whole = files(tmp_path / "out"), files(root / "whole")
    assert sorted(found) == sorted(whole)
    assert [name for name in whole if found[name] != whole[name]] == []


def test_a_log_that_cannot_be_written_ends_no_prediction(root, textdiff_once, tmp_path):
    (tmp_path / "out/.records/images/b.tiles").mkdir(parents=True)
    shutil.copy(root / "whole/.records/settings.json", tmp_path / "out/.records")
    said = textdiff_once(root, "predict", "slides/images/b.svs", "--out", str(tmp_path / "out"), *HOW).stderr
    assert "b: its tiles are not kept (Is a directory): if it is stopped, it begins anew" in said
    assert (tmp_path / "out/b.tif").read_bytes() == (root / "whole/b.tif").read_bytes()


@pytest.mark.parametrize(("seen", "words", "known"), [(0, "text", True), (0, "words", False), (1, "text", False)])
def test_tiles_of_another_slide_or_text_are_not_taken(tmp_path, seen, words, known):
    pixels, said = np.zeros((4, 4, 3), np.uint8), Said(np.ones((1, 2, 4, 4), np.float32), np.ones((2, 3)), True)
    log = TileLog(tmp_path / "x.tiles", "x")
    assert log.recall(key_of(pixels, "text")) is None
    log.keep(key_of(pixels, "text"), said)
    log.close()
    again = TileLog(tmp_path / "x.tiles", "x")
    found = again.recall(key_of(pixels + np.uint8(seen), words))
    again.close()
    assert (found is not None) == known == ((tmp_path / "x.tiles").stat().st_size > 0)
    if found is not None:
        np.testing.assert_array_equal(found.members, said.members)
        np.testing.assert_array_equal(found.moments, said.moments)
        assert found.blank
