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
