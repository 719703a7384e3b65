import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from textdiff.metrics.intervals import Interval
from textdiff.metrics.pixels import dice_from_iou
from textdiff.pipeline.evaluation.published import PUBLISHED
from textdiff.pipeline.evaluation.score_tables import ScoreRow, score_table, write_scores

ONE_IMAGE = Interval(0.5, None, None, 1)
ROWS = [
    ScoreRow("clean", Interval(0.71234, 0.68, 0.7456, 14), Interval(0.6, 0.58, 0.62, 14), 5),
    ScoreRow("paper", Interval(1.0, 1.0, 1.0, 14), Interval(1.0, 1.0, 1.0, 14), 5),
    ScoreRow("clean, at the original image size of 1000 x 1000", ONE_IMAGE, ONE_IMAGE),
]


def test_scores_are_shown_in_percent_with_intervals_and_counts():
    line = score_table(ROWS).splitlines()[2]
    assert line.split("  ")[0] == "clean"
    assert "71.23 [68.00, 74.56]" in line
    assert "60.00 [58.00, 62.00]" in line
    assert line.split()[-1] == "14"


def test_one_image_is_shown_without_an_interval():
    line = next(line for line in score_table(ROWS).splitlines() if "50.00" in line)
    assert "[" not in line
    assert "nan" not in line.lower()


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_rows_stand_beside_ours_and_say_so(dataset):
    lines = score_table(ROWS, PUBLISHED[dataset]).splitlines()
    ours, theirs = lines[: lines.index("published:")], lines[lines.index("published:") + 1 :]
    assert sum(bool(re.search(r"\d\.\d\d", line)) for line in ours) == len(ROWS)
    assert sum(bool(re.search(r"\d\.\d\d", line)) for line in theirs) == len(PUBLISHED[dataset])
    best = PUBLISHED[dataset][0]
    assert theirs[0].split() == ["TextDiff", str(best.labels), f"{best.dice:.2f}", f"{best.iou:.2f}"]
    assert "published" not in score_table(ROWS)


@pytest.mark.parametrize("published", [(), *PUBLISHED.values()])
def test_the_table_fits_80_columns_and_its_columns_align(published):
    lines = score_table(ROWS, published).splitlines()
    assert max(map(len, lines)) <= 80
    column = lines[0].index("Dice %")
    # The gap before the Dice column is blank in every line, whatever the names' lengths.
    assert {line[column - 2 : column].strip() for line in lines} == {""}
    assert {line[column:][:1] for line in lines if re.search(r"\d\.\d\d", line)} <= set("0123456789")
    assert not any(line != line.rstrip() for line in lines)


def test_a_long_name_is_wrapped_not_cut():
    words = " ".join(line[:20].strip() for line in score_table(ROWS).splitlines())
    assert "clean, at the original image size of 1000 x 1000" in re.sub(r" +", " ", words)


def test_no_word_of_a_name_is_broken_however_wide_the_scores():
    whole = Interval(1.0, 1.0, 1.0, 2)
    table = score_table([ScoreRow("full, mean (original size)", whole, whole, 4, "100.00")])
    assert {"full,", "mean", "(original", "size)"} <= {*table.split()}


def test_markdown_has_one_cell_per_column_in_every_row():
    lines = score_table([*ROWS, ScoreRow("a|b", *ROWS[0][1:])], PUBLISHED["monuseg"], markdown=True).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    assert re.fullmatch(r"(\| :?-+:? )+\|", lines[1])
    assert len(lines) == 2 + 4 + len(PUBLISHED["monuseg"])
    assert sum("published: " in line for line in lines) == len(PUBLISHED["monuseg"])


@pytest.mark.parametrize(
    ("dataset", "method", "dice", "iou"),
    [
        ("monuseg", "TextDiff", 78.67, 64.98),
        ("monuseg", "TextDiff, no text", 77.73, 63.70),
        ("monuseg", "TextDiff, no cross-attention", 76.34, 61.89),
        ("monuseg", "U-Net", 73.92, 58.98),
        ("monuseg", "LViT-T", 80.36, 67.31),
        ("qata", "TextDiff", 71.41, 59.03),
        ("qata", "TextDiff, no text", 68.90, 56.94),
        ("qata", "TextDiff, no cross-attention", 70.71, 57.81),
        ("qata", "U-Net", 46.08, 34.16),
    ],
)
def test_the_published_numbers_are_the_papers(dataset, method, dice, iou):
    [row] = [row for row in PUBLISHED[dataset] if row.method == method]
    assert (row.dice, row.iou) == (dice, iou)
    # 2 IoU / (1 + IoU) is concave: a mean of Dice below the Dice of the mean IoU is all that can be.
    assert row.dice <= 100 * dice_from_iou(row.iou / 100) + 0.01
    assert row.source.split()[-1].startswith("https://")


def test_scores_are_written_for_people_and_programs(tmp_path):
    images = [
        {"id": "b", "split": "test", "text": 'round, "dark"\nnuclei', "dice": np.float32(0.5), "iou": 1 / 3},
        {"id": "a", "split": "test", "text": "=1+1 é", "dice": np.float64("nan"), "iou": None, "note": "no mask"},
    ]
    summary = {
        "dice": Interval(0.5, None, None, 1),
        "blocks": (6, 8),
        "array": np.arange(2),
        "path": Path("x"),
        "n": np.int64(2),
    }
    as_csv, as_json = write_scores(tmp_path / "new", images, summary)
    with as_csv.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert rows == [
        {"id": "b", "split": "test", "text": 'round, "dark"\nnuclei', "dice": "0.5", "iou": str(1 / 3), "note": ""},
        {"id": "a", "split": "test", "text": "'=1+1 é", "dice": "", "iou": "", "note": "no mask"},
    ]

    def refuse(constant):
        raise AssertionError(constant)

    value = json.loads(as_json.read_text(encoding="utf-8"), parse_constant=refuse)
    assert value["dice"] == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert (value["blocks"], value["array"], value["path"], value["n"]) == ([6, 8], [0, 1], "x", 2)
    assert value["images"][0]["dice"] == 0.5
    assert value["images"][1]["dice"] is None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["scores.csv", "scores.json"]


@pytest.mark.parametrize("summary", [{"a": object()}, {"images": []}])
def test_a_summary_that_cannot_be_written_leaves_the_old_files(tmp_path, summary):
    write_scores(tmp_path, [{"id": "a"}], {"n": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((TypeError, ValueError)):
        write_scores(tmp_path, [{"id": "b"}], summary)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_suffix_keeps_two_splits_apart(tmp_path):
    write_scores(tmp_path, [{"id": "a"}], {})
    write_scores(tmp_path, [{"id": "b"}], {}, suffix="-val")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "scores-val.csv",
        "scores-val.json",
        "scores.csv",
        "scores.json",
    ]
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == [{"id": "a"}]


def test_no_images_give_an_empty_table(tmp_path):
    as_csv, as_json = write_scores(tmp_path, [], {})
    assert as_csv.read_text().strip() == ""
    assert json.loads(as_json.read_text()) == {"images": []}
