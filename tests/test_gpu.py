"""The benchmark of a GPU in miniature, every line of it, and stage one on a GPU beside the CPU."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from textdiff.cache import FeatureCache

GPU = Path(__file__).parents[1] / "benchmarks/gpu.py"


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(GPU))


def test_every_measurement_of_the_benchmark_runs_in_miniature(program, tmp_path, capsys):
    results = program["main"](
        ["--device", "cpu", "--miniature", "--seconds", "3600", "--out", str(tmp_path / "gpu.json")]
    )
    assert results["failed"] == {}
    assert results["left out"] == []
    written = json.loads((tmp_path / "gpu.json").read_text())["results"]
    assert list(written) == ["device", "rates", "stage one", "precision", "writing", "stage two", "tests", "compile"]
    assert all(written.values())
    both = [written["stage two"][f"monuseg, cached, {how}"]["loss"] for how in ("steps recorded", "not recorded")]
    assert both[0] == both[1]
    assert set(written["precision"]["relative error"]["bfloat16"]) == {"4", "6", "8", "12", "16"}
    assert "share of bf16 rate" in written["stage one"]["bfloat16, batch 1"]
    assert "failed: nothing" in capsys.readouterr().out


def test_what_does_not_fit_the_time_is_named_and_what_fails_stops_nothing(program, tmp_path):
    def fail():
        raise RuntimeError("out of memory")

    class Few:
        def __init__(self):
            self.found, self.small = {}, False

        def parts(self):
            return {
                "first": (60, lambda: {"bad": fail, "good": lambda: 1.0}),
                "second": (-1, lambda: {"late": fail, "later": fail}),
            }

    saved = []
    results = program["measure"](Few(), 60, [], lambda all_: saved.append(json.dumps(all_)))
    assert results["left out"] == ["second: late", "second: later"]
    assert results["failed"] == {"first: bad": "RuntimeError: out of memory"}
    assert results["results"]["first"] == {"good": 1.0}
    assert len(saved) == 3


@pytest.mark.gpu
def test_features_of_a_gpu_are_those_of_the_cpu(tmp_path, make_lvit_once, tiny_backbone, textdiff_once):
    """To 5e-3 in float16, as PyTorch lets CUDA's convolutions of float32 run in TF32."""
    make_lvit_once(tmp_path / "data", n_train=2, n_val=0, n_test=1)
    found = []
    for device in ("cpu", "cuda"):
        textdiff_once(
            tmp_path, "extract", "--dataset", "monuseg", "--data", "data", "--cache", f"{device}.zarr", "--views", "1",
            *("--backbone", str(tiny_backbone), "--text-encoder", "none", "--image-size", "64"),
            *("--precision", "float32", "--device", device),
        )  # fmt: skip
        found.append(FeatureCache.open(tmp_path / f"{device}.zarr"))
    assert not found[1].verify()
    for row in range(3):
        for block in found[0].blocks:
            cpu, cuda = (cache.features(row, block).astype(np.float32) for cache in found)
            assert np.linalg.norm(cpu - cuda) < 5e-3 * np.linalg.norm(cpu), (row, block)
