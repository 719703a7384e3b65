"""Measurements by group, and their means over groups with intervals."""

import pytest

from textdiff.metrics.intervals import bootstrap_mean
from textdiff.pipeline.prediction.summaries import doubts, group_lines, summary_lines, write_summaries


def line(image, group, objects, ecc, size=100, **more):
    found = {"image": image, "group": group, "objects": objects, "area": 10 * objects, "width": size, "height": size}
    return found | ({"mean_area": 10.0, "mean_eccentricity": ecc} if objects else {}) | more


IMAGES = [
    line("a1", "anna", 30, 0.5, pixel_width_um=1.0, pixel_height_um=1.0),
    line("a2", "anna", 10, 0.9, size=200, pixel_width_um=1.0, pixel_height_um=1.0),
    line("b1", "bert", 0, None, pixel_width_um=1.0, pixel_height_um=1.0),
    line("c1", "", 20, 0.7),
    {"image": "large", "group": "bert", "width": 9, "height": 9},
]


def test_every_object_and_square_of_a_group_counts_once():
    anna, bert, single = group_lines(IMAGES)
    assert anna == {
        **{"group": "anna", "images": 2, "objects": 40, "share": 400 / 50000, "mean_area": 10.0},
        # 40 objects on 0.01 and 0.04 square millimetres.
        **{"objects_per_mm2": 40 / 0.05, "mean_eccentricity": pytest.approx((30 * 0.5 + 10 * 0.9) / 40)},
    }
    assert bert == {"group": "bert", "images": 1, "objects": 0, "share": 0, "objects_per_mm2": 0}
    assert single == {**single, "group": "c1", "objects": 20, "mean_eccentricity": 0.7}
    assert "objects_per_mm2" not in single
    assert [one["objects"] for one in group_lines([line("x", "c1", 5, 0.5), line("c1", "", 20, 0.7)])] == [5, 20]


def test_the_share_of_a_group_is_of_its_square_millimetres_at_any_magnification():
    sizes = {"pixel_width_um": 0.25, "pixel_height_um": 0.5}, {"pixel_width_um": 1.0, "pixel_height_um": 1.0}
    lines = [line("x", "p", 100, 0.5, **sizes[0]), line("y", "p", 10, 0.5, **sizes[1])]
    assert group_lines(lines)[0]["share"] == round((1000 * 0.125 + 100) / (10000 * 0.125 + 10000), 6)
    # Where one of them is not known pixels are what there is.
    assert group_lines([lines[0], line("y", "p", 10, 0.5)])[0]["share"] == 1100 / 20000


def test_what_is_to_be_known_of_the_tables_is_said():
    lines = [line(name, group, 1, 0.5) for name, group in (("a", "Eve"), ("b", "eve"), ("c", "E ve"), ("d", ""))]
    assert doubts(lines, "abcd") == [
        f"the groups Eve and {other} differ in capitals or spaces only, and count as two; write them alike if they are "
        "one"
        for other in ("eve", "E ve")
    ]
    size = {"pixel_width_um": 1.0, "pixel_height_um": 1.0}
    assert doubts([lines[0], line("e", "", 1, 0.5, **size), lines[3] | size], "ae") == [
        "1 of 3 images is here from before, and in the tables too (d); choose another --out to leave it out",
        "1 of 3 images says no size of a pixel: micrometres, and objects per mm², are of the others (--own-mpp)",
    ]
    assert doubts([lines[0], *(one | {"sha256": "5"} for one in (lines[3], line("e", "", 1, 0.5)))], "ade") == [
        "1 of 3 images is a copy of another (e of d), and counts as one of its own"
    ]
    assert not doubts([lines[0], lines[3]], "ad")
    assert not doubts([line("a", "plate 1 12", 1, 0.5), line("b", "plate 11 2", 1, 0.5)], "ab")


def test_intervals_are_over_groups_and_leave_out_those_without_a_value():
    lines = {found["measurement"]: found for found in summary_lines(group_lines(IMAGES), "groups")}
    mean, low, high, count = bootstrap_mean([0.6, 0.7])
    assert lines["mean_eccentricity"] == {
        **{"measurement": "mean_eccentricity", "over": "groups", "n": count},
        **{"mean": pytest.approx(mean), "low": pytest.approx(low), "high": pytest.approx(high)},
    }
    assert lines["objects"]["n"] == 3
    assert "mean_haematoxylin" not in lines
    (alone,) = [found for found in summary_lines(group_lines(IMAGES[:1]), "images") if found["measurement"] == "share"]
    assert alone.keys() == {"measurement", "mean", "n", "over"}


def test_tables_that_have_nothing_to_say_are_not_there(tmp_path):
    assert [path.name for path in write_summaries(tmp_path, IMAGES)] == ["groups.csv", "summary.csv"]
    without = [found | {"group": ""} for found in IMAGES]
    assert [path.name for path in write_summaries(tmp_path, without)] == ["summary.csv"]
    assert {path.name for path in tmp_path.iterdir()} == {"summary.csv"}
    assert write_summaries(tmp_path, IMAGES[-1:]) == []
