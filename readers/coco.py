"""COCO's instances (https://cocodataset.org/#format-data): one file for many images -> the objects of each.

A segmentation is a list of polygons, the parts of one object, or run lengths down the columns of the image, as numbers
or in the letters of pycocotools. ``iscrowd`` says that there are objects which nobody told apart: nothing is known
there.
"""

__all__ = ["coco_images", "is_coco", "read_coco"]

import json
import os
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.images.formats import BadImageError
from textdiff.readers.corners import Corners, as_corners
from textdiff.readers.outlines import Drawn, Patch

_FIX = "export the annotations as COCO instances with segmentations again"
_MERGED = "give each an id of its own, also where files are put together"
_MAX_PIXELS = 500_000_000
"""In the columns that all run lengths of an image take together."""


def is_coco(content: Any) -> bool:
    """Whether JSON is a COCO file."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


def coco_images(path: str | os.PathLike[str], content: dict[str, Any]) -> dict[str, bytes]:
    """What the file says of each image, by the image's name in it, as JSON: for ``read_coco``.

    Raises:
        BadImageError: not COCO instances, an image or a category that is not there, or two images of one name.
    """
    names, images, found = dict[str, str](), dict[str, str](), dict[str, dict[str, Any]]()
    for kind in ("images", "annotations", "categories"):
        listed = content.get(kind)
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise BadImageError(path, f"has no list of {kind}", _FIX)
    for one in content["categories"]:
        if not isinstance(one.get("name"), str):
            raise BadImageError(path, "has a category without a name", _FIX)
        if names.setdefault(str(one.get("id")), one["name"]) != one["name"]:
            what = f"has two categories of the id {one.get('id')}, {names[str(one.get('id'))]} and {one['name']}"
            raise BadImageError(path, what, _MERGED)
    for one in content["images"]:
        file = one.get("file_name")
        if not isinstance(file, str) or file in found:
            what = f"lists the image {file} twice" if isinstance(file, str) else "lists an image without a file_name"
            raise BadImageError(path, what, _FIX)
        if (first := images.setdefault(str(one.get("id")), file)) != file:
            raise BadImageError(path, f"has two images of the id {one.get('id')}, {first} and {file}", _MERGED)
        found[file] = {"size": [one.get("width"), one.get("height")], "objects": []}
    for number, one in enumerate(content["annotations"]):
        place = f"annotation {one.get('id', number)}"
        if "segments_info" in one:
            raise BadImageError(path, "is COCO panoptic, whose masks are in other files", _FIX)
        if str(one.get("image_id")) not in images:
            raise BadImageError(path, f"has no image {one.get('image_id')}, which {place} is of", _FIX)
        if str(one.get("category_id")) not in names:
            raise BadImageError(path, f"has no category {one.get('category_id')}, which {place} is of", _FIX)
        entry = {"place": place, "name": names[str(one["category_id"])], "crowd": bool(one.get("iscrowd"))}
        objects = found[images[str(one["image_id"])]]["objects"]
        objects.append(entry | {"segmentation": one.get("segmentation")})
    # As bytes they take a tenth of the memory, and are what tells whether an image's annotations have changed.
    return {file: json.dumps(entry).encode() for file, entry in found.items()}


def read_coco(path: str | os.PathLike[str], entry: bytes, height: int, width: int) -> tuple[list[Drawn], list[str]]:
    """The objects of one image (height, width), in the file's order, from its entry of ``coco_images``.

    Returns:
        The objects, and what a user should know.

    Raises:
        BadImageError: they are of an image of another size, or one has no segmentation.
    """
    content, drawn, pixels = json.loads(entry), list[Drawn](), 0
    if None not in content["size"] and content["size"] != [width, height]:
        stated, own = "x".join(map(str, content["size"])), f"{width}x{height}"
        raise BadImageError(path, f"is of an image of {stated} pixels, and this one has {own}", "resize neither")
    for one in content["objects"]:
        place, shape = one["place"], one["segmentation"]
        polygons, patches = list[tuple[Corners, ...]](), list[Patch]()
        try:
            if isinstance(shape, dict):
                if shape.get("size") != [height, width]:
                    raise ValueError(f"run lengths of an image of another size than {width}x{height}")
                patch = _painted(_runs(shape.get("counts"), height * width), height)
                patches.append(patch)
                pixels += patch.pixels.size
            elif isinstance(shape, list) and shape:
                for flat in shape:
                    if not isinstance(flat, list) or len(flat) % 2:
                        raise ValueError("a polygon that is not a list of x, y, x, y ...")
                    polygons.append((as_corners([flat[at : at + 2] for at in range(0, len(flat), 2)]),))
            else:
                raise ValueError("a box and no segmentation")
        except ValueError as error:
            raise BadImageError(path, f"has {error}: {place}", _FIX) from error
        if pixels > _MAX_PIXELS:
            raise BadImageError(path, "has run lengths that are too large together", "split the annotations")
        drawn.append(Drawn(place, one["name"], tuple(polygons), tuple(patches), one["crowd"]))
    crowds = sum(one.unsaid for one in drawn)
    return drawn, [f"{crowds} of {len(drawn)} objects are crowds (iscrowd): nothing is said there"] if crowds else []


def _runs(counts: Any, total: int) -> NDArray[np.int64]:
    """Lengths of runs, of background first, from numbers or from pycocotools' letters.

    Raises:
        ValueError: they are neither, or not of ``total`` pixels.
    """
    if isinstance(counts, str):
        counts = _of_letters(counts)
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count <= total for count in counts):
        raise ValueError("run lengths that are none")
    if sum(counts) != total:
        raise ValueError(f"run lengths of {sum(counts)} pixels, and not {total}")
    return np.array(counts, np.int64)


def _of_letters(letters: str) -> list[int]:
    """Each number is in groups of five bits, the lowest first; from the third on it is the difference to two before."""
    runs, number, shift = list[int](), 0, 0
    for letter in letters:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 35:
            raise ValueError("run lengths in letters that are none")
        number |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("run lengths that end within a number")
    return runs


def _painted(runs: NDArray[np.int64], height: int) -> Patch:
    """What the runs hold, in the columns from their first pixel to their last."""
    ends = np.concatenate([[0], np.cumsum(runs)])
    spans = [(first, end) for first, end in list(pairwise(ends.tolist()))[1::2] if end > first]
    if not spans:
        return Patch(0, 0, np.zeros((0, 0), bool))
    left, right = spans[0][0] // height, (spans[-1][1] - 1) // height + 1
    if (right - left) * height > _MAX_PIXELS:
        raise ValueError("run lengths that are too large")
    pixels = np.zeros((right - left) * height, bool)
    for first, end in spans:
        pixels[first - left * height : end - left * height] = True
    return Patch(0, left, pixels.reshape(right - left, height).T)
