"""Reads the layout of the Data Science Bowl 2018: a folder for each image, a mask for each object in it.

    DIR/
        <image>/images/<image>.png
        <image>/masks/*.png    one object each; the folder may be missing
        texts.csv              or .tsv, .xlsx, .jsonl, as in a plain folder; may be missing

https://bbbc.broadinstitute.org/BBBC038 has the data set, in the folders stage1_train and stage1_test.
"""

__all__ = ["has_object_folders", "load_objects", "read_object_folders"]

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.images.formats import BadImageError, read_bytes
from textdiff.images.masks import decode_mask
from textdiff.options.reading import ReadOptions
from textdiff.readers.names import by_name, error, is_utf8, note, relative, sort_problems, visible
from textdiff.readers.sample import Problem, Sample
from textdiff.readers.splits import parse_split, settle_splits
from textdiff.readers.texts import texts_beside


def has_object_folders(root: Path) -> bool:
    """Whether most folders in a directory, none of them called after a split, hold a single image and masks."""
    folders = [path for path in visible(root) if path.is_dir()]
    if any(parse_split(path.name) for path in folders):
        return False
    alone = [len(by_name(path, path / "images", [])) == 1 for path in folders if (path / "images").is_dir()]
    return any((path / "masks").is_dir() for path in folders) and 2 * sum(alone) > len(folders)


def read_object_folders(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Lists the samples below ``root``, each with its folder of masks; opens no image.

    Returns:
        The samples without an error, by split and id, and all problems.

    Raises:
        UserError: an unreadable table, or options that contradict the data.
    """
    if options.classes:
        raise UserError(f"--classes: the masks in {root} tell objects apart, not classes; leave the option out")
    if options.unlabelled_value is not None:
        raise UserError(f"--unlabelled-value: the masks in {root} are objects, which say all; leave the option out")
    problems: list[Problem] = []
    images: dict[str, tuple[Path, Path | None]] = {}
    counts = list[int]()
    for folder in sorted(path for path in visible(root) if path.is_dir()):
        if not is_utf8(folder.name):
            problems.append(error(relative(root, folder), "has a name that is not UTF-8", "rename it"))
            continue
        found = by_name(root, folder / "images", problems) if (folder / "images").is_dir() else {}
        files = [path for paths in found.values() for path in paths]
        if len(files) != 1:
            problems.append(error(folder.name, f"holds {len(files)} images in images/", "keep one in each folder"))
            continue
        masks, key = folder / "masks", next(iter(found))
        if key in images:
            first = relative(root, images[key][0])
            what = f"has the name of {first}"
            problems.append(error(relative(root, files[0]), what, "name each image as its folder"))
            continue
        found = by_name(root, masks, problems) if masks.is_dir() else {}
        images[key] = files[0], masks if found else None
        counts += [sum(map(len, found.values()))] if found else []
    if counts and max(counts) == 1:
        # A lab's folder for each case looks the same, and its masks hold all that there is in an image.
        what = "has one mask for each image, which is taken for a single object"
        fix = "put the images in images/ and the masks in masks/, named alike, if they show several"
        problems.append(note(root.name, what, fix))
    absent = "write it, with the columns image and text, if there are any"
    samples = []
    for key, row in texts_beside(root, {key: image for key, (image, _) in images.items()}, problems, absent).items():
        image, masks_of = images[key]
        if masks_of is None:
            problems.append(note(relative(root, image), "has no masks: it is unlabelled"))
        split = parse_split(row.split) or "train"
        samples.append(Sample(key, split, image, masks_of, row.text, row.group, instances=True))
    return settle_splits(root.name, samples, problems, options), sort_problems(problems)


def load_objects(folder: Path, height: int, width: int) -> tuple[NDArray[np.uint32], str, list[str]]:
    """Numbers the objects of an image, from 1, in the order of their masks' names; the first keeps its pixels.

    Returns:
        (height, width) uint32, the SHA-256 of the masks' SHA-256, and what a user should know, one phrase each.

    Raises:
        BadImageError: a mask cannot be used, or is not of that size.
    """
    instances = np.zeros((height, width), np.uint32)
    digest, shared, empty = hashlib.sha256(), 0, 0
    files = [path for paths in by_name(folder, folder, []).values() for path in paths]
    for number, path in enumerate(files, 1):
        data = read_bytes(path)
        digest.update(hashlib.sha256(data).digest())
        try:
            mask = decode_mask(path, data).labels.astype(bool)
        except BadImageError as reason:
            raise BadImageError(folder, f"holds {path.name}, which {reason.what}", reason.fix) from reason
        if mask.shape != instances.shape:
            size = f"{mask.shape[1]}x{mask.shape[0]} pixels, but its image {width}x{height}"
            raise BadImageError(folder, f"holds {path.name}, which is {size}", "export it at the image's size")
        free = mask & (instances == 0)
        shared += int(mask.sum()) - int(free.sum())
        empty += not free.any()
        instances[free] = number
    notes = [f"{shared} pixels are in several objects: the first one keeps them"] if shared else []
    if empty:
        notes.append(f"{empty} of {len(files)} objects hold no pixel of their own (ignored)")
    return instances, digest.hexdigest(), notes
