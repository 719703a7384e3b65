"""Defaults by data set and backbone."""

import pytest

from textdiff.errors import UserError
from textdiff.options.extract import Extract
from textdiff.pipeline.extraction.config import ExtractConfig, resolve


def extract_config(dataset: str, **options) -> ExtractConfig:
    return resolve(Extract(dataset, data=".", **options))


def test_preset_nano_is_what_suits_the_backbone_in_the_package_and_yields_to_options():
    config = extract_config("monuseg", preset="nano")
    assert (config.backbone, config.text_encoder, config.steps, config.views) == (
        "nano-he",
        "minilm",
        (0, 50, 150, 250),
        8,
    )
    assert config.blocks == extract_config("monuseg").blocks
    given = extract_config("monuseg", preset="nano", views=1, steps=(50,), backbone="b.pt")
    assert (given.backbone, given.steps, given.views) == ("b.pt", (50,), 1)


def test_preset_nano_varies_the_colours_of_views_where_that_was_measured_to_help():
    assert extract_config("monuseg", preset="nano").jitter == "he"
    assert extract_config("monuseg", preset="nano", jitter="none").jitter is None
    assert extract_config("monuseg", preset="nano", views=1).jitter is None
    assert extract_config("qata", preset="nano").jitter is None
    assert extract_config("monuseg").jitter is None


@pytest.mark.parametrize("backbone", [None, "untrained:efficientnet-lite0", "efficientnet-lite2"])
def test_preset_imagenet_enlarges_and_keeps_the_coarse_levels(backbone):
    config = extract_config("monuseg", preset="imagenet", backbone=backbone)
    assert (config.backbone, config.enlarge) == (backbone or "efficientnet-lite0", 4)
    assert (config.blocks, config.steps, config.text_encoder) == ((3, 4, 5), (0,), "minilm")
    given = extract_config("monuseg", preset="imagenet", enlarge=1, blocks="all")
    assert (given.enlarge, given.blocks) == (1, None)
    assert extract_config("monuseg").enlarge == 1


def test_preset_of_the_paper_is_the_default():
    config = extract_config("monuseg")
    assert (config.backbone, config.text_encoder, config.steps, config.views) == (
        "adm-256",
        "clinical-biobert",
        (50, 150, 250),
        1,
    )


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(UserError, match="--preset tiny: must be one of paper, nano, rgb, filters, imagenet"):
        extract_config("monuseg", preset="tiny")
