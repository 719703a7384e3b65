"""Files in folders, and how the names in a table are matched with them."""

__all__ = [
    "IMAGES",
    "MASKS",
    "PICTURES",
    "by_name",
    "error",
    "is_utf8",
    "key_of",
    "listing",
    "note",
    "owner",
    "relative",
    "sort_problems",
    "unfollowed",
    "unique_ids",
    "visible",
    "visible_name",
]

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from textdiff.errors import few
from textdiff.images.scaled import SLIDES
from textdiff.images.slide_dicom import dicom_slides, further_files
from textdiff.options.shared import LATEST
from textdiff.readers.sample import Problem, Sample

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".ome.tif", ".ome.tiff", ".tif", ".tiff")
IMAGES = (*PICTURES, ".dcm", ".dicom", *SLIDES)
"""How names of image files end, in lower case, longer endings first: whatever looks through a directory goes by it."""
MASKS = (*PICTURES, ".xml", ".geojson", ".json")
_UNREAD = (".gif", ".webp", ".npy", ".npz", ".mat", ".dcm", ".dicom", ".jp2", ".nii", ".gz", ".tga", ".zip")
"""Endings of what may be meant as a mask and is not read: to pass over it would leave its image unlabelled."""


def by_name(
    root: Path, folder: Path, problems: list[Problem], suffixes: tuple[str, ...] = IMAGES
) -> dict[str, list[Path]]:
    """The image files in a folder by name without extension, sorted; others are noted in ``problems``.

    A slide of several files is one of them: in DICOM that of its finest level, called after the folder where it has one
    of its own.
    """
    named: dict[str, list[Path]] = {}
    there = sorted(visible(folder))
    parts = further_files(dicom_slides(there))
    for path in there:
        if not is_utf8(path.name):
            problems.append(error(relative(root, path), "has a name that is not UTF-8", "rename it"))
        elif path in parts or (path.is_dir() and path.with_name(f"{path.name}.mrxs") in there):
            continue
        elif path.is_dir() and suffixes == IMAGES and (slides := dicom_slides(visible(path))):
            if len(slides) > 1:
                what = f"holds {len(slides)} slides in DICOM"
                problems.append(error(relative(root, path), what, "give each series a folder of its own"))
            else:
                named.setdefault(key_of(path.name), []).extend(slides)
        elif path.is_file() and path.name.lower().endswith(suffixes):
            named.setdefault(key_of(path.name), []).append(path)
        elif suffixes == MASKS and path.name.lower().endswith(_UNREAD):
            # QuPath packs what it exports if it is asked to.
            packed = path.name.lower().endswith((".zip", "json.gz", ".xml.gz"))
            fix = "unpack it" if packed else "save it as PNG or TIFF"
            problems.append(error(relative(root, path), "is a mask of a kind that is not read", fix))
        elif path.name.lower().endswith(suffixes) and not path.exists():
            # As git-annex and DVC leave them where the data was not fetched, or where a disk is not mounted.
            problems.append(
                error(
                    relative(root, path), "is a link to a file that is not there", "fetch that file, or remove the link"
                )
            )
        else:
            problems.append(note(relative(root, path), "is not an image: it is ignored"))
    return named


def visible(folder: Path) -> list[Path]:
    """What is in a folder, without what file managers and Excel leave there."""
    return [path for path in folder.iterdir() if visible_name(path.name)]


def visible_name(name: str) -> bool:
    """Whether a file is not one that file managers and Excel leave."""
    return not name.startswith((".", "~$")) and name.lower() not in ("thumbs.db", "desktop.ini")


def unfollowed(root: Path) -> str:
    """What is said of the links below ``root`` that lead to a directory or to nothing; "" if there is none.

    A search passes over them: what they lead to may be found a second time, or contain them. Links of our own, and what
    is hidden, are passed over in silence.
    """
    below = (path.relative_to(root) for path in root.rglob("*") if path.is_symlink() and not path.is_file())
    names = sorted(path.as_posix() for path in below if path.name != LATEST and all(map(visible_name, path.parts)))
    shown = few(names, 6, count=True)
    said = "links to a directory or to nothing are not followed"
    return f"{said} ({shown}); name the directories that they lead to" if names else ""


def listing(folder: Path) -> str:
    """The first names in a folder, for a message."""
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in visible(folder))
    return few(names, 6, count=True) if names else "nothing"


def key_of(name: str) -> str:
    """A file name or table entry without folder and extension; macOS decomposes accents, Excel does not."""
    last = re.split(r"[/\\]", name.strip())[-1]
    suffix = next((end for end in (*IMAGES, *MASKS) if last.lower().endswith(end)), "")
    return unicodedata.normalize("NFC", last[: len(last) - len(suffix)])


def owner(key: str, images: Collection[str]) -> str:
    """The image that a mask or a table entry called ``key`` belongs to; ``key`` itself if there is none.

    Spreadsheets turn 001 into 1, which is still that image if no other one has this number.
    """
    if key in images:
        return key
    bare = key.removeprefix("mask_")
    if bare not in images and bare.isdecimal():
        same = [name for name in images if name.isdecimal() and name.lstrip("0") == bare.lstrip("0")]
        bare = same[0] if len(same) == 1 else bare
    if bare not in images:
        bare = key_of(bare)  # programs that export case.tif as case.tif.geojson
    return bare if bare in images else key


def unique_ids(root: Path, samples: Iterable[Sample], problems: list[Problem]) -> list[Sample]:
    """The samples whose name no other one has; the others go into ``problems``."""
    named: dict[str, list[Sample]] = {}
    for sample in samples:
        named.setdefault(sample.id, []).append(sample)
    for same in named.values():
        for sample in same[1:]:
            first, second = (relative(root, Path(one.image)) for one in (same[0], sample))
            problems.append(error(second, f"has the name of {first}", "names are unique over all splits: rename one"))
    return [same[0] for same in named.values() if len(same) == 1]


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Errors first, then by place."""
    return sorted(problems, key=lambda problem: (problem.severity != "error", problem.where))


def relative(root: Path, path: Path) -> str:
    """A path as it is named in messages."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def is_utf8(name: str) -> bool:
    """Whether a name can be written into a table or a cache; Linux allows any bytes."""
    return not any(0xD800 <= ord(sign) <= 0xDFFF for sign in name)


def error(where: str, what: str, fix: str) -> Problem:
    """Something to mend."""
    return Problem("error", where, what, fix)


def note(where: str, what: str, fix: str = "") -> Problem:
    """Something to know."""
    return Problem("note", where, what, fix)
