"""What the tutorial and the example tell a reader to run works, in their order."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff import Run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def done(tmp_path_factory, textdiff_once) -> tuple[Path, str]:
    """The directory in which the whole tutorial was run, and what it printed."""
    root = tmp_path_factory.mktemp("tutorial")
    printed, names = "", {"print": lambda *words: said.append(" ".join(map(str, words)))}
    said: list[str] = []
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    for code, command in re.findall(
        r"^```python\n(.*?)^```|^    (textdiff .*?)$", text, flags=re.DOTALL | re.MULTILINE
    ):
        if command:
            printed += textdiff_once(root, *shlex.split(command)[1:]).stdout
            continue
        before = Path.cwd()
        os.chdir(root)
        try:
            exec(compile(code, "tutorial.md", "exec"), names)
        finally:
            os.chdir(before)
    return root, printed + "\n".join(said)


def test_tutorial_ends_with_good_masks_and_a_report(done):
    root, printed = done
    for number in (8, 9):
        mask = np.asarray(Image.open(root / f"masks/slide{number}.png"))
        assert mask.shape == (96, 96)
        assert (root / f"masks/slide{number}_entropy.png").is_file()
    assert (root / "runs/latest/report.html").is_file()
    runs = [Run(path.parent) for path in sorted((root / "runs").glob("slides-*/scores.json"))]
    assert [run.label for run in runs] == ["full", "no-text"]
    assert all(run.scores()["scores"]["clean"]["dice"]["mean"] > 0.7 for run in runs)
    assert "full (mask by area)" in printed
    assert "slide9: " in printed


def test_example_runs_on_the_tutorials_run(done, monkeypatch):
    root, _ = done
    monkeypatch.chdir(root)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    code = (ROOT / "examples/explore_run.py").read_text(encoding="utf-8")
    exec(compile(code, "explore_run.py", "exec"), {"__name__": "__main__"})
    for name in ("loss.png", "features.png", "texts.png"):
        with Image.open(root / name) as picture:
            assert np.asarray(picture).std() > 5
