"""Backbones on enlarged images: ``extract --enlarge``."""

import numpy as np
import pytest
import torch
from PIL import Image

from textdiff.models.backbones.load import load_backbone, resolve_backbone

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "level"), [("nano-he", 12), ("rgb", 12), ("filters", 0)])
def test_its_levels_are_those_of_an_image_that_was_enlarged_before(name, level):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    larger = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC))
    plain, enlarged = (load_backbone(resolve_backbone(name), 64 // factor, CPU, enlarge=factor) for factor in (1, 2))
    expected, found = (
        network.features(torch.tensor(image).permute(2, 0, 1)[None], torch.tensor([50]), [""], [level])[level]
        for network, image in ((plain, larger), (enlarged, pixels))
    )
    if name == "filters":  # whose level would be larger than the image
        expected = expected.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    assert tuple(found.shape[1:]) == enlarged.levels(32)[level]
    # Pillow's cubic has another parameter than PyTorch's.
    assert (found - expected).abs().mean() < 0.1 * expected.std()
