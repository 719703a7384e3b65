"""What the objects of the images in a report measure, as predicted and as annotated."""

__all__ = ["Measured"]

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.images.labels import UNSAID
from textdiff.images.stains import haematoxylin, kind_of
from textdiff.metrics.instances import components, find_instances
from textdiff.outputs.object_tables import image_record
from textdiff.outputs.objects import segmentation
from textdiff.pipeline.evaluation.image_predictions import ImagePrediction, image_instances, panels
from textdiff.pipeline.prediction.summaries import MEASURES, group_lines, summary_lines

_TITLES = dict(
    zip(
        MEASURES,
        (
            *("objects", "share, %", "objects per mm²", "mean area, px", "mean area, µm²"),
            *("eccentricity", "solidity", "haematoxylin"),
        ),
        strict=True,
    )
)
_KINDS = ("predicted", "annotated")


class Measured:
    """Takes images one at a time; shapes are those at an image's own size, the stain is that of the cached picture.

    Args:
        cache: where the images are.
        mpp: micrometres per pixel of all images, if they are known; of a cache that looks at its images at so many they
            are those, whatever the images' own.
        method: how objects are told apart in the prediction, see ``find_instances``.
        min_area: predicted objects of fewer pixels do not count.
    """

    def __init__(self, cache: FeatureCache, mpp: float | None, method: str, min_area: int) -> None:
        self._seen_at: float | None = cache.fingerprint.get("mpp")
        mpp = mpp if self._seen_at is None else self._seen_at
        self._cache, self._size = cache, None if mpp is None else (mpp, mpp)
        self._method, self._min_area = method, min_area
        self._lines: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}

    def add(self, image: ImagePrediction) -> None:
        """Measures an image; one that is too large to be held, or annotated in part only, is left out."""
        full = image.full_size
        if full is None or (full.truth == UNSAID).any():
            return
        picture = panels(self._cache, image.row)[0]
        height, width = full.truth.shape
        pixels = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        numbers = image_instances(self._cache, image.row)
        # Numbers may have gaps, and an object is of one class.
        true = components(full.truth) if numbers is None else _consecutive(numbers)
        found = find_instances(full.labels, full.likelihood, self._method, self._min_area)
        for kind, labels, objects in (("predicted", full.labels, found), ("annotated", full.truth, true)):
            stain = None if kind_of(picture) == "grey" else haematoxylin
            name, names = self._cache.rows[image.row].id, self._cache.classes
            one = segmentation(name, pixels, labels, np.ones(labels.shape), objects, names, self._size, stain)
            sides = {} if self._size is None else {"pixel_width_um": self._size[0], "pixel_height_um": self._size[1]}
            known = {"image": name, "group": self._cache.rows[image.row].group, "width": width, "height": height}
            line = known | sides | image_record(one)
            self._lines[kind].append(line)

    def data(self) -> dict[str, Any] | None:
        """For the page: means with intervals, and each image's own; None where nothing was measured.

        Means are over the groups, such as patients, that the data set names; without any over images.
        """
        images = {kind: group_lines({**line, "group": ""} for line in lines) for kind, lines in self._lines.items()}
        if not images["predicted"]:
            return None
        over = "groups" if any(line["group"] for line in self._lines["predicted"]) else "images"
        means = {
            kind: {line["measurement"]: line for line in summary_lines(group_lines(lines), over)}
            for kind, lines in self._lines.items()
        }
        known = {name for kind in _KINDS for name in means[kind]}
        # An area is shown in one unit.
        shown = [name for name in MEASURES if name in known and not (name == "mean_area" and "mean_area_um2" in known)]
        return {
            "over": over,
            "at": "the images' own size" if self._seen_at is None else f"{self._seen_at:g} µm per pixel",
            "titles": {name: _TITLES[name] for name in shown},
            "means": [{"name": name, **{kind: means[kind].get(name) for kind in _KINDS}} for name in shown],
            "images": [
                {"id": one["group"], "predicted": one, "annotated": two}
                for one, two in zip(images["predicted"], images["annotated"], strict=True)
            ],
        }


def _consecutive(numbers: NDArray[Any]) -> NDArray[np.int32]:
    """Object numbers (H, W) without gaps, 0 being none."""
    known, place = np.unique(numbers, return_inverse=True)
    # Without any background, the first number is an object's.
    found: NDArray[np.int32] = (place.reshape(numbers.shape) + (known[0] != 0)).astype(np.int32)
    return found
