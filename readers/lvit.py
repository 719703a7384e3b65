"""Reads data sets in the layout of the LViT authors (https://github.com/HUANGLIZI/LViT).

    {Train,Val,Test}_Folder/
        img/         images
        labelcol/    masks, named as the image, or mask_<image> (QaTa-COV19)
        {Train,Val,Test}_text.xlsx    columns Image (the image's or the mask's name) and Description, and
                                  if you like group (whose the image is)

Names are matched without their extensions, which differ between the three in the published files.
"""

__all__ = ["read_lvit"]

import re
from pathlib import Path

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.folder import masks_alone, matched_sample
from textdiff.readers.layouts import known_layout
from textdiff.readers.names import PICTURES, by_name, listing, note, owner, relative, sort_problems, unique_ids, visible
from textdiff.readers.objects import has_object_folders
from textdiff.readers.sample import Problem, Sample, Split
from textdiff.readers.splits import odd_groups
from textdiff.readers.texts import matched_texts, read_texts

_SPLITS: dict[Split, str] = {"train": "Train", "val": "Val", "test": "Test"}
_LAYOUT = "Train_Folder and Test_Folder, each with img/, labelcol/ and a table such as Train_text.xlsx"


def read_lvit(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Lists the samples below ``root`` and matches images, masks and texts; opens no image.

    An image without a mask is unlabelled, an empty description is an empty text; both are noted. Errors: a mask or a
    text whose image is not there, an image without a row in the table, two images, masks or differing texts of
    one name.

    Returns:
        The samples without an error, by split and id, and all problems.

    Raises:
        UserError: no such directory, another layout, or a table that is missing or unreadable.
    """
    _check_layout(root)
    if options.draws:
        raise UserError(f"--val, --test: {root} has splits of its own; leave these options out")
    samples: list[Sample] = []
    problems: list[Problem] = []
    for split, name in _SPLITS.items():
        folder = root / f"{name}_Folder"
        if folder.is_dir():
            found, wrong = _read_split(root, folder, split, name)
            samples += found
            problems += wrong
        else:
            lost = "the last epoch is kept" if split == "val" else "nothing can be scored"
            problems.append(note(folder.name, f"is not there: {lost}"))
    samples = unique_ids(root, samples, problems)
    return samples, problems + odd_groups(samples)


def _read_split(root: Path, folder: Path, split: Split, name: str) -> tuple[list[Sample], list[Problem]]:
    problems: list[Problem] = []
    if not (folder / "img").is_dir():
        raise UserError(f"{folder}: has no folder img with the images; found {listing(folder)}")
    images = by_name(root, folder / "img", problems)
    if not images:
        raise UserError(f"{folder / 'img'}: holds no images (PNG, JPEG, BMP, TIFF or DICOM); put them there")
    masks: dict[str, list[Path]] = {}
    if labelled := (folder / "labelcol").is_dir():
        for key, paths in by_name(root, folder / "labelcol", problems, PICTURES).items():
            masks.setdefault(owner(key, images), []).extend(paths)
    elif split == "train":
        raise UserError(f"{folder}: has no folder labelcol with the masks; found {listing(folder)}")
    else:
        problems.append(note(f"{folder.name}/labelcol", "is not there: all its images are unlabelled"))
    table = _find_table(root, folder, name)
    texts = matched_texts(relative(root, table), read_texts(table, "description", ("group",)), images, problems)
    problems += masks_alone(root, masks, images)
    samples = []
    for key, paths in images.items():
        own = masks.get(key, []) if labelled else None
        for path in paths:
            if sample := matched_sample(root, table, (key, path, split), own, texts, problems, "description"):
                samples.append(sample)
    return samples, sort_problems(problems)


def _find_table(root: Path, folder: Path, name: str) -> Path:
    wanted = f"{name}_text.xlsx"
    for place in (folder, root):
        if (place / wanted).is_file():
            return place / wanted
    alike = sorted(p for p in visible(folder) if re.search(r"text.*\.xlsx$", p.name, re.IGNORECASE))
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UserError(
            f"{folder}: has several tables ({', '.join(p.name for p in alike)}); name the right one {wanted}"
        )
    raise UserError(f"{folder / wanted}: no such file; it is the table of texts with the columns Image and Description")


def _check_layout(root: Path) -> None:
    if not root.exists():
        raise UserError(f"{root}: no such directory; give the data set's with --data")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the data set's directory")
    if not visible(root):
        raise UserError(f"{root}: is an empty directory; expected {_LAYOUT}")
    if (root / "Train_Folder").is_dir():
        return
    if (root / "img").is_dir():
        raise UserError(f"{root}: is one part of a data set; give its parent directory {root.resolve().parent}")
    for below in sorted(visible(root)):
        if (below / "Train_Folder").is_dir():
            raise UserError(f"{root}: has no Train_Folder; did you mean {below}?")
    if (root / "images").is_dir() or has_object_folders(root):
        raise UserError(f"{root}: has no Train_Folder; use --dataset folder for images/, masks/ and texts.csv")
    if next(root.glob("*_Folder"), None) is None and (layout := known_layout(root)):
        raise UserError(f"{root}: {layout}; then use --dataset folder")
    raise UserError(f"{root}: has no Train_Folder; expected {_LAYOUT}; found {listing(root)}")
