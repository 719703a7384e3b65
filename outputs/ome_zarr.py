"""Image and labels together as OME-Zarr, held or as they come: NGFF 0.5 (https://ngff.openmicroscopy.org/0.5/)."""

__all__ = ["FORMAT", "stream_ome_zarr", "write_ome_zarr"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.files import atomic_directory
from textdiff.outputs.colours import class_colours
from textdiff.outputs.format import Format, Sink, Streamed
from textdiff.outputs.objects import Segmentation, Subject

_WHITE = 255
PixelSize = tuple[float, float]
_VERSION = "0.5"
_LABELS = {"ome": {"version": _VERSION, "labels": ["classes", "objects"]}}
"""The attributes of the group that holds the maps of labels."""
_CHUNK = 512
_SMALLEST = 512
"""Levels are added until one fits this many pixels a side: what viewers show at once."""


def write_ome_zarr(path: Path, segmented: Segmentation, numbered: bool = False) -> None:
    """Writes a directory ``path``: the image, and beside it ``labels/classes`` and ``labels/objects``.

    The image is (c, y, x) uint8, labels are (y, x), uint8 and int32. Large ones get further levels of half the size
    each (images by the mean of 2 x 2 pixels, labels by the first of them), with the scale and translation that put each
    on the first one, so that means lie between its pixels and labels on them: in micrometres where the size of a pixel
    is known, otherwise in pixels, without a unit. ``path`` appears complete or not at all; one that is there is
    replaced.

    Raises:
        UserError: ``path`` is something else than an OME-Zarr of before.
    """
    objects = [
        {
            "label-value": found.number,
            "class": segmented.class_names[found.class_number - 1],
            "area": found.area,
            "probability": round(found.probability, 6),
        }
        for found in segmented.found
    ]
    height, width = segmented.labels.shape
    with _written(path, segmented, segmented.pixel_size, height, width, objects, sparse=False) as writer:
        for y in range(0, height, _CHUNK):
            band = slice(y, y + _CHUNK)
            writer.tile(y, 0, segmented.image[band])
            writer.rows(y, 0, segmented.labels[band], segmented.objects[band])


@contextmanager
def stream_ome_zarr(path: Path, streamed: Streamed) -> Iterator[Sink]:
    """Writes what ``write_ome_zarr`` does of an image that comes in parts, at the resolution that it comes in.

    Chunks of 512 pixels a side in which nothing was looked at, or found, are not stored: readers see white there, or
    background. What is held is two rows of chunks, of the same alone.

    Raises:
        UserError: ``path`` is something else than an OME-Zarr of before.
    """
    with _written(path, streamed, streamed.coming_size, streamed.height, streamed.width, [], sparse=True) as writer:
        yield writer


@contextmanager
def _written(
    path: Path,
    subject: Subject,
    size: tuple[float, float] | None,
    height: int,
    width: int,
    objects: list[dict[str, Any]],
    sparse: bool,
) -> Iterator["_Writer"]:
    """Opens an OME-Zarr of pixels of ``size`` with these properties of objects; if ``sparse`` without blank chunks."""
    if path.exists() and not (path / "zarr.json").is_file():
        raise UserError(f"{path}: there already, and no OME-Zarr; move it away or choose another --out")
    levels = 1 + (-(-max(height, width) // _SMALLEST) - 1).bit_length()
    with atomic_directory(path) as partial:
        root = zarr.create_group(partial, zarr_format=3)
        root.attrs["ome"] = _image_attributes(subject.name, size, levels)
        image = _Pyramid(root, (3, height, width), np.uint8, levels, _WHITE if sparse else 0, sparse)
        labels, maps = root.create_group("labels", attributes=_LABELS), []
        for name, kind, properties in (
            ("classes", np.uint8, _class_properties(subject.class_names)),
            ("objects", np.int32, objects),
        ):
            group = labels.create_group(name)
            group.attrs["ome"] = _label_attributes(name, size, levels, properties)
            maps.append(_Pyramid(group, (height, width), kind, levels, 0, sparse))
        yield _Writer(image, *maps)
        for pyramid in (image, *maps):
            pyramid.finish()


class _Writer(Sink):
    """Writes pixels alone: there is a map of the objects' numbers, and what is known of each in ``predictions.csv``."""

    def __init__(self, image: "_Pyramid", classes: "_Pyramid", objects: "_Pyramid") -> None:
        self._image, self._classes, self._objects = image, classes, objects

    def tile(self, y: int, x: int, pixels: NDArray[np.uint8]) -> None:
        """Pixels of the image."""
        self._image.put(y, x, np.moveaxis(pixels, -1, 0))

    def rows(self, y: int, x: int, labels: NDArray[np.uint8], objects: NDArray[Any]) -> None:
        """Rows of the maps."""
        self._classes.put(y, x, labels)
        self._objects.put(y, x, objects)


class _Pyramid:
    """Levels of half the size each, (..., H, W): parts come at ascending rows, and are written in chunks of rows."""

    def __init__(
        self, group: zarr.Group, shape: tuple[int, ...], dtype: type[np.generic], levels: int, fill: int, sparse: bool
    ) -> None:
        *lead, height, width = shape
        sizes = [(*lead, -(-height // 2**level), -(-width // 2**level)) for level in range(levels)]
        self._levels = [
            group.create_array(
                str(level),
                shape=size,
                dtype=dtype,
                chunks=(*lead, min(_CHUNK, size[-2]), min(_CHUNK, size[-1])),
                dimension_names=["c", "y", "x"][-len(size) :],
                fill_value=fill,
                # A missing chunk reads as background, too, but where most are there one would wonder if it was lost.
                config={"write_empty_chunks": not sparse},
            )
            for level, size in enumerate(sizes)
        ]
        self._blank: NDArray[Any] = np.full((*lead, _CHUNK, _CHUNK), fill, dtype)
        self._sparse = sparse
        self._open: dict[tuple[int, int], NDArray[Any]] = {}
        self._stored: list[tuple[int, int]] = []

    def put(self, y: int, x: int, part: NDArray[Any]) -> None:
        """Takes pixels; rows above ``y``, by whole chunks, come no more."""
        self._flush(y // _CHUNK)
        bottom, right = y + part.shape[-2], x + part.shape[-1]
        for row in range(y // _CHUNK, -(-bottom // _CHUNK)):
            for column in range(x // _CHUNK, -(-right // _CHUNK)):
                if (row, column) not in self._open:
                    self._open[row, column] = self._blank.copy()
                top, left = row * _CHUNK, column * _CHUNK
                piece = part[..., max(0, top - y) : top + _CHUNK - y, max(0, left - x) : left + _CHUNK - x]
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
                # A mean of labels would be another label.
                coarser[..., _span(row), _span(column)] = _halved(fine) if fine.ndim == 3 else fine[::2, ::2]

    def _flush(self, end: int | None) -> None:
        """Writes the chunks in rows above the given one, or all; of a sparse one those in which there is something."""
        for row, column in sorted(place for place in self._open if end is None or place[0] < end):
            chunk, whole = self._open.pop((row, column)), self._levels[0]
            # What reaches beyond the image is filled, and what was put there may be no more than the fill.
            if not self._sparse or (chunk != self._blank).any():
                height, width = whole.shape[-2] - row * _CHUNK, whole.shape[-1] - column * _CHUNK
                whole[..., _span(row), _span(column)] = chunk[..., :height, :width]
                self._stored.append((row, column))


def _span(index: int, chunks: int = 1) -> slice:
    return slice(index * _CHUNK * chunks, (index + 1) * _CHUNK * chunks)


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half the size of (c, H, W), rounded up, by the mean of 2 x 2 pixels."""
    padded = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)), mode="edge")
    quarters = [padded[:, y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1)]
    return ((sum(quarters[1:], quarters[0]) + 2) // 4).astype(np.uint8)


FORMAT = Format("OME-Zarr", ".ome.zarr", write_ome_zarr, stream=stream_ome_zarr)


def _image_attributes(name: str, size: PixelSize | None, levels: int) -> dict[str, Any]:
    """The metadata of an RGB image of so many levels, whose pixels have ``size`` micrometres on the first one."""
    channels = [
        {"label": label, "color": colour, "active": True, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    return _multiscales(size, name, ["c", "y", "x"], levels) | {"omero": {"channels": channels}}


def _label_attributes(
    name: str, size: PixelSize | None, levels: int, properties: list[dict[str, Any]]
) -> dict[str, Any]:
    """The metadata of a map of labels, with what is known of each label."""
    colours = [{key: one[key] for key in ("label-value", "rgba")} for one in properties if "rgba" in one]
    others = [{key: value for key, value in one.items() if key != "rgba"} for one in properties]
    # The standard wants at least one entry in each list, so that empty ones are left out.
    known = {key: value for key, value in (("colors", colours), ("properties", others)) if value}
    return _multiscales(size, name, ["y", "x"], levels, means=False) | {
        "image-label": {"source": {"image": "../../"}} | known
    }


def _class_properties(names: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of the labels 1, 2, ... that are classes."""
    return [
        {"label-value": number, "class": name, "rgba": [*colour, 255]}
        for number, (name, colour) in enumerate(zip(names, class_colours(len(names)), strict=True), start=1)
    ]


def _multiscales(size: PixelSize | None, name: str, axes: list[str], levels: int, means: bool = True) -> dict[str, Any]:
    """The levels and where they lie; ``means`` of pixels of the first one, or the first pixel of each block of it."""
    length = dict(zip("xy", size or (1.0, 1.0), strict=True))
    datasets = []
    for level in range(levels):
        factor = 2.0**level
        scale = [factor * length[axis] if axis != "c" else 1.0 for axis in axes]
        # The centre of what this level's first pixel is of, from that of the first level's first pixel.
        shift = [(factor - 1) / 2 * length[axis] if axis != "c" and means else 0.0 for axis in axes]
        transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations[: 2 if any(shift) else 1]})
    space = {"type": "space"} | ({"unit": "micrometer"} if size else {})
    kinds = [{"name": axis, **({"type": "channel"} if axis == "c" else space)} for axis in axes]
    return {"version": _VERSION, "multiscales": [{"name": name, "axes": kinds, "datasets": datasets}]}
