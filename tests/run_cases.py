"""Runs of a few pictures without any network, which tests of faults damage copies of."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff import console

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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console.Progress, "advance", interrupt)
        textdiff_once(root, *fit, "stopped", status=130)
    return root


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def copied(made: Path, place: Path, name: str) -> Path:
    """The one run of ``made/name``, copied."""
    (run,) = (path for path in (made / name).iterdir() if not path.is_symlink())
    return Path(shutil.copytree(run, place / name))


def one_line(stderr: str) -> str:
    (line,) = (line for line in stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in stderr
    return line
