"""The objects of an image that comes in parts: found, measured and counted, each once it is whole."""

__all__ = ["FoundInParts"]

import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from textdiff.images.stains import GREY, haematoxylin, spread
from textdiff.images.tiles import Pixels
from textdiff.metrics.object_stream import ObjectStream, WholeObject
from textdiff.outputs.format import Streamed
from textdiff.outputs.objects import Found
from textdiff.outputs.shapes import eccentricities, hull_areas

Whole = list[tuple[WholeObject, Found]]
"""Objects in pixels of the rows that come, and the same in pixels of the finest level."""


class FoundInParts:
    """Takes tiles as they are looked at, and classes in bands from the top to the bottom.

    What is held is the pixels of the tiles that bands are still to come of, and the objects that reach into the last
    row. What is of fewer than ``min_area`` pixels is no object.

    Attributes:
        objects: how many there are so far, by class.
        areas: theirs, in pixels of the rows that come.
    """

    def __init__(self, streamed: Streamed, min_area: int) -> None:
        self.objects, self.areas = ([0] * len(streamed.class_names) for _ in range(2))
        self._streamed, self._min_area = streamed, min_area
        self._stream, self._classes = ObjectStream(), dict[int, int]()
        self._likelihood = 0.0
        self._shapes = dict.fromkeys(("eccentricity", "solidity", "haematoxylin"), 0.0)
        """The sum of each over the objects."""
        self._pixels, self._seen, self._spread = Pixels(), 0, 0
        """What is still needed of the tiles, how many of their pixels were no glass, and the ``spread`` of these."""

    def see(self, y: int, x: int, pixels: NDArray[np.uint8]) -> None:
        """Takes a tile, RGB (h, w, 3), before any band that it shows a pixel of."""
        self._pixels.add(y, x, pixels)

    def add(
        self, y: int, x: int, labels: NDArray[np.uint8], likelihood: NDArray[np.floating]
    ) -> tuple[Whole, NDArray[np.int32]]:
        """Takes the next band, classes and their probability (h, w), beside which there is background.

        Returns:
            The objects that end in it, and a line for each run of pixels in it: row, first column, the column after
            the last, and a number, see ``kept``.
        """
        values = [likelihood, self._stain(y, x, labels)]
        ended, runs, numbers = self._stream.add(labels, values, x)
        return self._whole(ended), np.column_stack([runs, numbers]).astype(np.int32)

    def skip(self, rows: int) -> Whole:
        """Takes so many rows of background, and returns the objects that end above them."""
        return self._whole(self._stream.skip(rows))

    def finish(self) -> Whole:
        """The objects that reach to the end."""
        return self._whole(self._stream.finish())

    def kept(self) -> NDArray[np.int32]:
        """(2, ...): for each number of a run the class and the number of its object, 0 where it is too small."""
        final = self._stream.final_numbers()
        of_class = np.zeros(self._stream.count + 1, np.int32)
        of_class[list(self._classes)] = list(self._classes.values())
        return np.stack([of_class[final], np.where(of_class[final] > 0, final, 0)]).astype(np.int32)

    @property
    def grey(self) -> bool:
        """Whether what the tiles showed is grey, as ``kind_of`` tells it of an image that is held."""
        return self._spread < GREY * self._seen or not self._seen

    def stated(self, lines: Iterable[str]) -> Iterator[str]:
        """Lines of JSON of all objects as they are to be told: of a grey image without a stain.

        That it is grey is known at its end, when they are written already.
        """
        for line in lines:
            if self.grey:
                record = {name: value for name, value in json.loads(line).items() if name != "haematoxylin"}
                yield json.dumps(record, ensure_ascii=False) + "\n"
            else:
                yield line

    def means(self) -> dict[str, float]:
        """For a line of ``images.csv``: the mean probability over the pixels, and shape and stain over the objects."""
        if not any(self.objects):
            return {}
        shapes = {f"mean_{name}": round(total / sum(self.objects), 6) for name, total in self._shapes.items()}
        if self.grey:
            del shapes["mean_haematoxylin"]
        return {"probability": round(self._likelihood / sum(self.areas), 6), **shapes}

    def _stain(self, y: int, x: int, labels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The haematoxylin of the part with ``labels`` (h, w) that begins at (y, x), (h, w), 0 in the background."""
        pixels, shown = self._pixels.take(y, x, labels.shape)
        levels, count = spread(pixels[shown])
        self._spread, self._seen = self._spread + levels, self._seen + count
        stain = np.zeros(labels.shape)
        stain[labels > 0] = haematoxylin(pixels[labels > 0])
        return stain

    def _whole(self, ended: Sequence[WholeObject]) -> Whole:
        """Measures and counts those that are large enough."""
        kept = [one for one in ended if one.area >= self._min_area]
        measured = list(zip(kept, self._measured(kept), strict=True))
        for one, found in measured:
            self._classes[one.number] = one.class_number
            self.objects[one.class_number - 1] += 1
            self.areas[one.class_number - 1] += one.area
            self._likelihood += float(one.sums[2])
            for name in self._shapes:
                self._shapes[name] += getattr(found, name)
        return measured

    def _measured(self, objects: Sequence[WholeObject]) -> Iterator[Found]:
        runs = np.concatenate([np.zeros((0, 3), np.int64), *(piece for one in objects for piece in one.pieces)])
        number = np.repeat(np.arange(len(objects)), [sum(map(len, one.pieces)) for one in objects])
        shapes = eccentricities(number, runs, len(objects), self._streamed.coming_size or self._streamed.scale)
        hulls = hull_areas(number, runs, len(objects))
        along_x, along_y = self._streamed.scale
        for one, eccentricity, hull in zip(objects, shapes.tolist(), hulls.tolist(), strict=True):
            left, top, right, bottom = one.corners
            first = (int(left * along_x), int(top * along_y))
            last = (int(np.ceil(right * along_x - 1e-6)), int(np.ceil(bottom * along_y - 1e-6)))
            x, y, likely, stain = (one.sums / one.area).tolist()
            yield Found(
                one.number,
                one.class_number,
                round(one.area * along_x * along_y),
                (x * along_x, y * along_y),
                (*first, last[0] - first[0], last[1] - first[1]),
                likely,
                eccentricity=eccentricity,
                haematoxylin=stain,
                solidity=one.area / hull,
            )
