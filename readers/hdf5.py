"""Reads a data set that is one HDF5 file, a slice at a time.

    FILE.h5
        images    (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4); or a group with one image per member
        masks     (N, H, W), (N, H, W, 1), (N, 1, H, W), or a group with the same members; may be missing
        texts     (N,) strings, or a group with the same members; may be missing
        split     the same with train, val, test
        group     the same with strings or numbers, such as patients

All names can be chosen. Members of a group may differ in size; without groups a sample's id is its number. Beside a
group of images the columns are groups, too: members have no order that the values of an array could be in. All of it is
in the file itself: links, external storage and virtual data sets are refused, since they can bring in any file. What is
read is looked at first, its shape, type and storage, since a few bytes can claim any amount of memory.
"""

__all__ = ["plane", "read_hdf5", "read_slice"]

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.console import counted
from textdiff.errors import UserError
from textdiff.images.formats import MAX_BYTES, REPLACE, BadImageError, check_size, too_large
from textdiff.options.reading import ReadOptions
from textdiff.readers.hdf5_trial import comes_to_an_end
from textdiff.readers.names import error, note, sort_problems
from textdiff.readers.sample import UNMASKED, Problem, Sample, Slice
from textdiff.readers.splits import parse_split, settle_splits, unknown_split
from textdiff.readers.table_reader import doubt, one_line

_MAX_IMAGES = 1 << 20
_ANEW = "copy it into the file itself"

_NUMBERS = "store masks as (N, H, W), classes as numbers (np.argmax over their axis) that --classes names"


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
        asked = {"texts": options.h5_texts, "split": options.h5_split, "group": options.h5_group}
        columns = {column: _column(root, file, column, wanted, images, names) for column, wanted in asked.items()}
        labelled = _labelled(root, images, masks, names, problems)
        if masks is None:
            problems.append(note(root.name, f"has no {options.h5_masks or 'masks'}: all images are unlabelled"))
        if columns["texts"] is None:
            problems.append(note(root.name, f"has no {options.h5_texts or 'texts'}: all texts are empty"))
        stack = not hasattr(images, "keys")
        if stack and "MATLAB_class" in images.attrs:
            what = "was saved by MATLAB, which reverses axes: what it calls (H, W, N) is read as images on their side"
            problems.append(note(root.name, what, "permute(images, [2 1 3]) before saving, unless that is done"))
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
            dataset = _member(source.file, file, source.dataset)
            if not isinstance(dataset, h5py.Dataset):
                raise BadImageError(source, "is a group and no image", "store (H, W) or (H, W, C) numbers")
            _check_storage(source, dataset)
            shape = dataset.shape if source.index is None else dataset.shape[1:]
            # One channel may stand first as well as last; an image of one row has few channels behind it.
            shape = shape[1:] if len(shape) == 3 and shape[0] == 1 and shape[2] > 4 else shape
            _check_image(source, shape, dataset.dtype)
            pixels = np.ascontiguousarray(dataset[()] if source.index is None else dataset[source.index]).reshape(shape)
    # What a damaged file raises depends on the filter that stumbles over it.
    except (OSError, KeyError, ValueError, RuntimeError, IndexError, TypeError) as error:
        raise BadImageError(source, "cannot be read", REPLACE) from error
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return pixels, digest


def _check_image(source: Slice, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise BadImageError(source, f"is {dtype} {shape} and no image", "store (H, W) or (H, W, C) numbers")
    if len(shape) == 3 and shape[2] > 4 and shape[0] <= 4:
        raise BadImageError(source, f"has the shape {shape}, channels first", "store channels last: (H, W, C)")
    if shape[2:] == (2,):
        raise BadImageError(source, f"has the shape {shape}, two channels", "store one channel, or three that are RGB")
    check_size(source, shape[0], shape[1])
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise too_large(source, f"{math.prod(shape[2:])} channels of {dtype} in {shape[1]}x{shape[0]} pixels")


def _member(root: Path, file: Any, name: str) -> Any:
    """What has a name in the file itself; None if nothing has.

    Raises:
        BadImageError: a link is on the way.
    """
    import h5py

    found: Any = file
    for part in filter(None, name.split("/")):
        if not isinstance(found, h5py.Group) or part not in found:
            return None
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise BadImageError(root, f"has a link at {found.name.rstrip('/')}/{part}, which is not followed", _ANEW)
        found = found[part]
    return found


def _check_storage(where: Path | Slice | str, dataset: Any) -> None:
    """Refuses what is not in the file, what was never written, and what cannot be decompressed.

    Raises:
        BadImageError: it is one of these.
    """
    import h5py

    if dataset.is_virtual:
        raise BadImageError(where, "is a virtual data set, made of parts of other files", _ANEW)
    if dataset.external is not None:
        raise BadImageError(where, "has its bytes in another file", _ANEW)
    if dataset.shape is None:
        raise BadImageError(where, "has no values", "store some there")
    plan = dataset.id.get_create_plist()
    for number in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            what = f"is compressed with the filter {name.decode(errors='replace') or code}, which is not here"
            raise BadImageError(where, what, "store it with gzip, for example with h5repack")
    if dataset.chunks is None:
        parts, written = 1, int(dataset.id.get_storage_size() >= dataset.nbytes)
    else:
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > MAX_BYTES:
            raise BadImageError(where, f"has chunks of {dataset.chunks}", "store it in smaller chunks")
        parts = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        written = dataset.id.get_num_chunks()
    if written < parts:
        what = f"was never written: {written} of {parts} parts are there, and the others would be taken for zeros"
        raise BadImageError(where, what, "write all of it")


def plane(source: Slice, stored: NDArray[Any]) -> NDArray[Any]:
    """A stored mask without its axis of channels, (H, W), or (H, W, 3) if they are colours.

    Raises:
        BadImageError: channels that are classes, or of no known meaning.
    """
    if stored.ndim == 2 or stored.shape[2] == 1:
        return stored.reshape(stored.shape[:2])
    grey = np.all(stored == stored[..., :1])
    colours = stored.dtype == np.uint8 and stored.max() > 1 and np.ptp(stored.sum(axis=2)) > 0
    if stored.shape[2] != 3 or not (grey or colours):
        raise BadImageError(source, f"is a mask of the shape {stored.shape}, a channel for each class", _NUMBERS)
    return stored


@contextmanager
def _open(root: Path) -> Iterator[Any]:
    import h5py

    if not root.exists():
        raise UserError(f"{root}: no such file; give the HDF5 file with --data")
    if root.is_dir():
        raise UserError(f"{root}: is a directory; give an HDF5 file, or use --dataset folder")
    if not comes_to_an_end(root):
        raise UserError(f"{root}: is damaged, so that the HDF5 library does not come to an end; {REPLACE}")
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
    import h5py

    wanted = name or default
    found = _member(root, file, wanted) if wanted else None
    if isinstance(found, h5py.Dataset):
        _check_storage(f"{root}/{wanted}", found)
    if isinstance(found, h5py.Dataset | h5py.Group):
        return found
    if name is None:
        return None
    names = ", ".join(sorted(file.keys())[:8]) or "nothing"
    raise UserError(f"{root}: has no dataset {name}; name the right one with {option}; found {names}")


def _names(root: Path, images: Any) -> list[str]:
    """The ids: members of a group in order, or numbers of equal width."""
    place, stacked = f"{root}: {images.name.strip('/')}", not hasattr(images, "keys")
    if stacked and images.ndim not in (3, 4):
        raise UserError(f"{place} has the shape {images.shape}; store images as (N, H, W) or (N, H, W, C)")
    if not (count := len(images)):
        raise UserError(f"{place} holds no images; put them there")
    if count > _MAX_IMAGES:
        raise UserError(f"{place} holds {count} images, more than {_MAX_IMAGES}; split it")
    if stacked and images.ndim == 4 and images.shape[3] > 4:
        first = ", channels first" if images.shape[1] <= 4 else ""
        raise UserError(f"{place} has the shape {images.shape}{first}; store channels last: (N, H, W, C)")
    return [f"{number:0{len(str(count - 1))}d}" for number in range(count)] if stacked else sorted(images.keys())


def _labelled(root: Path, images: Any, masks: Any, names: list[str], problems: list[Problem]) -> set[str]:
    """The ids that have a mask."""
    if masks is None:
        return set()
    if hasattr(images, "keys") != hasattr(masks, "keys"):
        raise UserError(f"{root}: images and masks are one group and one dataset; store both in the same way")
    if not hasattr(masks, "keys"):
        shape = masks.shape
        if shape and shape[0] != len(images):
            what = f"{counted(len(images), 'image')} and {counted(len(masks), 'mask')}"
            raise UserError(f"{root}: has {what}; store one mask per image")
        if not (len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or shape[1] == 1))):
            raise UserError(f"{root}: {masks.name.strip('/')} has the shape {shape}; {_NUMBERS}")
        return set(names)
    for name in sorted(masks.keys() - set(names)):
        problems.append(error(f"{masks.name.strip('/')}/{name}", "is a mask without an image", "add it or remove it"))
    for name in names:
        if name not in masks:
            problems.append(note(f"{images.name.strip('/')}/{name}", UNMASKED))
    return set(masks.keys())


def _column(root: Path, file: Any, column: str, wanted: str | None, images: Any, names: list[str]) -> list[str] | None:
    """One string per image, None if there are none."""
    found = _find(root, file, f"--h5-{column}", wanted, column)
    if found is None:
        return None
    place = found.name.strip("/")
    if hasattr(found, "keys"):
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(f"{root}: {place} has no {missing[0]}, which is an image; store one value per image")
        values = [_values(root, _member(root, found, name), f"{place}/{name}", ()) for name in names]
    elif hasattr(images, "keys"):
        what = f"{place} is an array, and {images.name.strip('/')} a group, whose members have no order"
        raise UserError(f"{root}: {what}; store {place} as a group, too, with a value for each member")
    else:
        values = list(_values(root, found, place, (len(names),)))
    try:
        return [one_line(value.decode() if isinstance(value, bytes) else value) for value in values]
    except UnicodeDecodeError as error:
        raise UserError(f"{root}: {place} is not UTF-8; store its strings as UTF-8") from error


def _values(root: Path, dataset: Any, place: str, shape: tuple[int, ...]) -> Any:
    """The strings or numbers of a dataset of that shape."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape:
        got = f"has the shape {dataset.shape}" if isinstance(dataset, h5py.Dataset) else "is a group"
        raise UserError(f"{root}: {place} {got} and not {shape}; store one value per image")
    if not shape:
        _check_storage(f"{root}/{place}", dataset)
    text = h5py.check_string_dtype(dataset.dtype)
    if (text is None and dataset.dtype.kind not in "buif") or dataset.nbytes > MAX_BYTES:
        raise UserError(f"{root}: {place} is {dataset.dtype}; store strings or numbers")
    return dataset[()]
