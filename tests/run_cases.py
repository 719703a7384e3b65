"""Runs: some of a few pictures, which tests of faults damage copies of; and what tests do with any."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from textdiff import console
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training import trainer

SPLITS = ("train", "train", "val", "test")


def make_runs(root: Path, textdiff_once: Callable) -> Path:
    """``cache.zarr`` of four pictures and runs.

    They are below ``done``, scored, ``mean`` of two, ``short`` of fewer epochs, and ``stopped`` after an epoch.
    """
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    for number in range(len(SPLITS)):
        mask = (y - 20 - 5 * number) ** 2 + (x - 40 + 5 * number) ** 2 < 150
        noise = np.random.default_rng(number).integers(0, 60, (64, 64, 3))
        Image.fromarray((np.where(mask[..., None], 60, 180) + noise).astype(np.uint8)).save(
            root / f"data/images/c{number}.png"
        )
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"data/masks/c{number}.png")
    lines = ["image,text,split", *(f"c{number},a dark disc,{split}" for number, split in enumerate(SPLITS))]
    (root / "data/texts.csv").write_text("\n".join(lines) + "\n")
    textdiff_once(
        root, "extract", "--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "64",
        *("--views", "1", "--text-encoder", "none", "--cache", "cache.zarr"),
    )  # fmt: skip
    fit = ("fit", "--cache", "cache.zarr", "--variant", "no-text", "--epochs", "3", "--runs")
    for name, more in (("done", ()), ("mean", ("--ensemble", "2")), ("short", ("--epochs", "2"))):
        textdiff_once(root, *fit, name, *more)
    textdiff_once(root, "score", "--runs", "done")
    with stopped_after(1):
        textdiff_once(root, *fit, "stopped", status=130)
    return root


def newest(runs: Path) -> Run:
    return Run(runs / (runs / "latest").readlink())


@contextlib.contextmanager
def stopped_after(*epochs: int) -> Iterator[None]:
    """Fits are interrupted when they have closed one of these epochs, and leave a checkpoint of it."""
    close = trainer.Trainer.close_epoch

    def closing(self: trainer.Trainer, seconds: float) -> None:
        close(self, seconds)
        if self.state.epoch in epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "CHECKPOINT_SHARE", float("inf"))
        patch.setattr(trainer.Trainer, "close_epoch", closing)
        yield


def assert_masks_are_those_scored(run: Run, data: Path, out: Path) -> None:
    """What ``predict`` wrote to ``out`` of the test images of ``data`` has the scores of ``run``."""
    images = run.scores()["images"]
    assert images
    for image in images:
        found = np.asarray(Image.open(out / f"{image['id']}.png")) > 0
        truth = np.asarray(Image.open(data / f"Test_Folder/labelcol/{image['id']}.png")) > 127
        overlap = (truth & found).sum() / (truth | found).sum()
        assert overlap == pytest.approx(image["iou_original"], abs=1e-9)


def copied(made: Path, place: Path, name: str) -> Path:
    """The one run of ``made/name``, copied."""
    (run,) = (path for path in (made / name).iterdir() if not path.is_symlink())
    return Path(shutil.copytree(run, place / name))


def anyhow(textdiff_once: Callable, *arguments: object) -> SimpleNamespace:
    """The result of a command that may succeed or meet bad input."""
    try:
        return textdiff_once(*arguments)
    except AssertionError:
        return textdiff_once(*arguments, status=2)


def one_line(stderr: str) -> str:
    (line,) = (line for line in stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in stderr
    return line


def weights(run: Run) -> dict[str, torch.Tensor]:
    """The weights that a fit kept, by name."""
    return load_file(run.path / "head.safetensors")


def same(one: Run, other: Run) -> bool:
    """Whether two fits kept the same weights, to the bit."""
    left, right = weights(one), weights(other)
    return all(left[name].shape == right[name].shape and torch.equal(left[name], right[name]) for name in left)


@contextlib.contextmanager
def interrupted_at(monkeypatch: pytest.MonkeyPatch, stop: int) -> Iterator[None]:
    """Ctrl-C, when a line of progress is to move for the ``stop``-th time."""
    advance, calls = console.Progress.advance, []

    def interrupt(*arguments: object, **named: object) -> None:
        calls.append(0)
        if len(calls) == stop:
            raise KeyboardInterrupt
        advance(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(console.Progress, "advance", interrupt)
        yield
