"""The benchmark of pretraining in miniature, every line of it."""

import json
import runpy
from pathlib import Path

import pytest

from textdiff.models.backbones.checkpoints import load_unet

CURVE = Path(__file__).parents[1] / "benchmarks/pretrain_curve.py"


def test_every_measurement_of_the_curve_runs_in_miniature_and_the_best_weights_come_back_whole(tmp_path, capsys):
    program = runpy.run_path(str(CURVE))
    out = tmp_path / "curve.json"
    results = program["main"](["run", "--device", "cpu", "--miniature", "--seconds", "3600", "--out", str(out)])
    assert (results["failed"], results["left out"]) == ({}, [])
    written = json.loads(out.read_text())["results"]
    heads = written["heads cxr"]
    assert {label: value["crops"] for label, value in heads.items()} == {
        "masked, all": 4, "masked, 4": 4, "untrained as masked": 0, "rgb": 0,
    }  # fmt: skip
    assert heads["masked, all"]["images"] == heads["masked, 4"]["images"]
    shown = capsys.readouterr().out
    assert shown.count("\ncxr ") == len(heads)
    pieces = sorted(tmp_path.glob("*.piece*"))
    program["main"](["join", *map(str, pieces), "--out", str(tmp_path / "net.safetensors")])
    assert load_unet(tmp_path / "net.safetensors").config["model_channels"] == 32


@pytest.mark.parametrize("length", [0, 1, 2, 1001])
def test_packed_weights_are_unpacked_to_the_byte(length):
    program, data = runpy.run_path(str(CURVE)), bytes(number * 7 % 251 for number in range(length))
    assert program["_unpacked"](program["_packed"](data)) == data


def test_the_picture_shows_the_means_that_were_measured(tmp_path):
    program, results = (
        runpy.run_path(str(CURVE.with_name("curve_figure.py"))),
        CURVE.parent / "results/pretrain_curve.json",
    )
    measured = json.loads(results.read_text())["results"]["heads cxr"]
    noise = program["draw_figure"](json.loads(results.read_text())["results"]).axes[0].containers[0].lines[0]
    shown = [
        measured["untrained as noise"],
        *(measured[f"noise, {crops}"] for crops in ("1000", "3000", "all", "19392")),
    ]
    assert list(noise.get_ydata()) == pytest.approx([value["dice"]["test"] for value in shown], abs=0.01)
    program["main"](str(results), str(tmp_path / "curve.png"))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
