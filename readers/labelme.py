"""What labelme saves beside an image -> objects: polygons, rectangles, circles and masks.

Shapes of one label and one ``group_id`` are one object. In labelme the label ``__ignore__`` says nothing, and
``_background_`` is the background (https://github.com/wkentaro/labelme).
"""

__all__ = ["is_labelme", "read_labelme"]

import base64
import binascii
import os
import struct
from dataclasses import replace
from typing import Any

import numpy as np

from textdiff.images.formats import BadImageError
from textdiff.images.labels import stored_numbers
from textdiff.readers.corners import Corners, as_corners, ellipse
from textdiff.readers.names import key_of, owner
from textdiff.readers.outlines import Drawn, Patch

_FIX = "save the annotations in labelme again"
_LINES = ("line", "linestrip")
_POINTS = ("point", "points", "points_with_labels")
_NAMES = {"__ignore__": "*", "_background_": "background"}


def is_labelme(content: Any) -> bool:
    """Whether JSON is what labelme saves."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(
    path: str | os.PathLike[str], content: dict[str, Any], height: int, width: int
) -> tuple[list[Drawn], list[str]]:
    """The objects in a labelme file of an image (height, width), in its order, and what a user should know.

    ``content`` is what ``json`` makes of the file. Lines and points are strokes.

    Raises:
        BadImageError: it is of an image of another size, or has a shape that is none.
    """
    stated = content.get("imageWidth"), content.get("imageHeight")
    if None not in stated and stated != (width, height):
        what = f"is of an image of {stated[0]}x{stated[1]} pixels, and this one has {width}x{height}"
        raise BadImageError(path, what, "annotate the image at its own size")
    found, groups = list[Drawn](), dict[tuple[str, str], int]()
    for number, shape in enumerate(content["shapes"]):
        place = f"shapes[{number}]"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise BadImageError(path, f"has no shape with a label at {place}", _FIX)
        kind, name = shape.get("shape_type") or "polygon", _NAMES.get(shape["label"], shape["label"]) or None
        try:
            corners = as_corners(shape.get("points"))
            if kind in _LINES or kind in _POINTS:
                lines = [corners] if kind in _LINES else [point[None] for point in corners]
                found.append(Drawn(place, name, strokes=tuple(lines)))
                continue
            one = Drawn(place, name, *_area(path, kind, corners, shape, height, width))
        except (ValueError, binascii.Error, struct.error) as error:
            raise BadImageError(path, f"has {error} at {place}", _FIX) from error
        group = shape["label"], str(shape.get("group_id"))
        if shape.get("group_id") is not None and group in groups:
            first = found[groups[group]]
            whole = replace(first, polygons=first.polygons + one.polygons, patches=first.patches + one.patches)
            found[groups[group]] = whole
        else:
            groups[group] = len(found)
            found.append(one)
    return found, _of_another_image(path, content.get("imagePath"))


def _of_another_image(path: str | os.PathLike[str], image: Any) -> list[str]:
    """What is said of a file that names another image than the one it is called after, as a copy does."""
    if not isinstance(image, str) or owner(key_of(os.fspath(path)), {key_of(image)}) == key_of(image):
        return []
    return [f"says that it is of {image}: it is read for the image of its own name"]


def _area(
    path: str | os.PathLike[str], kind: Any, corners: Corners, shape: dict[str, Any], height: int, width: int
) -> tuple[tuple[tuple[Corners, ...], ...], tuple[Patch, ...]]:
    """The polygons and the patches of one shape."""
    if kind == "polygon" or (kind == "oriented_rectangle" and len(corners) == 4):
        return ((corners,),), ()
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"the unknown shape {kind}")
    if len(corners) != 2:
        raise ValueError(f"a {kind} of {len(corners)} corners")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = corners
        return ((np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),),), ()
    if kind == "circle":
        radius = float(np.hypot(*(corners[1] - corners[0])))
        return ((ellipse(np.stack([corners[0] - radius, corners[0] + radius])),),), ()
    return (), (_patch(path, corners, shape.get("mask"), height, width),)


def _patch(path: str | os.PathLike[str], corners: Corners, encoded: Any, height: int, width: int) -> Patch:
    """What was painted in the box from one pixel to another, both of them in it."""
    left, top, right, bottom = (int(end) for end in corners.round().reshape(-1))
    if not (isinstance(encoded, str) and 0 <= left <= right < width and 0 <= top <= bottom < height):
        raise ValueError("a mask without pixels, or beyond the image")
    data = base64.b64decode(encoded, validate=True)
    # A small PNG can say that it is large: that is known before it is decoded.
    if data[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack(">II", data[16:24]) != (right - left + 1, bottom - top + 1):
        raise ValueError("a mask that is no PNG of the size of its box")
    pixels = stored_numbers(path, data)[0] != 0
    return Patch(top, left, pixels.any(2) if pixels.ndim == 3 else pixels)
