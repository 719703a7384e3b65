"""Defaults by data set and backbone."""

from pathlib import Path

import pytest

from textdiff.errors import UserError
from textdiff.pipeline.defaults import extract_config


def test_preset_nano_is_what_suits_the_backbone_in_the_package_and_yields_to_options():
    config = extract_config("monuseg", preset="nano", data="d")
    assert (config.backbone, config.text_encoder, config.steps, config.views) == (
        "nano-he",
        "minilm",
        (0, 50, 150, 250),
        8,
    )
    assert config.blocks == extract_config("monuseg", data="d").blocks
    given = extract_config("monuseg", preset="nano", data=Path("d"), views=1, steps=(50,), backbone="b.pt")
    assert (given.backbone, given.steps, given.views) == ("b.pt", (50,), 1)


def test_preset_nano_varies_the_colours_of_views_where_that_was_measured_to_help():
    assert extract_config("monuseg", preset="nano", data="d").jitter == "he"
    assert extract_config("monuseg", preset="nano", data="d", jitter="none").jitter is None
    assert extract_config("monuseg", preset="nano", data="d", views=1).jitter is None
    assert extract_config("qata", preset="nano", data="d").jitter is None
    assert extract_config("monuseg", data="d").jitter is None


def test_preset_of_the_paper_is_the_default():
    config = extract_config("monuseg", data="d")
    assert (config.backbone, config.text_encoder, config.steps, config.views) == (
        "adm-256",
        "clinical-biobert",
        (50, 150, 250),
        1,
    )


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(UserError, match="--preset tiny: unknown; use one of paper, nano, rgb"):
        extract_config("monuseg", preset="tiny", data="d")
