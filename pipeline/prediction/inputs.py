"""What is to be segmented: image files, directories, lists, and the images of a data set that have no mask."""

__all__ = ["RECORDS", "Input", "from_dataset", "from_list", "from_paths", "gather"]

import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from textdiff import console
from textdiff.errors import UserError, few
from textdiff.images.scaled import Scaled
from textdiff.images.slide_dicom import dicom_slides, further_files
from textdiff.options.run import Predict
from textdiff.readers.datasets import read_dataset, report
from textdiff.readers.names import IMAGES, is_utf8, key_of, unfollowed, visible_name
from textdiff.readers.sample import UNMASKED, UNSPLIT, Slice
from textdiff.readers.table_reader import ENDINGS, decode_text, read_table

RECORDS = ".records"
"""The directory in a folder of results that tells it from a folder of images."""

_NAMED = 5
_MASKS_OF = {"masks": "images", "labelcol": "img"}
"""What folders of masks are called in data sets, and those of images beside them."""


@dataclass(frozen=True)
class Input:
    """One image to segment."""

    name: str
    """What its results are called: unique, without suffix, with ``/`` where it is in a subdirectory."""
    path: Path | Slice
    text: str
    group: str = ""
    """Whose it is, such as a patient's; empty where nothing is known."""


def gather(options: Predict) -> list[Input]:
    """Everything that is asked for: files and directories, a list, a data set. See the functions below.

    Raises:
        UserError: as they do.
    """
    inputs = from_paths(options.paths(), options.text, without=Path(options.out))
    inputs += from_list(Path(options.list), options.text) if options.list else []
    if options.dataset and options.data:
        inputs += from_dataset(options.dataset, Path(options.data), options.text)
    if odd := next((each for each in inputs if not is_utf8(each.name)), None):
        raise UserError(f"{odd.path}: has a name that is not UTF-8, in which results cannot be listed; rename it")
    return inputs


def from_paths(paths: Sequence[Path], text: str, without: Path) -> list[Input]:
    """Image files and, recursively, the images of directories, in the order of their names; says what is passed over.

    Results of other predictions in a directory are no images, and neither are masks in a folder beside one of images.

    Args:
        paths: files and directories.
        text: that comes with each of them.
        without: a directory that is left out: where the results go.

    Raises:
        UserError: one is not there, or a directory holds no images.
    """
    inputs = []
    of_one = further_files(dicom_slides(path for path in paths if path.is_file()))
    for path in paths:
        if path in of_one:
            console.info(f"{path}: is of a slide in DICOM that another file given here stands for")
        elif path.is_file():
            inputs.append(Input(key_of(path.name), path, text))
        elif path.is_dir():
            if without.resolve() in (path.resolve(), *path.resolve().parents):
                raise UserError(
                    f"{path}: is where the results go (--out), so its images are left out; choose another --out"
                )
            if links := unfollowed(path):
                console.warn(f"{path}: {links}")
            found = _files_below(path, without)
            masks = {file for file in found if _is_mask(file, path)}
            files = [file for file in found if file not in masks]
            if masks:
                said = console.counted(len(masks), "file")
                console.info(f"{path}: {said} passed over, masks beside images ({_some_of(masks, path)})")
            images = [file for file in files if file.name.lower().endswith(IMAGES)]
            of_mirax = {image.with_suffix("") for image in images if image.suffix.lower() == ".mrxs"}
            unnamed = sorted({*files}.difference(images))
            left = [file for file in unnamed if of_mirax.isdisjoint(file.parents)]
            named = _some_of(left, path)
            if not images:
                there = f"; its files are {named}, and any file that is named itself is read" if left else ""
                raise UserError(f"{path}: holds no images ({', '.join(IMAGES)}){there}")
            if left:
                count = console.counted(len(left), "file")
                console.info(f"{path}: {count} passed over, not called as images are ({named})")
            slides = dicom_slides(images)
            parts = further_files(slides)
            for file in images:
                if file not in parts:
                    own = file in slides and {*slides[file]} == {each for each in files if each.parent == file.parent}
                    place = file.parent if own and file.parent != path else file
                    inputs.append(Input(_name(place.relative_to(path)), file, text))
        else:
            raise UserError(f"{path}: no such image file or directory")
    return inputs


def from_list(path: Path, text: str) -> list[Input]:
    """The images that a file names, relative to its directory.

    A table (``.csv``, ``.tsv``, ``.xlsx``, ``.jsonl``) has a column ``image`` and may have the columns ``text`` and
    ``group``; any other file has one path a line, and empty lines and those that begin with # mean nothing.

    Args:
        path: the list.
        text: for images without one of their own.

    Raises:
        UserError: the list, or an image that it names, is not there; it is no such table; it is empty.
    """
    inputs = []
    for place, name, own_text, group in _listed(path):
        forms = [path.parent / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
        file = next((file for file in (path.parent / name, *forms) if file.is_file()), None)
        if file is None:
            raise UserError(f"--list {path}: {place} names {path.parent / name}: no such image file")
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        inputs.append(Input(_name(Path(name)) if inside else key_of(file.name), file, own_text or text, group))
    if not inputs:
        raise UserError(f"--list {path}: names no images")
    return inputs


def from_dataset(name: str, root: Path, text: str) -> list[Input]:
    """The images of a data set that have no mask, with their texts, named by their ids.

    Args:
        name: of the data set, as for ``textdiff extract``.
        root: its directory.
        text: for images without one of their own.

    Raises:
        UserError: as ``read_dataset``, or every image has a mask.
    """
    samples, problems = read_dataset(name, root)
    report([problem for problem in problems if problem.what not in (UNMASKED, UNSPLIT)])  # which is no matter here
    inputs = [
        Input(sample.id, sample.image, sample.text or text, sample.group)
        for sample in samples
        if sample.mask is None and not isinstance(sample.image, Scaled)
    ]
    if not inputs:
        where = "give their directory instead" if root.is_dir() else "copy its images into a file without masks"
        raise UserError(f"{root}: every image has a mask; to segment them all the same, {where}")
    have = console.some(len(inputs), len(samples), "image", "has", "have")
    console.info(f"{have} no mask and {console.form(len(inputs), 'is', 'are')} segmented")
    return inputs


def _listed(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, name, text and group of every image in a list."""
    if path.suffix.lower() not in ENDINGS:
        for number, line in enumerate(io.StringIO(decode_text(path), newline=None), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield f"line {number}", line.strip(), "", ""
        return
    for row in read_table(path, ("image",), ("text", "group")):
        if row.fault:
            raise UserError(f"--list {path}: {'; '.join(row.fault)}")
        if not row.cells["image"]:
            raise UserError(f"--list {path}: {row.place} names no image; name one, or remove the row")
        yield row.place, row.cells["image"], row.cells.get("text", ""), row.cells.get("group", "")


def _files_below(root: Path, without: Path) -> list[Path]:
    left_out = {without.resolve(), *(found.parent.resolve() for found in root.glob(f"*/**/{RECORDS}"))}
    return sorted(
        file
        for file in root.rglob("*")
        if all(visible_name(part) for part in file.relative_to(root).parts)
        and file.is_file()
        and left_out.isdisjoint(file.resolve().parents)
    )


def _is_mask(file: Path, root: Path) -> bool:
    """Whether a file below ``root`` lies in a folder of masks that is beside one of images."""
    folders = [folder for folder in file.parents if folder != root and root in folder.parents]
    return any((folder.parent / _MASKS_OF[folder.name]).is_dir() for folder in folders if folder.name in _MASKS_OF)


def _some_of(files: Iterable[Path], root: Path) -> str:
    """The first of some files below ``root``, and how many more there are."""
    return few(sorted(file.relative_to(root).as_posix() for file in files), _NAMED, count=True)


def _name(path: Path) -> str:
    return (path.parent / key_of(path.name)).as_posix()
