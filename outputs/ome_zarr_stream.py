"""An OME-Zarr of an image that comes in parts: as ``ome_zarr`` writes one that is held, but for its blank chunks."""

__all__ = ["halved", "stream_ome_zarr"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.files import atomic_directory
from textdiff.outputs.ngff import CHUNK, LABELS, SMALLEST, class_properties, image_attributes, label_attributes
from textdiff.outputs.objects import Found
from textdiff.outputs.polygons import Polygon
from textdiff.outputs.stream import Sink, Streamed

_WHITE = 255


@contextmanager
def stream_ome_zarr(path: Path, streamed: Streamed) -> Iterator[Sink]:
    """Writes the image at the resolution that it comes in, ``labels/classes`` and ``labels/objects``, in levels.

    Chunks of 512 pixels a side in which nothing was looked at, or found, are not stored: readers see white there, or
    background. What is held is two rows of chunks, of the same alone.

    Raises:
        UserError: ``path`` is something else than an OME-Zarr of before.
    """
    if path.exists() and not (path / "zarr.json").is_file():
        raise UserError(f"{path}: there already, and no OME-Zarr; move it away or choose another --out")
    height, width = streamed.height, streamed.width
    sides = [max(height, width)]
    while sides[-1] > SMALLEST:
        sides.append(-(-sides[-1] // 2))
    size = streamed.pixel_size
    size = None if size is None else (size[0] * streamed.scale[0], size[1] * streamed.scale[1])
    with atomic_directory(path) as partial:
        root = zarr.create_group(partial, zarr_format=3)
        root.attrs["ome"] = image_attributes(streamed.name, size, len(sides))
        labels = root.create_group("labels", attributes=LABELS)
        groups = {name: labels.create_group(name) for name in ("classes", "objects")}
        groups["classes"].attrs["ome"] = label_attributes(
            "classes", size, len(sides), class_properties(streamed.class_names)
        )
        groups["objects"].attrs["ome"] = label_attributes("objects", size, len(sides), [])
        image = _Pyramid(root, (3, height, width), np.dtype(np.uint8), _WHITE, len(sides))
        maps = {
            name: _Pyramid(groups[name], (height, width), np.dtype(kind), 0, len(sides))
            for name, kind in (("classes", np.uint8), ("objects", np.int32))
        }
        yield _Writer(image, maps)
        for pyramid in (image, *maps.values()):
            pyramid.finish()


class _Writer:
    """The ``Sink``."""

    def __init__(self, image: "_Pyramid", maps: "dict[str, _Pyramid]") -> None:
        self._image, self._maps = image, maps

    def tile(self, y: int, x: int, pixels: NDArray[np.uint8]) -> None:
        """Pixels of the image."""
        self._image.put(y, x, np.moveaxis(pixels, -1, 0))

    def found(self, found: Found, polygons: Sequence[Polygon]) -> None:
        """Nothing: there is a map of the numbers, and what is known of each is in ``predictions.csv``."""

    def rows(self, y: int, x: int, labels: NDArray[np.uint8], objects: NDArray[Any]) -> None:
        """Rows of the maps."""
        for name, values in (("classes", labels), ("objects", objects)):
            if values.any():
                self._maps[name].put(y, x, values.astype(np.int32 if name == "objects" else np.uint8))


class _Pyramid:
    """Levels of half the size each, (..., H, W): parts come at ascending rows, and are written in chunks of rows."""

    def __init__(self, group: zarr.Group, shape: tuple[int, ...], dtype: np.dtype[Any], fill: int, levels: int) -> None:
        self._lead, self._fill = shape[:-2], fill
        self._levels = []
        height, width = shape[-2:]
        for level in range(levels):
            size = (*self._lead, -(-height // 2**level), -(-width // 2**level))
            self._levels.append(
                group.create_array(
                    str(level),
                    shape=size,
                    dtype=dtype,
                    chunks=(*self._lead, min(CHUNK, size[-2]), min(CHUNK, size[-1])),
                    dimension_names=["c", "y", "x"][-len(size) :],
                    fill_value=fill,
                )
            )
        self._open: dict[tuple[int, int], NDArray[Any]] = {}
        self._stored: list[tuple[int, int]] = []

    def put(self, y: int, x: int, part: NDArray[Any]) -> None:
        """Takes pixels; rows above ``y``, by whole chunks, come no more."""
        self._flush(y // CHUNK)
        bottom, right = y + part.shape[-2], x + part.shape[-1]
        for row in range(y // CHUNK, -(-bottom // CHUNK)):
            for column in range(x // CHUNK, -(-right // CHUNK)):
                if (row, column) not in self._open:
                    self._open[row, column] = np.full((*self._lead, CHUNK, CHUNK), self._fill, part.dtype)
                top, left = row * CHUNK, column * CHUNK
                piece = part[..., max(0, top - y) : top + CHUNK - y, max(0, left - x) : left + CHUNK - x]
                at_y, at_x = max(0, y - top), max(0, x - left)
                self._open[row, column][..., at_y : at_y + piece.shape[-2], at_x : at_x + piece.shape[-1]] = piece

    def finish(self) -> None:
        """Writes what is left, and the smaller levels."""
        self._flush(None)
        stored = set(self._stored)
        for finer, coarser in zip(self._levels, self._levels[1:], strict=False):
            stored = {(row // 2, column // 2) for row, column in stored}
            for row, column in sorted(stored):
                fine = np.asarray(finer[..., _span(row, 2), _span(column, 2)])
                coarser[..., _span(row), _span(column)] = halved(fine) if self._lead else fine[::2, ::2]

    def _flush(self, end: int | None) -> None:
        """Writes the chunks in rows above the given one, or all, of those in which there is something."""
        for row, column in sorted(place for place in self._open if end is None or place[0] < end):
            chunk, whole = self._open.pop((row, column)), self._levels[0]
            # What reaches beyond the image is filled, and what was put there may be no more than the fill.
            if (chunk != self._fill).any():
                height, width = whole.shape[-2] - row * CHUNK, whole.shape[-1] - column * CHUNK
                whole[..., _span(row), _span(column)] = chunk[..., :height, :width]
                self._stored.append((row, column))


def _span(index: int, chunks: int = 1) -> slice:
    return slice(index * CHUNK * chunks, (index + 1) * CHUNK * chunks)


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half the size of (c, H, W), rounded up, by the mean of 2 x 2 pixels."""
    padded = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)), mode="edge")
    quarters = [padded[:, y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1)]
    return ((sum(quarters[1:], quarters[0]) + 2) // 4).astype(np.uint8)
