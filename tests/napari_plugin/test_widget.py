"""The window, without a screen: its buttons, what they show, and what they refuse."""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SIZE = 48
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of napari's own
_START = "from qtpy.QtWidgets import QApplication; QApplication([])"


@pytest.fixture(scope="module")
def qt() -> Iterator[Callable[[Callable[[], bool]], None]]:
    """A Qt application without a screen; gives a function that lets it work until something is so."""
    pytest.importorskip("napari")
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    started = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=False)
    if started.returncode:  # in this process Qt would end all tests
        pytest.skip(f"Qt cannot start: {(started.stderr.strip().splitlines() or ['?'])[-1]}")
    from qtpy.QtWidgets import QApplication

    app = QApplication.instance() or QApplication([])

    def until(so: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not so():
            assert time.monotonic() < end, "Qt had two minutes"
            app.processEvents()
            time.sleep(0.005)

    yield until
    app.processEvents()


@pytest.fixture(scope="module")
def cache(tmp_path_factory, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("window")
    (root / "data/images").mkdir(parents=True)
    for name in "ab":
        image = np.full((SIZE, SIZE, 3), 220, np.uint8)
        image[:, 24:] = 60
        Image.fromarray(image).save(root / f"data/images/{name}.png")
    (root / "data/texts.csv").write_text("image,text\na,dark on the right\nb,\n")
    textdiff_once(
        root, "extract", "--dataset", "folder", "--data", "data", "--preset", "filters", "--image-size", str(SIZE),
        "--unlabelled-value", "255", "--cache", "x.zarr",
    )  # fmt: skip
    return root / "x.zarr"


@pytest.fixture
def window(qt, cache) -> SimpleNamespace:
    """The form beside napari's model of a viewer, which needs no OpenGL, with the cache opened."""
    from napari.components import ViewerModel

    from textdiff.napari_plugin.widget import Annotate

    viewer = ViewerModel()
    form = Annotate(viewer)

    def press(name: str) -> str:
        form.buttons[name].native.click()
        qt(lambda: form.buttons["Fit"].enabled)
        return form.status.value

    form.path.value = cache
    form.open.native.click()
    return SimpleNamespace(form=form, layers=viewer.layers, keymap=viewer.keymap, press=press, until=qt)


def paint(window: SimpleNamespace) -> None:
    labels = window.layers["labels"]
    labels.data_setitem(np.nonzero(np.pad(np.ones((6, 20)), ((4, 38), (2, 26)))), 1)
    labels.data_setitem(np.nonzero(np.pad(np.ones((6, 20)), ((4, 38), (26, 2)))), 2)


def test_a_scribble_becomes_a_mask_and_a_file(window, cache):
    assert window.form.text.value == "dark on the right"
    assert window.form.legend.value == "Paint with 0 not said, 1 background, 2 foreground"
    assert window.layers.selection.active is window.layers["labels"]
    paint(window)
    (key,) = (run for keys, run in window.keymap.items() if str(keys) == "Shift+F")
    key(None)
    window.until(lambda: window.form.buttons["Fit"].enabled)
    said = window.form.status.value
    assert said.startswith("Fitted on 240 pixels of 1 image; new mask in ")
    assert said.endswith("Not saved yet: a")
    found = window.layers["prediction"].data
    assert np.array_equal(found[:, 28:], np.full((SIZE, 20), 2))
    assert not found[:, :20].any()
    assert window.layers["uncertainty"].data.shape == (SIZE, SIZE)

    window.press("Accept")
    labels = window.layers["labels"]
    np.testing.assert_array_equal(labels.data, np.where(found == 2, 2, 1))
    labels.undo()
    assert np.count_nonzero(labels.data) == 240
    assert window.press("Save").endswith(window.form.session.commands)
    assert (np.asarray(Image.open(cache.parent / "data/masks/a.png")) != 255).sum() == 240

    assert window.press("Next").startswith("b comes next, chosen in ")
    assert window.form.image.value == "b"
    assert window.form.text.value == "(no text)"
    assert not window.layers["labels"].data.any()
    assert window.layers["prediction"].data.any()
    window.form.reset_choices()  # as napari does whenever a layer comes or goes
    window.form.image.value = "a"
    assert np.count_nonzero(window.layers["labels"].data) == 240
    assert "no prediction yet" in window.press("Accept")
    (cache.parent / "data/masks/a.png").unlink()


def test_a_fit_can_be_stopped(window, monkeypatch):
    session = window.form.session

    def endless():
        while True:
            time.sleep(0.01)
            yield 1, 3

    monkeypatch.setattr(session, "fit", endless)
    window.form.buttons["Fit"].native.click()
    window.until(lambda: window.form.progress.value == 1)
    assert not window.form.buttons["Save"].enabled
    assert window.form.progress.max == 3
    assert window.press("Stop").startswith("Stopped")
    assert not session.can_predict


@pytest.mark.parametrize(
    ("button", "painted", "message"),
    [
        ("Fit", 0, "no label"),
        ("Predict", 0, "no network yet"),
        ("Fit", 3, "label 3 stands for no class; paint with 0 not said, 1 background, 2 foreground"),
    ],
)
def test_what_cannot_be_done_is_said_in_the_window(window, button, painted, message):
    window.layers["labels"].data_setitem((np.arange(9), np.arange(9)), painted)
    assert message in window.press(button)


def test_what_cannot_be_opened_is_said_in_the_window(window, tmp_path):
    window.form.path.value = tmp_path
    window.form.open.native.click()
    assert "not a run directory" in window.form.status.value


def test_napari_finds_the_form():
    npe2 = pytest.importorskip("npe2")
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["napari.manifest"]
    assert entry == {"textdiff": "textdiff.napari_plugin:napari.yaml"}
    manifest = npe2.PluginManifest.from_file(ROOT / "napari_plugin/napari.yaml")
    (command,) = manifest.contributions.commands
    assert [widget.command for widget in manifest.contributions.widgets] == [command.id]
    module, name = command.python_name.split(":")
    assert module == "textdiff.napari_plugin.widget"
    assert f"class {name}(" in (ROOT / "napari_plugin/widget.py").read_text()
