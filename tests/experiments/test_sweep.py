"""``sweep`` and ``curve``: a run for each block, step and number of labels, and what fewer of them cost."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.experiments import sweep
from textdiff.experiments.results import Result
from textdiff.pipeline.runs import Run
from textdiff.tests import experiment_cases as cases


def test_sweep_reads_each_block_once_for_all_heads(cache, tmp_path, monkeypatch, textdiff_once):
    read, stored = [], FeatureCache.stored

    def counted(self, row, block, *more):
        read.append((row, block))
        return stored(self, row, block, *more)

    monkeypatch.setattr(FeatureCache, "stored", counted)
    options = ["--labels", "5", "--seeds", "2", *cases.FITS, "--jobs", "1"]
    result = textdiff_once(tmp_path, "sweep", "--cache", str(cache.path), *options)
    once = [(row, block) for row in range(len(cache.rows)) for block in cases.BLOCKS]
    # Training images are read for what they look like too, a step of a block once for all heads.
    again = Counter(read) - Counter(once)
    assert set(read) == set(once)
    assert {cache.rows[row].split for row, _ in again} <= {"train"}
    assert max(again.values(), default=0) <= len(cases.STEPS)
    place = tmp_path / "runs/sweep-tiny"
    assert len(list(place.glob("*/head.safetensors"))) == 2 * 2 * 2 * 2  # blocks, steps, text or not, seeds
    config = Run(place / "b08-t150-no-text-d0-s0").config
    assert (config["fit"]["blocks"], config["fit"]["steps"], config["head"]["dims"]) == ([8], [150], [4])
    assert len([line for line in result.stdout.splitlines() if line.startswith(("6 ", "8 "))]) == 4
    with Image.open(place / "sweep.png") as picture:
        assert picture.width > 500


@pytest.mark.slow
def test_sweep_together_says_what_fewer_blocks_and_steps_cost(cache, tmp_path, textdiff_once):
    options = ["--labels", "5", "--steps", "50,150", "--together", *cases.FITS, "--jobs", "1"]
    printed = textdiff_once(tmp_path, "sweep", "--cache", str(cache.path), *options).stdout
    summary = json.loads((tmp_path / "runs/sweep-tiny/sweep.json").read_text())
    rows = [row for row in summary["rows"] if (row["truth"], row["metric"]) == ("clean", "dice") and row["text"]]
    found = {(row["block"], row["step"]): row for row in rows}
    assert set(found) == {(block, step) for block in (*cases.BLOCKS, None) for step in (50, 150, None)}
    nbytes = {key: row["row_bytes"] for key, row in found.items()}
    assert nbytes[8, None] == nbytes[8, 50] + nbytes[8, 150]
    assert nbytes[None, None] == sum(nbytes[block, None] for block in cases.BLOCKS)
    # The images are the same, so the mean of the differences is the difference of the means.
    cost = 100 * (found[8, 150]["mean"] - found[None, None]["mean"])
    (line,) = [line for line in printed.splitlines() if line.split()[:2] == ["8", "150"]]
    assert f"{cost:+.2f} [".replace("-", "−") in line
    assert summary["notes"][0] in printed
    assert summary["notes"][0].startswith(("Fewest bytes", "Every selection"))


def test_sweep_together_fits_once_on_a_step_that_is_the_only_one(cache, tmp_path, textdiff_once):
    options = ["--cache", str(cache.path), "--steps", "50", "--together", *cases.FITS, "--jobs", "1"]
    printed = textdiff_once(tmp_path, "sweep", *options).stdout
    rows = json.loads((tmp_path / "runs/sweep-tiny/sweep.json").read_text())["rows"]
    found = {(row["block"], row["step"], row["text"]) for row in rows}
    assert found == {(block, 50, text) for block in (*cases.BLOCKS, None) for text in (True, False)}
    lines = {line.split()[0]: line for line in printed.splitlines() if line.split()[1:2] == ["50"]}
    # The last two columns are the difference from all, which all blocks have not from themselves.
    assert {key: line.count("[") for key, line in lines.items()} == {"6": 4, "8": 4, "all": 3}
    refused = textdiff_once(tmp_path, "sweep", *options, "--blocks", "8", status=2)
    assert "one block at one step" in refused.stderr


@pytest.mark.parametrize(
    ("costs", "named"),
    [
        ({(6, 50): -0.2, (6, None): -0.1, (8, 50): 0.0, (None, 50): 0.1}, "--blocks 8 --steps 50, 2 of 9 MB"),
        ({(6, 50): 0.0, (8, 50): 0.1}, "--blocks 6 --steps 50, 1 of 9 MB"),
        ({(6, 50): -0.2, (None, 50): 0.0}, "extract --steps 50, 4 of 9 MB"),
        ({(6, 50): -0.2, (8, 50): -0.3}, "Every selection"),
    ],
)
def test_sweep_names_the_fewest_bytes_that_were_not_seen_to_lose(costs, named):
    def result(block, step, cost):
        nbytes = {(6, 50): 1, (8, 50): 2, (6, None): 3, (None, 50): 4, (None, None): 9}[block, step] * 10**6
        point = {"block": block, "step": step, "text": True, "row_bytes": nbytes}
        images = 0.5 + cost + np.array([0.01, -0.01, 0.02, 0.0]) * (block is not None)
        return Result(point, 1, runs={(0, 0): {"dice_clean": images}})

    whole = result(None, None, 0.0)
    results = [whole, *(result(*key, cost) for key, cost in costs.items())]
    line = sweep.fewest_bytes(results, {True: whole}, "dice_clean", "--draws")
    assert named in line[0]


@pytest.mark.parametrize(("labels", "more"), [("2", "--draws"), ("5", "--seeds")])
def test_sweep_names_no_bytes_where_nothing_could_be_seen(cache, tmp_path, textdiff_once, labels, more):
    """All test images are of one group; of five training images there is one draw of five."""
    options = ["--cache", str(cache.path), "--labels", labels, "--steps", "50", "--together", *cases.FITS]
    textdiff_once(tmp_path, "sweep", *options)
    for path in tmp_path.glob("runs/sweep-tiny/*/images-test.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"groups": ["p"] * len(record["ids"])}))
    assert (
        "What fewer blocks or steps lose cannot be seen: one run on one group does not tell how others vary; take more "
        f"{more}."
    ) in textdiff_once(tmp_path, "sweep", *options).stdout


def test_sweep_says_nothing_of_bytes_while_runs_are_missing():
    point = {"block": 6, "step": 50, "text": False, "row_bytes": 1}
    whole = Result(point, 1, runs={(0, 0): {"dice_clean": np.array([0.5, 0.6])}})
    assert not sweep.fewest_bytes([whole, Result(point)], {False: whole}, "dice_clean", "--draws")


def test_curve_has_one_draw_where_all_images_are_drawn(cache, tmp_path, textdiff_once):
    options = ["--labels", "2,5", "--draws", "2", "--variants", "no-text", *cases.FITS, "--jobs", "1"]
    result = textdiff_once(tmp_path, "curve", "--cache", str(cache.path), *options)
    names = sorted(path.name for path in (tmp_path / "runs/curve-tiny").iterdir() if path.is_dir())
    assert names == ["no-text-n2-d0-s0", "no-text-n2-d1-s100", "no-text-n5-d0-s0"]
    assert (tmp_path / "runs/curve-tiny/curve.pdf").read_bytes().startswith(b"%PDF")
    assert "no-text" in result.stdout
