"""``panel``: the images it chooses, and the same picture each time."""

from pathlib import Path

import numpy as np
import pytest

from textdiff.experiments.panel import choose
from textdiff.pipeline.fit import FitConfig, fit


def test_images_are_chosen_by_rank_or_by_disagreement():
    scores = np.array([[0.5, 0.9, 0.1, 0.7, 0.3], [0.5, 0.2, 0.1, 0.6, 0.9]])
    assert [choice.image for choice in choose(scores, "extremes", 3)] == [1, 0, 2]
    assert [choice.reason.split()[0] for choice in choose(scores, "extremes", 3)] == ["best", "median", "worst"]
    assert [choice.image for choice in choose(scores, "disagreement", 2)] == [1, 4]
    assert sorted(choice.image for choice in choose(scores, "extremes", 6)) == list(range(5))
    assert [choice.reason.split()[0] for choice in choose(scores[:, :2], "extremes", 3)] == ["best", "worst"]
    assert [choice.image for choice in choose(scores[:, :1], "extremes", 3)] == [0]


@pytest.fixture(scope="module")
def unet(cache, tmp_path_factory) -> Path:
    config = FitConfig(cache=cache.path, model="unet", width=8, labels=2, epochs=1, device="cpu")
    return fit(config, tmp_path_factory.mktemp("unet"))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_panel_draws_heads_and_the_unet_together(ablated, unet, tmp_path, textdiff_once, suffix):
    runs = [str(ablated / name) for name in ("full-d0-s0", "shuffled-text-d0-s0")] + [str(unet)]
    textdiff_once(tmp_path, "panel", *runs, "--out", f"panel{suffix}", "--images", "2")
    first = (tmp_path / f"panel{suffix}").read_bytes()
    textdiff_once(tmp_path, "panel", *runs, "--out", f"panel{suffix}", "--images", "2")
    assert (tmp_path / f"panel{suffix}").read_bytes() == first


@pytest.mark.parametrize(
    ("command", "name", "what"),
    [
        ("panel", "out.png", "figure of TextDiff"),
        ("panel", "out.pdf", "figure of TextDiff"),
        ("compare", "out.md", "result of `textdiff compare`"),
        ("compare", "out.json", "result of `textdiff compare`"),
        ("compare", "out.pdf", "result of `textdiff compare`"),
    ],
)
def test_no_file_is_replaced_that_another_program_wrote(ablated, tmp_path, textdiff_once, command, name, what):
    runs = [str(ablated / run) for run in ("full-d0-s0", "shuffled-text-d0-s0")]
    (tmp_path / name).write_bytes(b"a result of another program")
    out = name if command == "panel" else "out"
    result = textdiff_once(tmp_path, command, *runs, "--out", out, status=2)
    assert f"{name}: is there already, and is no {what}; name another file, or remove it" in result.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a result of another program"]
