"""Resizing, exactly: against fractions, one pixel at a time."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from textdiff.images.images import (
    resize_image,
    resize_mask,
    symmetry,
)
from textdiff.tests.image_files import RGB


def area_oracle(image: np.ndarray, size: int) -> np.ndarray:
    """Every new pixel as the exact mean over the rectangle it covers, with fractions, one at a time."""
    height, width = image.shape
    out = np.empty((size, size), object)
    for i, j in itertools.product(range(size), repeat=2):
        top, bottom = Fraction(i * height, size), Fraction((i + 1) * height, size)
        left, right = Fraction(j * width, size), Fraction((j + 1) * width, size)
        out[i, j] = sum(
            int(image[y, x]) * (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
            for y in range(int(top), -int(-bottom // 1))
            for x in range(int(left), -int(-right // 1))
        ) / ((bottom - top) * (right - left))
    return out


def bilinear_oracle(image: np.ndarray, size: int) -> np.ndarray:
    """Half-pixel centres, clamped edges, one pixel at a time, with fractions."""
    height, width = image.shape

    def at(y: int, x: int) -> int:
        return int(image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    out = np.empty((size, size), object)
    for i, j in itertools.product(range(size), repeat=2):
        y = (i + Fraction(1, 2)) * height / size - Fraction(1, 2)
        x = (j + Fraction(1, 2)) * width / size - Fraction(1, 2)
        v, u = y - y // 1, x - x // 1
        above = at(y // 1, x // 1) * (1 - u) + at(y // 1, x // 1 + 1) * u
        below = at(y // 1 + 1, x // 1) * (1 - u) + at(y // 1 + 1, x // 1 + 1) * u
        out[i, j] = above * (1 - v) + below * v
    return out


def rounded(values: np.ndarray) -> np.ndarray:
    return np.array([[int((value + Fraction(1, 2)) // 1) for value in row] for row in values])


SHRINK = [((7, 7), 3), ((12, 8), 4), ((9, 16), 5), ((10, 10), 10), ((13, 11), 1)]
GROW = [((3, 3), 7), ((5, 4), 12), ((1, 1), 4)]


@pytest.mark.parametrize(("shape", "size"), SHRINK)
def test_area_is_the_exact_mean_of_what_a_pixel_covers(shape, size):
    image = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size, "area"), rounded(area_oracle(image, size)))


@pytest.mark.parametrize(("shape", "size"), SHRINK + GROW)
def test_bilinear_has_half_pixel_centres_and_clamped_edges(shape, size):
    image = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size, "bilinear"), rounded(bilinear_oracle(image, size)))


@pytest.mark.parametrize(("shape", "size"), GROW)
def test_area_enlarges_bilinearly(shape, size):
    image = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size, "area"), rounded(bilinear_oracle(image, size)))


def test_area_takes_each_axis_by_its_own_direction():
    # Rows shrink by two, columns grow by two; all values are multiples of 8, so nothing is rounded on the way.
    image = np.random.default_rng(6).integers(0, 32, (12, 3), dtype=np.uint8) * np.uint8(8)
    halved = image.reshape(6, 2, 3).mean(axis=1)
    expected = np.stack([bilinear_oracle(np.tile(row.astype(int), (6, 1)), 6)[0] for row in halved])
    assert np.array_equal(resize_image(image, 6, "area"), rounded(expected))


@pytest.mark.parametrize("rule", ["area", "bilinear"])
def test_colours_are_resized_one_by_one(rule):
    small = resize_image(RGB, 8, rule)
    assert small.shape == (8, 8, 3)
    for channel in range(3):
        assert np.array_equal(small[..., channel], resize_image(RGB[..., channel], 8, rule))


@pytest.mark.parametrize("rule", ["area", "bilinear"])
def test_resizing_commutes_with_the_symmetries(rule):
    image = np.random.default_rng(8).integers(0, 256, (37, 23), dtype=np.uint8)
    for view in range(8):
        assert np.array_equal(
            resize_image(symmetry(image, view), 11, rule), symmetry(resize_image(image, 11, rule), view)
        )


@pytest.mark.parametrize(("shape", "size"), SHRINK)
def test_area_masks_are_foreground_where_half_is(shape, size):
    mask = np.random.default_rng(9).integers(0, 2, shape, dtype=np.uint8)
    expected = np.array([[value >= Fraction(1, 2) for value in row] for row in area_oracle(mask, size)])
    assert np.array_equal(resize_mask(mask, size, "area"), expected)


def test_a_pixel_that_is_exactly_half_covered_is_foreground():
    assert resize_mask(np.array([[1, 0], [0, 1]]), 1, "area").item() == 1


@pytest.mark.parametrize(("shape", "size"), SHRINK + GROW)
def test_bilinear_masks_are_what_the_papers_code_makes(shape, size):
    mask = (np.random.default_rng(10).random(shape) < 0.2).astype(np.uint8)
    assert np.array_equal(resize_mask(mask, size, "bilinear"), rounded(bilinear_oracle(mask * 255, size)) > 0)


def test_papers_rule_dilates_and_area_does_not():
    y, x = np.mgrid[:1000, :1000]
    nuclei = np.hypot(y % 41.3 - 20, x % 41.3 - 20) < 12
    share = {rule: resize_mask(nuclei, 256, rule).mean() / nuclei.mean() for rule in ("area", "bilinear")}
    assert share["area"] == pytest.approx(1, abs=0.03)
    assert share["bilinear"] > 1.1


def test_unknown_rules_are_refused():
    for call in (lambda: resize_image(RGB, 4, "cubic"), lambda: symmetry(RGB, 8)):
        with pytest.raises(ValueError, match=r"cubic|view 8"):
            call()
