"""Experiments on a cache without texts: the rows that read some are left out, or refused where they were asked for."""

import json

import pytest

from textdiff.experiments import setup
from textdiff.tests import experiment_cases as cases
from textdiff.tests.run_cases import one_line


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return str(cases.make_cache(tmp_path_factory.mktemp("cache") / "silent.zarr", silent=True).path)


@pytest.mark.parametrize(
    ("command", "rows", "left_out"),
    [
        (("ablate",), ["no-text", "unet", "unet-fair"], "full, concat, shuffled-text, constant-text"),
        (("curve", "--labels", "2"), ["no-text", "unet", "unet-fair"], "full"),
        (
            ("table1", "--recipes", "fair"),
            [
                "no-text",
                "unet-fair",
                "resnet50-unet-fair",
                "transunet-fair",
                "swin-unet-fair",
                "pixel-mlp-fair",
                "trees",
            ],
            "full, shuffled-text, text-unet, text-unet-shuffled-text, lvit-fair, lvit-fair-shuffled-text",
        ),
    ],
)
def test_by_default_the_rows_are_those_that_read_no_text_and_a_line_says_which_are_left_out(
    silent, tmp_path, textdiff_once, monkeypatch, command, rows, left_out
):
    monkeypatch.setattr(setup, "run_experiment", lambda experiment, processes: [])  # a plan is enough
    said = textdiff_once(tmp_path, *command, "--cache", silent, "--draws", "1", "--device", "cpu").stderr
    assert f"so the rows that read texts are left out: {left_out}\n" in said
    plan = json.loads((tmp_path / f"runs/{command[0]}-silent/experiment.json").read_text())
    assert plan["options"]["variants"] == rows
    assert {job["point"]["method"] for job in plan["jobs"]} == set(rows)


@pytest.mark.parametrize(
    ("command", "row"),
    [
        (("table1", "--models", "no-text,lvit-fair"), "lvit-fair"),
        (("ablate", "--variants", "no-text,concat"), "concat"),
        (("curve", "--variants", "full,no-text,unet,unet-fair"), "full"),
    ],
)
def test_a_row_that_reads_texts_is_refused_where_it_is_named_and_what_could_be_asked_for_is_said(
    silent, tmp_path, textdiff_once, command, row
):
    stderr = one_line(textdiff_once(tmp_path, *command, "--cache", silent, status=2).stderr)
    assert f"{row}: reads texts, and {silent} was extracted with --text-encoder none" in stderr
    assert "name rows that read none, as no-text and unet" in stderr
    assert not (tmp_path / "runs").exists()


def test_differences_are_taken_to_the_method_without_text_where_no_row_reads_any(silent, tmp_path, textdiff_once):
    quick = ("--labels", "2", "--draws", "1", "--epochs", "1", "--set", "width=8", "--device", "cpu", "--jobs", "1")
    rows = ("--models", "no-text,pixel-mlp", "--rival-epochs", "1")
    said = textdiff_once(tmp_path, "table1", "--cache", silent, *rows, *quick).stdout
    assert "Dice against no-text, points" in said
    assert json.loads((tmp_path / "runs/table1-silent/table1.json").read_text())["against"] == ["no-text"]


def test_texts_that_are_not_there_are_not_checked(silent, tmp_path, textdiff_once):
    stderr = one_line(textdiff_once(tmp_path, "text-check", "--cache", silent, status=2).stderr)
    assert f"{silent}: has no texts to check, as it was extracted with --text-encoder none; extract with" in stderr
