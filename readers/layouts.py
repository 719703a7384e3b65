"""Layouts of data sets that are known and not read: what they are called, and what makes a plain folder of them."""

__all__ = ["known_layout", "masks_among", "masks_elsewhere"]

import re
from collections.abc import Collection
from pathlib import Path

from textdiff.readers.names import IMAGES, visible
from textdiff.readers.splits import parse_split

_NAMED = "one PNG per image in masks/, named as the image"
_COCO = "put the images in images/, write texts.csv, and give the file of its polygons with --annotations"
_DRAW = f"draw its polygons as masks, {_NAMED}, and put the images in images/"
_LAYOUTS = (
    (
        "Pascal VOC",
        ("JPEGImages", "SegmentationClass"),
        "rename JPEGImages to images and SegmentationClass to masks, and use --classes and --unlabelled-value 255",
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
    ("COCO", ("annotations/*.json",), _COCO),
    ("COCO", ("*coco*.json",), _COCO),
    ("COCO", ("*/*coco*.json",), _COCO),
    ("COCO", ("instances*.json",), _COCO),
    ("YOLO", ("labels/*.txt",), _DRAW),
    ("YOLO", ("labels/*/*.txt",), _DRAW),
)
"""Name, what is there, and what to do. The first that fits is it."""
_IMAGES = {"images", "image", "imgs", "img", "input", "inputs", "pictures"}
_MASKS = {"masks", "mask", "labels", "label", "gt", "groundtruth", "annotations", "seg", "segmentation", "targets"}
_OF_MASK = r"^mask[_-]|[_-](mask|masks|seg|segmentation|label|labels|gt|anno)$"


def known_layout(root: Path) -> str:
    """``is laid out as <name>: <what to do>``; nothing if the layout of a directory is not known."""
    for name, parts, advice in _LAYOUTS:
        if all(next(root.glob(part), None) is not None for part in parts):
            return f"is laid out as {name}; {advice}"
    return _other_names(root) or _encoded(root) or _side_by_side(root)


def masks_elsewhere(base: Path) -> Path | None:
    """A folder of images that is called as masks are, in a directory without ``masks``."""
    if (base / "masks").is_dir():
        return None
    return next((path for path in _folders(base) if _words(path) & _MASKS and _holds_images(path)), None)


def masks_among(names: Collection[str]) -> list[str]:
    """Those of the names of images that are called as the mask of another one is."""
    return sorted(
        name for name in names if re.search(_OF_MASK, name, re.I) and re.sub(_OF_MASK, "", name, flags=re.I) in names
    )


def _other_names(root: Path) -> str:
    """``img`` for ``images`` and the like, in the directory itself or in the folders of splits."""
    found = []
    for base in [root, *(path for path in _folders(root) if parse_split(path.name))]:
        for path in _folders(base):
            kind = "images" if _words(path) & _IMAGES else "masks" if _words(path) & _MASKS else ""
            split = next(filter(None, map(parse_split, sorted(_words(path)))), None)
            wanted = base / split / kind if split else base / kind
            if kind and path != wanted and _holds_images(path):
                found.append(f"{path.relative_to(root).as_posix()} to {wanted.relative_to(root).as_posix()}")
    return f"has images and masks in folders of other names; rename {', '.join(found)}" if found else ""


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in visible(root) if path.is_dir())


def _words(path: Path) -> set[str]:
    return set(re.split(r"[\W_]+", path.name.lower()))


def _holds_images(folder: Path) -> bool:
    return any(path.name.lower().endswith(IMAGES) for path in visible(folder))


def _encoded(root: Path) -> str:
    """Run lengths of masks in a table, as Kaggle's competitions have them."""
    for table in sorted(root.glob("*.csv")):
        with table.open("rb") as file:
            if re.search(rb"encodedpixels|\brle\b|segmentation", file.readline(1000), re.IGNORECASE):
                return f"has run lengths of masks in {table.name}; decode them, {_NAMED}"
    return ""


def _side_by_side(root: Path) -> str:
    stems = [path.stem for path in visible(root) if path.is_file() and path.name.lower().endswith(IMAGES)]
    if not stems:
        return ""
    marked = sorted(stem for stem in stems if re.search(_OF_MASK, stem, re.IGNORECASE))
    if marked:
        return (
            f"has images beside their masks; move the masks (such as {marked[0]}) to masks/, named as their images, "
            "the images to images/, and write texts.csv"
        )
    return f"has {len(stems)} images of its own; move them to images/, their masks to masks/, and write texts.csv"
