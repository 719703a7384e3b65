"""Layouts of data sets that are known and not read: what they are called, and what makes a plain folder of them."""

__all__ = ["known_layout", "masks_elsewhere"]

import re
from pathlib import Path

from textdiff.readers.names import IMAGE, visible
from textdiff.readers.splits import parse_split

_NAMED = "one PNG per image in masks/, named as the image"
_DRAW = f"draw its polygons as masks, {_NAMED}, and put the images in images/"
_LAYOUTS = (
    (
        "Pascal VOC",
        ("JPEGImages", "SegmentationClass"),
        "rename JPEGImages to images and SegmentationClass to masks, set the void value 255 to 0, and use --classes",
    ),
    (
        "Cityscapes",
        ("leftImg8bit", "gtFine"),
        "copy its images to images/ and its labelIds to masks/, each named as its image",
    ),
    (
        "nnU-Net",
        ("imagesTr/*_0000.*", "labelsTr"),
        "rename imagesTr to images and labelsTr to masks, and take _0000 out of names; save slices of volumes as PNG",
    ),
    (
        "the Medical Segmentation Decathlon",
        ("imagesTr", "labelsTr"),
        "save slices of its volumes as PNG in images/ and, with their class numbers, in masks/",
    ),
    ("COCO", ("annotations/*.json",), _DRAW),
    ("COCO", ("*coco*.json",), _DRAW),
    ("COCO", ("*/*coco*.json",), _DRAW),
    ("COCO", ("instances*.json",), _DRAW),
    ("YOLO", ("labels/*.txt",), _DRAW),
    ("YOLO", ("labels/*/*.txt",), _DRAW),
)
"""Name, what is there, and what to do. The first that fits is it."""
_IMAGES = {"images", "image", "imgs", "img", "input", "inputs", "pictures", "tissue images"}
_MASKS = {"masks", "mask", "labels", "label", "gt", "groundtruth", "annotations", "seg", "segmentation", "targets"}
_OF_MASK = r"^mask[_-]|[_-](mask|masks|seg|segmentation|label|labels|gt|anno)$"


def known_layout(root: Path) -> str:
    """``is laid out as <name>: <what to do>``; nothing if the layout of a directory is not known."""
    for name, parts, advice in _LAYOUTS:
        if all(next(root.glob(part), None) is not None for part in parts):
            return f"is laid out as {name}; {advice}"
    return _other_names(root) or _encoded(root) or _side_by_side(root)


def masks_elsewhere(base: Path) -> Path | None:
    """A folder that is called as masks are, in a directory without ``masks``."""
    if (base / "masks").is_dir():
        return None
    return next((path for path in sorted(visible(base)) if path.is_dir() and path.name.lower() in _MASKS), None)


def _other_names(root: Path) -> str:
    """``img`` for ``images`` and the like, in the directory itself or in the folders of splits."""
    for base in [root, *sorted(path for path in visible(root) if path.is_dir() and parse_split(path.name))]:
        folders = {path.name.lower(): path.name for path in visible(base) if path.is_dir()}
        found = [(next((folders[name] for name in sorted(names & folders.keys())), None), own)
                 for names, own in ((_IMAGES, "images"), (_MASKS, "masks"))]  # fmt: skip
        renamed = [f"{base.name}/{name} to {own}" for name, own in found if name not in (None, own)]
        if found[0][0] and renamed:
            return f"has its images in {base.name}/{found[0][0]}; rename {' and '.join(renamed)}"
    return ""


def _encoded(root: Path) -> str:
    """Run lengths of masks in a table, as Kaggle's competitions have them."""
    for table in sorted(root.glob("*.csv")):
        with table.open("rb") as file:
            if re.search(rb"encodedpixels|\brle\b|segmentation", file.readline(1000), re.IGNORECASE):
                return f"has run lengths of masks in {table.name}; decode them, {_NAMED}"
    return ""


def _side_by_side(root: Path) -> str:
    stems = [path.stem for path in visible(root) if path.is_file() and re.search(IMAGE, path.name, re.IGNORECASE)]
    if not stems:
        return ""
    marked = sorted(stem for stem in stems if re.search(_OF_MASK, stem, re.IGNORECASE))
    if marked:
        return (
            f"has images beside their masks; move the masks (such as {marked[0]}) to masks/, named as their images, "
            "and the images to images/"
        )
    return f"has {len(stems)} images of its own; move them to images/, and their masks to masks/"
