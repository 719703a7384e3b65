"""Outlines of a large image: any part of it is drawn as it is in the whole."""

import json

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.images.labels import said_counts
from textdiff.readers import slides
from textdiff.readers.annotations import load_annotations
from textdiff.readers.sample import Sample
from textdiff.readers.slides import DrawnParts

HEIGHT, WIDTH = 150, 210


def objects(seed: int, classes: tuple[str, ...]) -> list[dict]:
    """Features that overlap, cross themselves and reach beyond the image; some have holes, some are lines."""
    draw, features = np.random.default_rng(seed), []
    for number in range(40):
        middle = draw.uniform((-15, -15), (WIDTH + 15, HEIGHT + 15))
        ring = (middle + draw.normal(0, draw.uniform(2, 40), (int(draw.integers(3, 7)), 2))).round(2).tolist()
        hole = (middle + draw.normal(0, 3, (4, 2))).round(2).tolist()
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]], [*hole, hole[0]]][: 1 + number % 2]}
        if number % 9 == 8:
            geometry = {"type": "LineString", "coordinates": ring}
        name = classes[int(draw.integers(len(classes)))]
        features.append({"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}})
    return features


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {"classes": ("a", "b", "c"), "named": ("a", "b", "c")},
        {"instances": True},
        {"classes": ("a", "b", "c"), "named": ("background", "a", "b", "c"), "unlabelled": 0},
    ],
    ids=["classes", "objects", "sparse"],
)
def test_a_part_is_that_of_the_whole(tmp_path, monkeypatch, options, seed):
    monkeypatch.setattr(slides, "BLOCK", 32)
    path = tmp_path / "a.geojson"
    named = ("a",) if "instances" in options else ("a", "b", "c", "x*")
    path.write_text(json.dumps({"type": "FeatureCollection", "features": objects(seed, named)}))
    sample = Sample("a", "train", tmp_path / "a.png", path, "", **options)
    whole, parts = load_annotations(sample, HEIGHT, WIDTH), DrawnParts(sample, HEIGHT, WIDTH)
    draw = np.random.default_rng(seed)
    for _ in range(12):
        y, x = int(draw.integers(HEIGHT - 1)), int(draw.integers(WIDTH - 1))
        h, w = int(draw.integers(1, HEIGHT - y)), int(draw.integers(1, WIDTH - x))
        labels, numbers = parts.read(y, x, h, w)
        np.testing.assert_array_equal(labels, whole.labels[y : y + h, x : x + w])
        if whole.instances is not None:
            np.testing.assert_array_equal(numbers, whole.instances[y : y + h, x : x + w])
    counts, largest = parts.counts
    assert counts == tuple(said_counts(whole.labels, max(2, len(sample.classes) + 1)).tolist())
    assert largest == (0 if whole.instances is None else whole.instances.max())
    assert (parts.found.digest, parts.found.value) == (whole.sha256, whole.value)


def test_outlines_of_another_image_are_refused(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[[900, 900], [950, 900], [950, 950], [900, 900]]]}))
    sample = Sample("a", "train", tmp_path / "a.png", path, "")
    with pytest.raises(UserError, match=r"a\.geojson: has all its outlines outside the image of 210x150 pixels"):
        DrawnParts(sample, HEIGHT, WIDTH)
