"""The table of an ablation, of scores that are made up: differences, what is missing, every format."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.experiments import plots
from textdiff.experiments.ablate import ablation_table
from textdiff.experiments.result_tables import Table
from textdiff.experiments.results import Result, gather
from textdiff.tables import latex
from textdiff.tests import experiment_cases as cases


@pytest.fixture
def fake(tmp_path, cache):
    return cases.fake_experiment(tmp_path / "ablate-fake", cache)


def test_table_shows_paired_differences_and_says_where_none_was_seen(fake):
    outcome = ablation_table(fake, "clean", "full")
    lines = outcome.text.splitlines()
    without, noise = (next(line for line in lines if line.startswith(name)) for name in ("no-text", "a_b&c"))
    assert "−5.00 [−5.00, −5.00]" in without
    assert without.rstrip().endswith("lower")
    assert noise.rstrip().endswith("no difference seen")
    assert "3 draws are few" in outcome.text
    assert "INCOMPLETE" not in outcome.text


def test_csv_and_json_hold_the_numbers_of_the_table(fake):
    outcome = ablation_table(fake, "clean", "full")
    rows = list(csv.DictReader((fake.path / "ablate.csv").open()))
    assert len(rows) == 3 * 3 * 4  # methods, truths, metrics
    row = next(r for r in rows if (r["method"], r["truth"], r["metric"]) == ("no-text", "paper", "iou"))
    assert float(row["difference"]) == pytest.approx(-0.05)
    assert row["verdict"] == "lower"
    saved = json.loads((fake.path / "ablate.json").read_text())
    assert saved == outcome.summary
    means = [
        np.mean(json.loads((fake.path / f"full-d{draw}-s{seed}/images-test.json").read_text())["scores"]["dice_clean"])
        for draw in range(3)
        for seed in range(2)
    ]
    assert saved["rows"][0]["mean"] == pytest.approx(np.mean(means))


def test_the_figure_has_a_dot_for_each_draw_at_its_mean(fake, monkeypatch):
    drawn = []
    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", lambda figure, stem: drawn.append(figure) or save(figure, stem))
    (fake.path / "no-text-d0-s0/images-test.json").unlink()
    for file in fake.path.glob("a_b&c-*/images-test.json"):
        file.unlink()
    files = ablation_table(fake, "paper", "full").files
    assert {"ablate.png", "ablate.pdf"} <= {path.name for path in files if path.stat().st_size}
    (ax,) = drawn[0].axes
    dots = [points.get_offsets()[:, 1] for points in ax.collections if hasattr(points, "get_sizes")]
    result = {result.point["method"]: result for result in gather(fake)}
    for number, method in enumerate(("full", "no-text")):
        by_draw = [
            100 * np.mean([result[method].runs[key]["dice_paper"] for key in result[method].runs if key[0] == draw])
            for draw in range(3)
        ]
        np.testing.assert_allclose(dots[number], by_draw)
    assert len(dots[2]) == 0
    assert [label.get_text() for label in ax.get_xticklabels()] == ["full", "no-text", "a_b&c"]


@pytest.mark.parametrize("tail", ["", "\nfit-m"])
@pytest.mark.parametrize("count", [4, 16])
def test_names_below_the_columns_do_not_run_into_each_other(tmp_path, monkeypatch, tail, count):
    names = ["text-unet-shuffled-text", "lvit-fair-shuffled-text", "full+unet-fair+filters", "no-text-recipe=fair"]
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    rows = [(names[number % 4] + tail, Result({})) for number in range(count)]
    plots.draws_figure(tmp_path / "names", rows, "dice_clean", "a title")
    drawn[0].draw_without_rendering()
    labels = drawn[0].axes[0].get_xticklabels()
    assert [label.get_text().replace("\n", "") for label in labels] == [name.replace("\n", "") for name, _ in rows]
    boxes = [label.get_window_extent() for label in labels]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_an_image_without_a_score_leaves_the_dots_to_the_others(fake, monkeypatch):
    for file in fake.path.glob("*/images-test.json"):
        record = json.loads(file.read_text())
        record["scores"]["dice_paper"][2] = None  # a mask that says too little to be seen by this rule
        file.write_text(json.dumps(record))
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    ablation_table(fake, "paper", "full")
    dots = [points.get_offsets()[:, 1] for points in drawn[0].axes[0].collections if hasattr(points, "get_sizes")]
    (full,) = (result for result in gather(fake) if result.name == "full")
    means = [
        100 * np.mean([np.delete(full.runs[draw, seed]["dice_paper"], 2).mean() for seed in range(2)])
        for draw in range(3)
    ]
    np.testing.assert_allclose(dots[0], means)


def test_table_of_what_has_finished_says_how_many_are_missing(fake):
    for name in ("full-d2-s0", "full-d2-s1", "no-text-d0-s0"):
        (fake.path / name / "images-test.json").unlink()
    outcome = ablation_table(fake, "clean", "full")
    assert "INCOMPLETE: 3 of 18 jobs are missing" in outcome.text
    assert sorted(outcome.summary["missing"]) == ["full-d2-s0", "full-d2-s1", "no-text-d0-s0"]
    # Pairs only: the draw that full lacks takes no part in the difference.
    assert "−5.00 [−5.00, −5.00]" in outcome.text
    assert "4 of 6" in outcome.text


def test_a_row_without_any_run_is_empty(fake):
    for file in fake.path.glob("a_b&c-*/images-test.json"):
        file.unlink()
    line = next(line for line in ablation_table(fake, "clean", "full").text.splitlines() if line.startswith("a_b&c"))
    assert line.split() == ["a_b&c", "2", "0", "of", "6"]


@pytest.mark.parametrize("other", [{"ids": list("fedcba")}, {"facts": {name: list("abcd") for name in "abcdef"}}])
def test_scores_of_other_images_or_masks_are_refused(fake, other):
    file = fake.path / "full-d1-s0/images-test.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | other))
    with pytest.raises(UserError, match="not scored on the images and masks of the other runs"):
        ablation_table(fake, "clean", "full")


def test_a_group_for_some_images_only_is_refused(fake):
    file = fake.path / "full-d1-s0/images-test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"groups": ["p"] * 5}))
    with pytest.raises(UserError, match=r"full-d1-s0/images-test.json: damaged \(5 groups of 6 images\); delete it"):
        ablation_table(fake, "clean", "full")


@pytest.mark.parametrize(
    ("of_full", "of_others", "said"),
    [
        ("ppp", "ppp", "All images are of one group, so that no interval covers"),
        ("ppq", "ppq", "and the 2 groups of the 6 images)."),
        ("ppq", ("", "", ""), "and the 2 groups of the 6 images or images).\nNot all rows know alike whose the images"),
        ("ppq", "pqq", "the 2 groups of the 6 images).\nNot all rows know alike whose the images"),
    ],
)
def test_a_table_says_whose_images_its_intervals_are_over(fake, of_full, of_others, said):
    for file in fake.path.glob("*/images-test.json"):
        groups = [*(of_full if file.parent.name.startswith("full") else of_others)] * 2
        file.write_text(json.dumps(json.loads(file.read_text()) | {"groups": groups}))
    text = ablation_table(fake, "clean", "full").text
    assert said in text
    assert ("one group" in text, "Not all rows" in text) == ("one group" in said, "Not all rows" in said)


@pytest.mark.parametrize(("images", "alone"), [("abcdef", "one group"), ("a", "one image")])
def test_one_run_on_one_group_is_said_to_tell_nothing(tmp_path, cache, images, alone):
    fake = cases.fake_experiment(tmp_path / "ablate-x", cache, draws=1, seeds=1)
    for file in fake.path.glob("*/images-test.json"):
        record = json.loads(file.read_text())
        scores = {name: values[: len(images)] for name, values in record["scores"].items()}
        facts = {name: record["facts"][name] for name in images}
        own = {"ids": list(images), "groups": ["p"] * len(images), "facts": facts, "scores": scores}
        file.write_text(json.dumps(record | own))
    text = ablation_table(fake, "clean", "full").text
    (line,) = (line for line in text.splitlines() if line.startswith("no-text"))
    assert line.rstrip().endswith(f"−5.00{' ' * 22}{alone} tells nothing")
    assert f"1 run a row, without intervals: one run on {alone} does not tell how others vary." in text
    assert "no difference" not in text


def test_images_without_any_foreground_are_counted_and_have_a_mean_beside_them(fake):
    for file in fake.path.glob("*/images-test.json"):
        record = json.loads(file.read_text())
        scores = {name: [1.0, 1.0, *values[2:]] for name, values in record["scores"].items()}
        scores |= {name: [0, 0, 9, 9, 9, 9] for name in scores if name.startswith("area")}
        scores |= {name: [None, None, *scores[name][2:]] for name in scores if "present" in name}
        file.write_text(json.dumps(record | {"scores": scores}))
    outcome = ablation_table(fake, "clean", "full")
    rows = {row["metric"]: row for row in outcome.summary["rows"] if (row["method"], row["truth"]) == ("full", "clean")}
    assert (rows["dice"]["images"], rows["dice_present"]["images"]) == (6, 4)
    assert rows["dice"]["mean"] == pytest.approx((2 + 4 * rows["dice_present"]["mean"]) / 6)
    assert "Dice % where present" in outcome.text
    assert "foreground is in 4 of 6 images" in outcome.text


def test_latex_escapes_what_means_something_to_it(fake):
    assert latex("a_b & 5% of $1 #2 {x} ~^\\ −1") == (
        r"a\_b \& 5\% of \$1 \#2 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} $-$1"
    )
    ablation_table(fake, "clean", "full")
    lines = (fake.path / "ablate.tex").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith(r"a\_b\&c"))
    assert row.count(" & ") == 6
    assert row.endswith(r"\\")


def test_markdown_keeps_a_bar_within_its_cell():
    table = Table(("name", "value"), [("a|b", "1")], ["a note"])
    assert table.markdown().splitlines() == ["| name | value |", "| :-- | :-- |", "| a\\|b | 1 |", "", "* a note"]
