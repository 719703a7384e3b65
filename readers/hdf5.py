"""Reads a data set that is one HDF5 file, a slice at a time.

    FILE.h5
        images    (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4); or a group with one image per member
        masks     (N, H, W), or a group with the same members; may be missing
        texts     (N,) strings, or a group with the same members; may be missing
        split     (N,) strings train, val, test; may be missing
        group     (N,) strings or numbers, such as patients; may be missing

All names can be chosen. Members of a group may differ in size; without groups a sample's id is its number.
"""

__all__ = ["read_hdf5", "read_slice"]

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.pipeline.imaging.formats import BadImageError, too_large, too_many_pixels
from textdiff.pipeline.sample import Problem, Sample, Slice
from textdiff.readers.names import error, note, sort_problems
from textdiff.readers.options import ReadOptions
from textdiff.readers.splits import parse_split, settle_splits, unknown_split
from textdiff.readers.tables import doubt, one_line


def read_hdf5(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Lists the samples in the HDF5 file ``root``; reads its texts, splits and groups, and no image.

    Returns:
        The samples without an error, by split and id, and all problems.

    Raises:
        UserError: no HDF5 file, a dataset that is missing or has another shape, or options that contradict the data.
    """
    problems: list[Problem] = []
    with _open(root) as file:
        images = _find(root, file, "--h5-images", options.h5_images)
        names = _names(root, images)
        masks = _find(root, file, "--h5-masks", options.h5_masks, "masks")
        columns = {
            column: _column(root, file, f"--h5-{column}", wanted, column, names)
            for column, wanted in (
                ("texts", options.h5_texts),
                ("split", options.h5_split),
                ("group", options.h5_group),
            )
        }
        labelled = _labelled(root, images, masks, names, problems)
        if masks is None:
            problems.append(note(root.name, f"has no {options.h5_masks or 'masks'}: all images are unlabelled"))
        if columns["texts"] is None:
            problems.append(note(root.name, f"has no {options.h5_texts or 'texts'}: all texts are empty"))
        stack = not hasattr(images, "keys")
        image_name, mask_name = images.name.strip("/"), "" if masks is None else masks.name.strip("/")
    samples = []
    for number, name in enumerate(names):
        text, split, group = (values[number] if (values := columns[c]) else "" for c in ("texts", "split", "group"))
        if columns["split"] and parse_split(split) is None:
            problems.append(error(f"{image_name}/{name}", *unknown_split(split)))
            continue
        if what := next(filter(None, map(doubt, (text, split, group))), ""):
            problems.append(
                error(f"{image_name}/{name}", f"has {what}, for its text or group", "write an empty string for none")
            )
            continue
        index = number if stack else None
        image, mask = (
            Slice(root, dataset if stack else f"{dataset}/{name}", index) for dataset in (image_name, mask_name)
        )
        samples.append(
            Sample(name, parse_split(split) or "train", image, mask if name in labelled else None, text, group)
        )
    samples = settle_splits(root.name, samples, problems, options, given=columns["split"] is not None)
    return samples, sort_problems(problems)


def read_slice(source: Slice) -> tuple[NDArray[Any], str]:
    """The stored pixels of one image or mask, (H, W) or (H, W, C), and the SHA-256 of their shape, type and bytes.

    Raises:
        BadImageError: the file is damaged or has changed.
    """
    import h5py

    try:
        with h5py.File(source.file, "r") as file:
            dataset = file[source.dataset]
            pixels = np.asarray(dataset[()] if source.index is None else dataset[source.index])
    # What a damaged file raises depends on the filter that stumbles over it.
    except (OSError, KeyError, ValueError, RuntimeError, IndexError, TypeError) as error:
        raise BadImageError(source, "cannot be read", "replace the file by an intact copy") from error
    if pixels.ndim not in (2, 3) or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise BadImageError(
            source, f"is {pixels.dtype} {pixels.shape} and no image", "store (H, W) or (H, W, C) numbers"
        )
    if pixels.ndim == 3 and pixels.shape[2] > 4 and pixels.shape[0] <= 4:
        raise BadImageError(source, f"has the shape {pixels.shape}, channels first", "store channels last: (H, W, C)")
    if too_many_pixels(*pixels.shape[:2]):
        raise too_large(source, f"{pixels.shape[1]}x{pixels.shape[0]} pixels")
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return pixels, digest


@contextmanager
def _open(root: Path) -> Iterator[Any]:
    import h5py

    if not root.exists():
        raise UserError(f"{root}: no such file; give the HDF5 file with --data")
    if root.is_dir():
        raise UserError(f"{root}: is a directory; give an HDF5 file, or use --dataset folder")
    try:
        file = h5py.File(root, "r")
    except OSError as error:
        raise UserError(f"{root}: is not an HDF5 file, or a damaged one; give an HDF5 file with --data") from error
    with file:
        try:
            yield file
        # The library reports damage inside a file as any of these, wherever it stumbles over it.
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{root}: is damaged ({error}); replace it by an intact copy") from error


def _find(root: Path, file: Any, option: str, name: str | None, default: str | None = None) -> Any:
    """The dataset or group of that name; None if none was asked for and there is no ``default`` one."""
    wanted = name or default
    import h5py

    if wanted in file and isinstance(file[wanted], h5py.Dataset | h5py.Group):
        return file[wanted]
    if name is None:
        return None
    found = ", ".join(sorted(file.keys())[:8]) or "nothing"
    raise UserError(f"{root}: has no dataset {name}; name the right one with {option}; found {found}")


def _names(root: Path, images: Any) -> list[str]:
    """The ids: members of a group in order, or numbers of equal width."""
    if hasattr(images, "keys"):
        names = sorted(images.keys())
    elif images.ndim not in (3, 4):
        raise UserError(
            f"{root}: {images.name.strip('/')} has the shape {images.shape}; store images as (N, H, W) or (N, H, W, C)"
        )
    elif images.ndim == 4 and images.shape[3] > 4:
        first = ", channels first" if images.shape[1] <= 4 else ""
        raise UserError(
            f"{root}: {images.name.strip('/')} has the shape {images.shape}{first}; store channels last: (N, H, W, C)"
        )
    else:
        names = [f"{number:0{len(str(len(images) - 1))}d}" for number in range(len(images))]
    if not names:
        raise UserError(f"{root}: {images.name.strip('/')} holds no images; put them there")
    return names


def _labelled(root: Path, images: Any, masks: Any, names: list[str], problems: list[Problem]) -> set[str]:
    """The ids that have a mask."""
    if masks is None:
        return set()
    if hasattr(images, "keys") != hasattr(masks, "keys"):
        raise UserError(f"{root}: images and masks are one group and one dataset; store both in the same way")
    if not hasattr(masks, "keys"):
        if len(masks) != len(images):
            raise UserError(f"{root}: has {len(images)} images and {len(masks)} masks; store one mask per image")
        return set(names)
    for name in sorted(masks.keys() - set(names)):
        problems.append(error(f"{masks.name.strip('/')}/{name}", "is a mask without an image", "add it or remove it"))
    for name in names:
        if name not in masks:
            problems.append(note(f"{images.name.strip('/')}/{name}", "has no mask: it is unlabelled"))
    return set(masks.keys())


def _column(root: Path, file: Any, option: str, wanted: str | None, default: str, names: list[str]) -> list[str] | None:
    """One string per image, None if there are none."""
    found = _find(root, file, option, wanted, default)
    if found is None:
        return None
    place = found.name.strip("/")
    if hasattr(found, "keys"):
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(f"{root}: {place} has no {missing[0]}, which is an image; store one value per image")
        values = [found[name][()] for name in names]
    elif found.shape != (len(names),):
        raise UserError(f"{root}: {place} has the shape {found.shape}, and there are {len(names)} images")
    else:
        values = list(found[()])
    try:
        return [one_line(value.decode() if isinstance(value, bytes) else value) for value in values]
    except UnicodeDecodeError as error:
        raise UserError(f"{root}: {place} is not UTF-8; store its strings as UTF-8") from error
