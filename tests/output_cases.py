"""Segmentations to be written, and polygons filled again."""

import numpy as np

from textdiff.metrics.instances import find_instances
from textdiff.outputs import FORMATS, segmentation, write_output


def centres(shape):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return x, y


def filled(rings, shape):
    """Pixels whose centres an odd number of rings goes around, by crossings of a ray to the left."""
    x, y = centres(shape)
    inside = np.zeros(shape, bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x0 == x1:
                inside ^= (x0 < x) & (min(y0, y1) < y) & (y < max(y0, y1))
    return inside


def segment(name, image, probabilities, class_names, **options):
    labels, likelihood = probabilities.argmax(0), probabilities.max(0)
    return segmentation(name, image, labels, likelihood, find_instances(labels, likelihood, **options), class_names)


def write(kind, folder, segmented, **options):
    path = folder / f"x{FORMATS[kind].suffix}"
    write_output(kind, path, segmented, **options)
    assert [entry.name for entry in folder.iterdir()] == [path.name], "something else was left behind"
    return path
