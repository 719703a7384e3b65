"""Reads a plain folder of images, masks and a table of texts.

    DIR/
        images/      PNG, JPEG, BMP, TIFF or DICOM; or below images/train/, images/val/, images/test/
        masks/       named as the image, or mask_<image>; in the same subfolders or in none; may be missing; pictures,
                     or outlines (``readers.annotations``), which --annotations names where they are elsewhere
        texts.csv    or .tsv, .xlsx, .jsonl: columns image and text, and if you like split and group; may be missing

``DIR/train/images``, ``DIR/train/masks`` and so on are read as well, and a folder for each image (``readers.objects``).
Names are matched without folder and extension.
"""

__all__ = ["mask_place", "masks_alone", "matched_sample", "read_folder"]

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from textdiff.errors import UserError, few
from textdiff.options.reading import ReadOptions
from textdiff.readers.annotations import is_outlined, listed_annotations
from textdiff.readers.layouts import known_layout, masks_among, masks_elsewhere
from textdiff.readers.names import (
    IMAGES,
    MASKS,
    by_name,
    error,
    key_of,
    listing,
    note,
    owner,
    relative,
    sort_problems,
    unique_ids,
    visible,
)
from textdiff.readers.objects import has_object_folders, read_object_folders
from textdiff.readers.sample import UNMASKED, Problem, Sample, Slice, Split
from textdiff.readers.splits import parse_split, settle_splits
from textdiff.readers.texts import TextRow, find_table, matched_texts, read_texts

_LAYOUT = "images/, masks/ and texts.csv (or .tsv, .xlsx, .jsonl)"


def read_folder(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Lists the samples below ``root`` and matches images, masks and texts; opens no image.

    Splits come from the table's column, from subfolders, or are drawn (``options.val``, ``options.test``); with none
    of these all images are for training. An image without a mask is unlabelled, an empty text is an empty text; both
    are noted.

    Returns:
        The samples without an error, by split and id, and all problems.

    Raises:
        UserError: no such directory, another layout, an unreadable table, or options that contradict the data.
    """
    if root.is_dir() and not (root / "images").is_dir() and has_object_folders(root):
        return read_object_folders(root, options)
    samples: list[Sample] = []
    problems: list[Problem] = []
    parts = _parts(root)
    drawn = listed_annotations(Path(options.annotations)) if options.annotations else {}
    unused = set(drawn)
    for split, base in parts:
        found, wrong = _read_part(root, base, split, drawn, unused)
        samples += found
        problems += wrong
    if not samples and not problems:
        raise UserError(f"{root}: holds no images (PNG, JPEG, BMP, TIFF or DICOM) in images/; put them there")
    problems += _without_image([source for key in sorted(unused) for source in drawn[key]])
    samples = unique_ids(root, samples, problems)
    return settle_splits(root.name, samples, problems, options), sort_problems(problems)


def _without_image(sources: list[Path | Slice]) -> list[Problem]:
    """What is said of annotations that belong to no image: of a file of many images that some of them are not here."""
    problems = [
        error(str(source), "are outlines without an image", "name them as their image, or remove them")
        for source in sources
        if isinstance(source, Path)
    ]
    listed: dict[Path, list[str]] = {}
    for source in sources:
        if isinstance(source, Slice):
            listed.setdefault(source.file, []).append(source.dataset)
    for file, names in listed.items():
        problems.append(note(str(file), f"lists images that are not in images/: {len(names)} ({few(names, 4)})"))
    return problems


def mask_place(root: Path, image: Path) -> Path | None:
    """Where ``read_folder`` looks for the mask of an image that has none yet: a PNG; None where it reads no such file.

    Args:
        root: the data set's directory.
        image: a file in it.
    """
    if root.is_dir() and not (root / "images").is_dir() and has_object_folders(root):
        return None
    for _, base in _parts(root):
        if (images := base / "images") in image.parents:
            return base / "masks" / image.relative_to(images).with_name(f"{key_of(image.name)}.png")
    return None


def _read_part(
    root: Path, base: Path, split: Split | None, drawn: Mapping[str, list[Path | Slice]], unused: set[str]
) -> tuple[list[Sample], list[Problem]]:
    """One folder with ``images/``; of the annotations ``drawn`` those that are used are taken from ``unused``."""
    problems: list[Problem] = []
    images: dict[str, list[tuple[Path, Split | None]]] = {}
    for key, path, own in _files(root, base / "images", split, problems):
        images.setdefault(key, []).append((path, own))
    masks: dict[str, list[Path | Slice]] = {}
    if (base / "masks").is_dir():
        for key, path, _ in _files(root, base / "masks", split, problems, MASKS):
            masks.setdefault(owner(key, images), []).append(path)
        problems += masks_alone(root, masks, images)
    for key, sources in drawn.items():
        if (own_image := owner(key, images)) in images:
            masks.setdefault(own_image, []).extend(sources)
            unused.discard(key)
    if (other := masks_elsewhere(base)) and not drawn:
        what = "is not read: masks are looked for in masks/"
        problems.append(note(relative(root, other), what, "rename it to masks, if they are these"))
    among = [] if masks else masks_among(images)
    if among:
        what = f"seems to be a mask, and lies among the images ({len(among)} of {len(images)} do)"
        fix = "move masks to masks/, named as their images, or rename it if it is an image"
        problems.append(error(relative(root, images[among[0]][0][0]), what, fix))
    table = find_table(base) or find_table(root)
    if table is None:
        if not (base / "masks").is_dir() and (layout := known_layout(base)):
            raise UserError(f"{base}: {layout}; docs/data.md shows a folder that is read")
        fix = "write it, with the columns image and text, if there are any"
        problems.append(note("texts.csv", "is not there: all texts are empty", fix))
    rows = read_texts(table) if table else []
    if table and base != root and table.parent == root:
        # One table for all parts: what belongs to the others is not missing here.
        others = {key_of(path.name) for path in root.glob("*/images/*")} - images.keys()
        rows = [row for row in rows if owner(key_of(row.image), others) not in others]
    texts = matched_texts(relative(root, table) if table else "", rows, images, problems)
    samples, unread = [], set(among)
    own_folders = {path.parent for found in images.values() for path, _ in found} - {base / "images"}
    tops = {folder.relative_to(base / "images").parts[0] for folder in own_folders}
    split_folders = sorted(name for name in tops if parse_split(name))
    for key, found in images.items():
        if key in unread:
            continue
        for path, own in found:
            if split_folders and path.relative_to(base / "images").parts[0] not in split_folders:
                what = f"lies beside the folders of splits ({', '.join(split_folders)})"
                problems.append(error(relative(root, path), what, "move it into one of them"))
                continue
            if sample := matched_sample(root, table, (key, path, own), masks.get(key, []), texts, problems):
                samples.append(sample)
    return samples, problems


def masks_alone(root: Path, masks: Mapping[str, Sequence[Path | Slice]], images: Collection[str]) -> list[Problem]:
    """What is said of masks that belong to none of the images, both by the images' names."""
    found = list[Problem]()
    for mask in (mask for key in masks.keys() - images for mask in masks[key]):
        # Many programs call the one COCO file of all images as they like.
        many = ", give a file of many images with --annotations" if is_outlined(mask) else ""
        fix = f"name it as its image{many}, or remove it"
        found.append(error(_named(root, mask), "is a mask without an image", fix))
    return found


def matched_sample(
    root: Path,
    table: Path | None,
    image: tuple[str, Path, Split | None],
    masks: Sequence[Path | Slice] | None,
    texts: Mapping[str, TextRow | None],
    problems: list[Problem],
    column: str = "text",
) -> Sample | None:
    """The sample of one image; None where something is wrong with it.

    Args:
        root: the data set's directory.
        table: of the texts, if there is one.
        image: its name, its file, and the split that this lies in.
        masks: those of its name; None where it has been said that there are none.
        texts: of ``matched_texts``.
        problems: what is wrong or should be known is added here.
        column: what the table calls a text.
    """
    key, path, split = image
    where = relative(root, path)
    own = masks or []
    for other in own[1:]:
        what = f"is a second mask of {where}, beside {own[0].name}"
        problems.append(error(_named(root, other), what, "keep one of them"))
    if table and key not in texts:
        fix = "add its row; its text may be empty"
        problems.append(error(where, f"has no row in {relative(root, table)}", fix))
        return None
    row = texts[key] if table else TextRow("", key, "")
    if row is None or own[1:]:
        return None
    named = parse_split(row.split)
    if table and named and split and named != split:
        what = f"lies in {split}/, and {row.place} of {table.name} says {named}"
        problems.append(error(where, what, "keep one of the two"))
        return None
    if table and not row.text:
        problems.append(note(where, f"has no {column} in {table.name}: its text is empty"))
    if masks is not None and not masks:
        problems.append(note(where, UNMASKED))
    return Sample(key, split or named or "train", path, own[0] if own else None, row.text, row.group)


def _named(root: Path, mask: Path | Slice) -> str:
    return relative(root, mask) if isinstance(mask, Path) and mask.is_relative_to(root) else str(mask)


def _files(
    root: Path, folder: Path, split: Split | None, problems: list[Problem], suffixes: tuple[str, ...] = IMAGES
) -> Iterator[tuple[str, Path, Split | None]]:
    """(key, file, split) of every image in a folder and in its subfolders called after splits."""
    parts = {path.name: own for path in sorted(visible(folder)) if path.is_dir() and (own := parse_split(path.name))}
    flat: list[Problem] = []  # problems of the folder itself, its subfolders among them
    for key, paths in by_name(root, folder, flat, suffixes).items():
        for path in paths:
            # Slides in DICOM make a folder an image, unless it is a split's.
            if path.parent == folder or path.parent.name not in parts:
                yield key, path, split
    problems += [
        # A folder of images that is passed over in silence would be missed only at the end.
        error(said.where, "is a folder", "only folders called train, val and test are looked into")
        if said.severity == "note" and (root / said.where).is_dir()
        else said
        for said in flat
        if said.where.rsplit("/", 1)[-1] not in parts
    ]
    for name, own in parts.items():
        if split and own != split:
            problems.append(error(relative(root, folder / name), f"lies below {split}/", "keep one of the two"))
            continue
        for key, paths in by_name(root, folder / name, problems, suffixes).items():
            for path in paths:
                yield key, path, own


def _parts(root: Path) -> list[tuple[Split | None, Path]]:
    """Where ``images/`` is: in the directory itself, or in its folders called after splits."""
    if not root.exists():
        raise UserError(f"{root}: no such directory; give the data set's with --data")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the data set's directory, or use --dataset hdf5 for an HDF5 file")
    if (root / "images").is_dir():
        return [(None, root)]
    below = [(parse_split(path.name), path) for path in sorted(visible(root)) if (path / "images").is_dir()]
    parts = [(split, path) for split, path in below if split is not None]
    if parts:
        return list(parts)
    if (root / "Train_Folder").is_dir():
        raise UserError(f"{root}: is in the LViT layout; use --dataset monuseg, qata or mosmed")
    if layout := known_layout(root):
        raise UserError(f"{root}: {layout}; docs/data.md shows a folder that is read")
    for path in sorted(path for path in visible(root) if path.is_dir()):
        if (path / "images").is_dir() or has_object_folders(path):
            raise UserError(f"{root}: has no folder images; did you mean {path}?")
    raise UserError(f"{root}: has no folder images; expected {_LAYOUT}; found {listing(root)}")
