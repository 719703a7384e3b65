"""The preset that ``start`` chooses: of what is on this machine, and with words that say why."""

import numpy as np
import pytest
import torch
from PIL import Image

from textdiff.models.weights import MissingWeightsError
from textdiff.pipeline import preset_choice
from textdiff.pipeline.preset_choice import choose_preset
from textdiff.readers.sample import Sample


@pytest.mark.parametrize(
    ("gpu", "weights", "encoders", "text", "expected"),
    [
        (True, True, ("clinical-biobert", "minilm"), "A text.", ("paper", "clinical-biobert")),
        (True, True, ("minilm",), "A text.", ("paper", "minilm")),
        (True, False, ("clinical-biobert", "minilm"), "A text.", ("nano", "minilm")),
        (False, True, ("clinical-biobert",), "A text.", ("nano", "clinical-biobert")),
        (False, False, (), "A text.", ("nano", "none")),
        (True, True, ("clinical-biobert",), "", ("paper", "none")),
    ],
)
def test_the_preset_is_one_that_is_here(gpu, weights, encoders, text, expected, tmp_path, monkeypatch):
    def resolve(name, *, download):
        assert not download
        if not weights:
            raise MissingWeightsError(name)
        return True

    monkeypatch.setattr(preset_choice, "resolve_weights", resolve)
    monkeypatch.setattr(preset_choice, "locate", lambda name: name if name in encoders else None)
    monkeypatch.setattr(preset_choice, "choose_device", lambda _: torch.device("meta" if gpu else "cpu"))
    monkeypatch.setattr(preset_choice, "describe_device", lambda _: "a card")
    Image.fromarray(np.full((8, 8, 3), (90, 90, 90), np.uint8)).save(tmp_path / "a.png")
    choice = choose_preset([Sample("a", "train", tmp_path / "a.png", None, text)])
    assert (choice.preset, choice.encoder) == expected
    assert choice.backbone == ("nano-cxr" if expected[0] == "nano" else None)
    assert "grey" in choice.why[0]
    assert ("a card" in choice.why[1], "no GPU" in choice.why[1]) == (gpu, not gpu)
    assert ("not here" in choice.why[1]) == (not weights)
