"""Masks with soft edges, as resizing and JPEG make them, are cut at half; without any they are empty or full."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from textdiff.images.masks import decode_mask
from textdiff.tests.image_files import BLACK, MASK, RED, SQUARES, jpeg, painted, png, tiff


def vessels(width: int) -> np.ndarray:
    image, draw = Image.new("L", (300, 300)), np.random.default_rng(4)
    for _ in range(12):
        steps = draw.uniform(0, 300, 2) + np.cumsum(draw.normal(0, 25, (12, 2)), axis=0)
        ImageDraw.Draw(image).line([tuple(step) for step in steps], fill=255, width=width)
    return np.asarray(image)


DRAWN = {
    "a disc": np.kron(MASK, np.ones((6, 6), np.uint8)) * 255,
    "discs": np.tile(np.kron(MASK, np.ones((2, 2), np.uint8)) * 255, (3, 3)),
    "rectangles": np.kron(SQUARES > 0, np.full((5, 5), 255, np.uint8)),
    "thin vessels": vessels(2),
    "thick vessels": vessels(5),
    "a hole": 255 - np.kron(MASK, np.ones((6, 6), np.uint8)) * 255,
}


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("how", [Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.3, 2, 4])
def test_resized_masks_are_cut_at_half(drawn, how, scale):
    image = Image.fromarray(DRAWN[drawn])
    resized = np.asarray(image.resize([round(side * scale) for side in image.size], how))
    np.testing.assert_array_equal(decode_mask("m", png(resized)).labels, resized > 127)


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("quality", [50, 75, 95])
def test_jpeg_masks_are_free_of_noise(drawn, quality):
    stored = jpeg(DRAWN[drawn], quality)
    mask = decode_mask("m", stored).labels
    assert (mask != DRAWN[drawn] // 255).sum() < 0.01 * mask.sum()
    again = decode_mask("m", png(np.asarray(Image.open(io.BytesIO(stored))))).labels
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("colour", [RED, (255, 255, 0), (30, 160, 90)])
def test_jpeg_masks_may_be_in_one_colour(drawn, colour):
    mask = decode_mask("m", jpeg(painted(DRAWN[drawn] // 255, BLACK, colour), 85)).labels
    assert (mask != DRAWN[drawn] // 255).sum() < 0.06 * mask.sum()


def test_an_empty_jpeg_with_noise_is_empty():
    noise = np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)
    for quality in (30, 75, 95):
        assert decode_mask("m", jpeg(noise, quality)).labels.sum() == 0


def test_empty_and_full_masks():
    for value, stored in ((0, MASK * 0), (1, MASK * 0 + 255), (1, MASK * 0 + 1)):
        for encoded in (png(stored), tiff(stored.astype(np.uint16)), tiff(stored.astype(np.float32))):
            assert np.all(decode_mask("m", encoded).labels == value)
