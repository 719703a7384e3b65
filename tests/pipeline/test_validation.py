"""The validation Dice of an epoch, counted row by row, beside that of whole images."""

import numpy as np
import torch

from textdiff.images.labels import UNSAID
from textdiff.metrics.pixels import dice
from textdiff.pipeline.training.validation import ValidationDice

SIZE = 16


def test_it_is_the_mean_over_images_and_classes_of_whole_images_where_something_is_said():
    draw = np.random.default_rng(0)
    truth = {name: draw.choice([0, 1, 2, UNSAID], (SIZE, SIZE * tiles)) for name, tiles in {"a": 1, "b": 3}.items()}
    logits = {name: draw.normal(size=(3, *mask.shape)) for name, mask in truth.items()}
    counted, expected = ValidationDice(SIZE**2), []
    for name, mask in truth.items():
        for start in range(0, mask.shape[1], SIZE):
            tile = slice(start, start + SIZE)
            counted.add(name, torch.from_numpy(logits[name][None, ..., tile]), torch.from_numpy(mask[None, :, tile]))
        said = mask != UNSAID
        found = logits[name].argmax(0)
        expected += [dice((found == label)[said][None], (mask == label)[said][None]) for label in (1, 2)]
    assert counted.mean() == np.mean(expected)


def test_nothing_counted_has_no_mean():
    assert ValidationDice(SIZE**2).mean() is None
