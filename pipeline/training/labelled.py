"""Which pixels a fit learns from: those of which masks say something, or a few of these that are drawn."""

__all__ = ["Labelled", "silent_images"]

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.images.images import SYMMETRIES, symmetry
from textdiff.images.labels import UNSAID, said_counts

_DRAW = 0x9A7


class Labelled:
    """The pixels of a cache's masks that a run is fitted on.

    Args:
        cache: where the masks are.
        options: of the fit, ``run.config["fit"]``.
    """

    def __init__(self, cache: FeatureCache, options: Mapping[str, Any]) -> None:
        self.cache = cache
        self.amount: float | None = options.get("label_pixels")
        self.all = self.amount is None and not cache.sparse
        """Whether that is every pixel of every training image."""
        self._seed = options["draw_seed"]
        self._tiles: dict[str, list[int]] = {}
        for row, entry in enumerate(cache.rows):
            if entry.view == 0 and entry.has_mask:
                self._tiles.setdefault(entry.id, []).append(row)
        self._drawn: dict[tuple[str, int, int, int], NDArray[np.int64]] = {}

    def counts(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """How many pixels of these images a fit learns from, by class, (classes,) with the background first."""
        classes = len(self.cache.classes) + 1
        found = [said_counts(self._labels(row), classes) for name in ids for row in self._tiles[name]]
        return np.asarray(np.sum(found, axis=0), np.int64)

    def absent(self, ids: Iterable[str]) -> list[str]:
        """The classes of which a fit on these images learns from no pixel; reads as few masks as tell it."""
        absent = dict(enumerate(self.cache.classes, 1))
        for row in (row for name in ids for row in self._tiles[name]):
            for label in np.flatnonzero(said_counts(self._labels(row), len(self.cache.classes) + 1)):
                absent.pop(int(label), None)
            if not absent:
                break
        return [*absent.values()]

    def check(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """``counts`` of the training images.

        Raises:
            UserError: fewer than two classes are among them, so that there is nothing to tell apart.
        """
        counts = self.counts(ids)
        if np.count_nonzero(counts) > 1:
            return counts
        (label,) = np.flatnonzero(counts)
        name = ("background", *self.cache.classes)[label]
        fix = (
            "label some pixels of another class" if self.amount is None else "draw more of them, or another --draw-seed"
        )
        raise UserError(
            f"{self.cache.path}: all {counts.sum()} labelled pixels of the training images are of one class, {name}; "
            f"{fix}"
        )

    def has(self, row: int) -> bool:
        """Whether a row, the unturned view of an image or a tile, has any."""
        return self.all or bool((self._labels(row) != UNSAID).any())

    def shown(self, items: Iterable[Item], unlabelled: Container[int] = ()) -> Iterator[Item]:
        """The items with ``UNSAID`` in their masks wherever they are not to be learned from.

        Args:
            items: of a row each.
            unlabelled: the rows of images without labels; no pixels are drawn of these, and they are as they come.
        """
        for item in items:
            if self.amount is None or item.mask is None or item.row in unlabelled:
                yield item
                continue
            kept = torch.from_numpy(self._kept(item.row)).to(item.mask.device)
            yield replace(item, mask=torch.where(kept, item.mask, UNSAID))

    def _labels(self, row: int) -> NDArray[np.uint8]:
        """The class numbers (S, S) uint8 that are learned from, of an unturned row."""
        mask = self.cache.mask(row)
        assert mask is not None
        return mask if self.amount is None else np.where(self._kept(row), mask, np.uint8(UNSAID))

    def _kept(self, row: int) -> NDArray[np.bool_]:
        """Which pixels (S, S) of a row were drawn: the same ones in every view of an image."""
        entry, size = self.cache.rows[row], self.cache.image_size
        key = (entry.id, entry.y, entry.x, 0)
        if key not in self._drawn:
            self._draw(entry.id)
        kept = np.zeros(size * size, np.bool_)
        kept[self._drawn[key]] = True
        return symmetry(kept.reshape(size, size), entry.view % SYMMETRIES)

    def _draw(self, name: str) -> None:
        """Draws the pixels of an image, of all its tiles together; of a smaller amount they are a part of these."""
        assert self.amount is not None
        tiles = self._tiles[name]
        said = [np.flatnonzero(self.cache.mask(row) != UNSAID) for row in tiles]
        total = sum(map(len, said))
        count = int(self.amount) if self.amount >= 1 else max(1, round(self.amount * total))
        digest = self.cache.rows[tiles[0]].image_sha256
        order = np.random.default_rng([self._seed, _DRAW, int(digest[:16], 16)]).permutation(total)[:count]
        chosen = np.zeros(total, np.bool_)
        chosen[order] = True
        for row, places, own in zip(tiles, said, np.split(chosen, np.cumsum([len(p) for p in said])[:-1]), strict=True):
            entry = self.cache.rows[row]
            self._drawn[entry.id, entry.y, entry.x, 0] = places[own]


def silent_images(cache: FeatureCache, rows: Iterable[int], read: Callable[[int], NDArray[Any] | None]) -> list[str]:
    """The images among some rows whose masks say nothing of any pixel, in ascending order.

    Args:
        cache: of the rows; only a sparse one is read.
        rows: which; a row without a mask does not count.
        read: gives a row's class numbers: ``cache.mask`` or ``cache.truth``.
    """
    if not cache.sparse:
        return []
    found: dict[str, bool] = {}
    for row in rows:
        name = cache.rows[row].id
        if not found.get(name) and (labels := read(row)) is not None:
            found[name] = bool((labels != UNSAID).any())
    return sorted(name for name, said in found.items() if not said)
