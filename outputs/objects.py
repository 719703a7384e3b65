"""What was found in an image, object by object, and as tables."""

__all__ = ["OBJECT_COLUMNS", "Found", "Segmentation", "Subject", "object_record", "segmentation", "significant"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.outputs.polygons import Polygon, trace
from textdiff.outputs.shapes import eccentricities, hull_areas, runs_of_pixels


class Found(NamedTuple):
    """One object. Positions are (x, y) in pixels from the outer corner of the top left pixel, y pointing down."""

    number: int
    """Its number in the map of objects."""
    class_number: int
    area: int
    """In pixels."""
    centroid: tuple[float, float]
    box: tuple[int, int, int, int]
    """Left, top, width and height of the bounding box, which encloses whole pixels."""
    probability: float
    """Mean probability of its class over its pixels."""
    eccentricity: float | None = None
    """That of the ellipse with its second moments, 0 for a disc, near 1 for a line; None where it is not measured."""
    haematoxylin: float | None = None
    """Its mean over the object, see ``images.stains``; None of a grey image, or where it is not measured."""
    solidity: float | None = None
    """Its area over that of the convex hull of its pixels, 1 where it has no dents; None where it is not measured."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What objects are of: one image, whether its pixels are held or not."""

    name: str
    """The image's name, without suffix; ``/`` where it is in a subdirectory."""
    class_names: tuple[str, ...]
    """The names of classes 1, 2, ..., without the background."""
    pixel_size: tuple[float, float] | None = None
    """Width and height of a pixel in micrometres, where they are known."""

    @property
    def pixel_area(self) -> float:
        """In square micrometres; 0 where it is not known."""
        return self.pixel_size[0] * self.pixel_size[1] if self.pixel_size else 0.0


@dataclass(frozen=True, kw_only=True)
class Segmentation(Subject):
    """Everything that the writers of formats need to know about one image that is held."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    labels: NDArray[np.uint8]
    """(H, W) class numbers, 0 for the background."""
    objects: NDArray[np.int32]
    """(H, W) object numbers, 0 where there is none."""
    found: tuple[Found, ...]
    """The objects in the order of their numbers."""

    def outlines(self) -> Iterator[tuple[Found, list[Polygon]]]:
        """Each object, and its polygons in pixels of the image."""
        for found in self.found:
            left, top, width, height = found.box
            part = self.objects[top : top + height, left : left + width] == found.number
            corner = (left, top)
            yield found, [Polygon(shell + corner, [hole + corner for hole in holes]) for shell, holes in trace(part)]


OBJECT_COLUMNS = (
    *("image", "object", "class", "area", "centroid_x", "centroid_y"),
    *("left", "top", "width", "height", "probability", "eccentricity", "solidity", "haematoxylin"),
    *("area_um2", "centroid_x_um", "centroid_y_um"),
)
"""Columns of ``predictions.csv``; what is not known of an object is empty."""


def segmentation(
    name: str,
    image: NDArray[np.uint8],
    labels: NDArray[Any],
    likelihood: NDArray[np.floating[Any]],
    objects: NDArray[np.int32],
    class_names: Sequence[str],
    pixel_size: tuple[float, float] | None = None,
    stain: Callable[[NDArray[np.uint8]], NDArray[np.float64]] | None = None,
) -> Segmentation:
    """Measures the objects of one image. Pixels that belong to none become background: too small ones leave no trace.

    Args:
        name: of the image.
        image: (H, W, 3) uint8.
        labels: (H, W) classes, 0 for the background.
        likelihood: (H, W), the probability of each pixel's class.
        objects: (H, W), numbered 1..n, each of one class: see ``pipeline.instances``.
        class_names: one for each class but the background.
        pixel_size: width and height of a pixel in micrometres, if they are known.
        stain: how much stain pixels (N, 3) hold, (N,), of which objects get the mean; none by default.

    Raises:
        ValueError: a class without a name.
    """
    from scipy import ndimage

    labels = np.where(objects > 0, labels, 0).astype(np.uint8)
    if labels.size and labels.max() > len(class_names):
        raise ValueError(f"class {labels.max()} has no name among {', '.join(class_names)}")
    y, x = np.nonzero(objects)
    number = objects[y, x] - 1
    count = int(number.max()) + 1 if number.size else 0
    areas = np.bincount(number, minlength=count)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        quotient: NDArray[np.float64] = np.bincount(number, values, minlength=count) / areas
        return quotient

    centroids = zip(mean(x + 0.5).tolist(), mean(y + 0.5).tolist(), strict=True)
    likely = mean(likelihood[y, x]).tolist()
    of, runs = runs_of_pixels(number, x, y)
    shapes = eccentricities(of, runs, count, pixel_size or (1.0, 1.0)).tolist()
    hulls = hull_areas(of, runs, count)
    stains = [None] * count if stain is None else mean(stain(image[y, x])).tolist()
    places = ndimage.find_objects(objects)
    boxes = [(across.start, down.start, across.stop - across.start, down.stop - down.start) for down, across in places]
    classes = np.zeros(count, np.int64)
    classes[number] = labels[y, x]
    found = tuple(
        Found(
            *(index + 1, int(classes[index]), int(areas[index]), centroid, boxes[index], likely[index]),
            *(shapes[index], stains[index], float(areas[index] / hulls[index])),
        )
        for index, centroid in enumerate(centroids)
    )
    return Segmentation(
        name=name,
        image=image,
        labels=labels,
        objects=objects,
        found=found,
        class_names=tuple(class_names),
        pixel_size=pixel_size,
    )


def object_record(segmented: Subject, found: Found) -> dict[str, str | int | float]:
    """One line of ``predictions.csv`` as ``OBJECT_COLUMNS``; what is not known is left out."""
    size, (x, y) = segmented.pixel_size, found.centroid
    measured = (found.area * segmented.pixel_area, x * size[0], y * size[1]) if size else (None, None, None)
    shape = (found.eccentricity, found.solidity, found.haematoxylin)
    values: tuple[str | int | float | None, ...] = (
        *(segmented.name, found.number, segmented.class_names[found.class_number - 1], found.area),
        *(round(position, 3) for position in found.centroid),
        *found.box,
        round(found.probability, 6),
        *(None if value is None else round(value, 6) for value in shape),
        *(None if value is None else significant(value) for value in measured),
    )
    return {name: value for name, value in zip(OBJECT_COLUMNS, values, strict=True) if value is not None}


def significant(value: float) -> float:
    """Seven digits of a length or an area: pixels may be nanometres or millimetres."""
    return float(f"{value:.7g}")
