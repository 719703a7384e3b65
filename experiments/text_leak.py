"""Whether sentences can have been written from the masks: how well their words alone tell what a mask looks like.

The rule: of every annotated training and validation image, five numbers of its mask are predicted from the words of its
sentence, by ridge regression on which words, and which pairs of neighbouring words, are in it, of one image after the
other from all the others. Where the words explain ``SUSPECT`` of a number's variance, more than they do of numbers that
were dealt to the images anew, the sentences are such as a program, or a person who had drawn the mask, would write.
They can as well be a good radiologist's: words cannot tell who came first, so a warning asks, and proves nothing.
The limit lies between the two data sets that it was tried on (docs/texts.md), and is no more exact than that.
"""

__all__ = ["SUSPECT", "Told", "explained", "leak_warning", "mask_numbers", "told_by_words"]

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from textdiff.cache import FeatureCache
from textdiff.images.labels import UNSAID
from textdiff.metrics.intervals import percentile_interval

SUSPECT = 0.5
"""The share of a number's variance, of images left out, from which on the words explain it too well."""
FEWEST = 8
"""Images below which nothing is said: of so few, words explain anything."""
_DEALT = 200
_RIDGE = 1.0


class Told(NamedTuple):
    """How well words tell a number of masks."""

    what: str
    share: float
    """Of its variance over images left out; below zero where the mean would have been better."""
    by_chance: float
    """What 95 of 100 deals of the numbers to other images stay below."""

    @property
    def suspect(self) -> bool:
        """Whether that is too much."""
        return self.share >= SUSPECT and self.share > self.by_chance


def told_by_words(cache: FeatureCache) -> list[Told]:
    """The rule, applied to the annotated training and validation images of a cache; empty where it does not apply.

    Images in tiles are left alone, as each of their masks is a part of the image that the sentence is of.
    """
    rows = [
        row
        for row, entry in enumerate(cache.rows)
        if entry.split != "test" and entry.view == 0 and entry.has_mask and entry.text >= 0 and not entry.tile
    ]
    if len(rows) < FEWEST:
        return []
    numbers: dict[str, list[float]] = {}
    for row in rows:
        mask = cache.mask(row)
        assert mask is not None
        for what, value in mask_numbers(mask).items():
            numbers.setdefault(what, []).append(value)
    words = word_table([cache.text_of(cache.rows[row]) for row in rows])
    return [Told(what, *explained(words, np.array(values))) for what, values in numbers.items()]


def mask_numbers(mask: NDArray[np.uint8]) -> dict[str, float]:
    """What a mask (H, W) looks like in five numbers; one without foreground lies in the middle."""
    there = (mask > 0) & (mask != UNSAID)
    y, x = np.nonzero(there)
    height, width = mask.shape
    return {
        "area": float(there.mean()),
        "place from left to right": float(x.mean() / width) if len(x) else 0.5,
        "place from top to bottom": float(y.mean() / height) if len(y) else 0.5,
        "width": float(x.std() / width) if len(x) else 0.0,
        "number of areas": float(np.log1p(ndimage.label(there)[1])),
    }


def word_table(texts: Sequence[str]) -> NDArray[np.float64]:
    """Which words, and pairs of neighbours, are in which text: (texts, words) in 0 and 1."""
    found = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        found.append({*words, *(" ".join(pair) for pair in pairwise(words))})
    known = sorted(set().union(*found))
    return np.array([[word in own for word in known] for own in found], dtype=np.float64).reshape(len(texts), -1)


def explained(words: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """The share of the variance of ``values`` (n,) that ``words`` (n, k) explain, each left out, and that by chance.

    Ridge regression with an intercept has its left-out errors in closed form: an error on all, divided by one minus the
    image's own weight in its prediction.
    """
    n = len(values)
    if not values.std() or not words.size:
        return 0.0, 0.0
    centred = words - words.mean(0)
    kernel = centred @ centred.T
    own = kernel @ np.linalg.inv(kernel + _RIDGE * np.eye(n)) + 1 / n  # (n, n): what each counts for each prediction
    left_out = (np.eye(n) - own) / (1 - np.diag(own))[:, None]
    draw = np.random.default_rng(0)
    dealt = np.stack([values, *(draw.permutation(values) for _ in range(_DEALT))], 1)  # (n, 1 + deals)
    # The mean, too, is of the others.
    spread = np.square((values - values.mean()) * n / (n - 1)).sum()
    shares = 1 - np.square(left_out @ dealt).sum(0) / spread
    return float(shares[0]), percentile_interval(shares[1:], 0.9)[1]


def leak_warning(told: Sequence[Told]) -> str:
    """What to say of sentences that tell too much; empty where none do."""
    suspect = [f"{one.what} ({100 * one.share:.0f} %)" for one in told if one.suspect]
    if not suspect:
        return ""
    return (
        f"The words alone tell the mask's {', '.join(suspect)}, in percent of the variance of images left out: were "
        "these sentences written from the masks? Then a gain says nothing of those written before there is a mask."
    )
