"""Painting without a window: fitted, predicted, saved, and gone on with by the command line."""

import ast
import shlex
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.metrics.pixels import confusion, iou_of_counts
from textdiff.models.networks.trees import Trees
from textdiff.napari_plugin.session import Session
from textdiff.pipeline.mask_files import MaskFiles
from textdiff.pipeline.predictions import FittedNetwork, cached_predictions
from textdiff.pipeline.runs import find_run

pytest.importorskip("sklearn")
ROOT = Path(__file__).resolve().parents[2]
SPLITS = {"a": "train", "b": "train", "c": "train", "t": "test"}
HEIGHT, WIDTH = 60, 80


def disc(number: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - 25 - 3 * number) ** 2 + (x - 35 + 3 * number) ** 2 < 200


def write(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    for number, name in enumerate(SPLITS):
        noise = np.random.default_rng(number).integers(0, 60, (HEIGHT, WIDTH, 3))
        shade = np.where(disc(number)[..., None], 60, 180)
        Image.fromarray((shade + noise).astype(np.uint8)).save(root / f"images/{name}.png")
    (root / "texts.csv").write_text("image,text,split\n" + "".join(f"{n},disc {n},{s}\n" for n, s in SPLITS.items()))


def extract(textdiff_once, root: Path, *more: str) -> Path:
    textdiff_once(
        root, "extract", "--dataset", "folder", "--data", "data", "--preset", "filters", "--image-size", "48",
        "--cache", "my x.zarr", *more,
    )  # fmt: skip
    return root / "my x.zarr"


@pytest.fixture
def cache(tmp_path, textdiff_once) -> Path:
    write(tmp_path / "data")
    return extract(textdiff_once, tmp_path, "--unlabelled-value", "255")


def scribbled(number: int) -> np.ndarray:
    """Two strokes, as they are painted: one in the disc, one beside it."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[24 + 3 * number : 28 + 3 * number, 26 - 3 * number : 44 - 3 * number] = 2
    labels[2:6, 5:70] = 1
    return labels


def finished(steps) -> object:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_what_is_painted_is_learned_saved_and_gone_on_with(cache, tmp_path, textdiff_once):
    session = Session(cache)
    shown = session.show("a")
    assert shown.text == "disc a"
    assert shown.image.shape == (HEIGHT, WIDTH, 3)
    assert not shown.labels.any()
    session.paint("a", scribbled(0))
    assert finished(session.fit()).endswith("of 1 image")
    for number, name in enumerate(SPLITS):
        found = session.predict(name)
        assert iou_of_counts(confusion(found.labels == 2, disc(number))) > 0.8
        assert found.uncertainty.shape == (HEIGHT, WIDTH)
        assert 0 <= found.uncertainty.min() <= found.uncertainty.max() <= 1
    following = finished(session.next("a"))

    assert session.unsaved == ["a"]
    (path,) = session.save()
    assert path == tmp_path / "data/masks/a.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.array([255, 0, 1])[scribbled(0)])
    for command in session.commands.splitlines():
        textdiff_once(tmp_path, *shlex.split(command)[1:])
    updated = FeatureCache.open(cache)
    assert [row.id for row in updated.rows if row.has_mask] == ["a"]
    assert following == textdiff.rank(cache=cache).candidates[0].id

    run = find_run(None, tmp_path / "runs")
    reopened = Session(run.path)
    np.testing.assert_array_equal(reopened.show("a").labels, scribbled(0))
    ((_, (oracle,)),) = cached_predictions(FittedNetwork(run, "cpu"), updated, [1], "oracle")
    expected = np.asarray(Image.fromarray((oracle[1] > 0.5).astype(np.uint8)).resize((WIDTH, HEIGHT), 0))
    assert np.mean((reopened.predict("b").labels == 2) == expected) > 0.97


def test_one_thread_fits_and_predicts_since_two_wait_for_each_other(cache, monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads() -> set[int]:
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]
        return {torch.get_num_threads(), *pools}

    seen: list[set[int]] = []
    for name in ("learn", "forward"):
        done = getattr(Trees, name)
        monkeypatch.setattr(Trees, name, lambda *given, done=done: (seen.append(threads()), done(*given))[1])

    session, before = Session(cache), torch.get_num_threads()
    session.show("a")
    session.paint("a", scribbled(0))
    torch.set_num_threads(2)
    try:
        for work in (lambda: finished(session.fit()), lambda: session.predict("a")):
            thread = Thread(target=work)  # as napari has it: a new one, in which torch has yet to set its threads
            thread.start()
            thread.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [{1}, {1}]


def test_before_any_label_next_goes_through_the_order_of_the_command(cache):
    session, order = Session(cache), [one.id for one in textdiff.rank(cache=cache).candidates]
    assert sorted(order) == session.names
    assert order != session.names
    for name, following in zip(order, [*order[1:], order[0]], strict=True):
        assert finished(session.next(name)) == following
    assert list(session.next(order[0])) == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_fit_that_is_stopped_changes_nothing(cache):
    session = Session(cache)
    for number, name in enumerate("ab"):
        session.show(name)
        session.paint(name, scribbled(number))
    steps = session.fit()
    assert next(steps) == (1, 2)
    steps.close()
    assert not session.can_predict
    with pytest.raises(UserError, match="no network yet"):
        session.predict("a")


@pytest.mark.parametrize(("name", "value", "said"), [("t", None, "no label"), ("a", 1, "are background")])
def test_test_images_and_a_single_class_teach_nothing(cache, name, value, said):
    session = Session(cache)
    session.show(name)
    session.paint(name, scribbled(0) if value is None else np.where(scribbled(0) == value, value, 0))
    with pytest.raises(UserError, match=said):
        finished(session.fit())


@pytest.mark.parametrize("shown_before", [True, False])
def test_a_mask_that_was_not_shown_is_not_overwritten(cache, tmp_path, shown_before):
    path = tmp_path / "data/masks/a.png"
    path.parent.mkdir()
    if shown_before:
        Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(path)
    session = Session(cache)
    session.show("a")
    session.paint("a", scribbled(0))
    Image.fromarray(np.where(disc(0), 1, 255).astype(np.uint8)).save(path)
    there = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.png: was made or changed since a was shown"):
        session.save()
    assert path.read_bytes() == there
    assert session.unsaved == ["a"]
    again = Session(cache)
    np.testing.assert_array_equal(again.show("a").labels, np.where(disc(0), 2, 0))
    again.paint("a", scribbled(0))
    assert again.save() == [path]


@pytest.mark.parametrize(
    ("options", "names", "stored"),
    [
        (["--unlabelled-value", "1"], 1, [1, 0, 2]),
        (["--classes", "x,y", "--unlabelled-value", "255"], 2, [255, 0, 1, 2]),
        (["--classes", "x,none,y", "--unlabelled-value", "none"], 2, [2, 0, 1, 3]),
        (["--classes", "background,x,y", "--unlabelled-value", "0"], 2, [0, 1, 2, 3]),
    ],
)
def test_masks_get_the_numbers_that_the_data_set_has(tmp_path, textdiff_once, options, names, stored):
    write(tmp_path / "data")
    cache = FeatureCache.open(extract(textdiff_once, tmp_path, *options))
    labels = (np.arange(HEIGHT * WIDTH) % (names + 2)).reshape(HEIGHT, WIDTH).astype(np.uint8) - np.uint8(1)
    path, _ = MaskFiles(cache).write("a", labels, None)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.array(stored)[(labels + np.uint8(1))])
    np.testing.assert_array_equal(MaskFiles(cache).read("a")[0], labels)


def test_where_masks_say_everything_only_whole_ones_are_saved(tmp_path, textdiff_once):
    write(tmp_path / "data")
    session = Session(extract(textdiff_once, tmp_path))
    session.show("a")
    session.paint("a", scribbled(0))
    with pytest.raises(UserError, match=r"not painted all over.*--unlabelled-value 255"):
        session.save()
    session.paint("a", disc(0).astype(np.uint8) + 1)
    (path,) = session.save()
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.where(disc(0), 255, 0))


@pytest.mark.parametrize(
    ("path", "message"), [("nothing.zarr", "nothing.zarr"), ("data", "not a run directory")]
)  # fmt: skip
def test_what_is_neither_a_run_nor_a_cache_is_named(cache, tmp_path, path, message):
    with pytest.raises(UserError, match=message):
        Session(tmp_path / path)


def test_only_the_window_imports_napari():
    found = set()
    parts = ("napari", "magicgui", "qtpy", "PyQt6")
    for file in (path for pattern in ("*.py", "*/*.py", "*/*/*.py") for path in ROOT.glob(pattern)):
        text = file.read_text(encoding="utf-8")
        outside = {"tests", "benchmarks"} & {*file.relative_to(ROOT).parts}
        if outside or not any(part in text for part in parts):
            continue
        for node in ast.walk(ast.parse(text)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in parts for name in names):
                found.add(str(file.relative_to(ROOT)))
    assert found == {"napari_plugin/widget.py"}
