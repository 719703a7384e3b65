"""Files in folders, and how the names in a table are matched with them."""

__all__ = [
    "by_name",
    "error",
    "key_of",
    "listing",
    "note",
    "owner",
    "relative",
    "sort_problems",
    "unique_ids",
    "visible",
]

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from textdiff.pipeline.sample import Problem, Sample

IMAGE = r"(\.ome(?=\.tif))?\.(png|jpe?g|bmp|tiff?|dcm|dicom)$"
MASK = r"\.(png|jpe?g|bmp|tiff?|xml)$"


def by_name(root: Path, folder: Path, problems: list[Problem], pattern: str = IMAGE) -> dict[str, list[Path]]:
    """The image files in a folder by name without extension, sorted; others are noted in ``problems``."""
    named: dict[str, list[Path]] = {}
    for path in sorted(visible(folder)):
        if path.is_file() and re.search(pattern, path.name, re.IGNORECASE):
            named.setdefault(key_of(path.name), []).append(path)
        else:
            problems.append(note(relative(root, path), "is not an image: it is ignored"))
    return named


def visible(folder: Path) -> list[Path]:
    """What is in a folder, without what file managers and Excel leave there."""
    return [p for p in folder.iterdir() if not p.name.startswith((".", "~$")) and p.name.lower() != "thumbs.db"]


def listing(folder: Path) -> str:
    """The first names in a folder, for a message."""
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in visible(folder))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"


def key_of(name: str) -> str:
    """A file name or table entry without folder and extension; macOS decomposes accents, Excel does not."""
    stem = re.sub(IMAGE[:-2] + r"|xml)$", "", re.split(r"[/\\]", name.strip())[-1], flags=re.IGNORECASE)
    return unicodedata.normalize("NFC", stem)


def owner(key: str, images: Collection[str]) -> str:
    """The image that a mask or a table entry called ``key`` belongs to; ``key`` itself if there is none."""
    bare = key.removeprefix("mask_")
    return bare if key not in images and bare in images else key


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
    return path.relative_to(root).as_posix()


def error(where: str, what: str, fix: str) -> Problem:
    """Something to mend."""
    return Problem("error", where, what, fix)


def note(where: str, what: str, fix: str = "") -> Problem:
    """Something to know."""
    return Problem("note", where, what, fix)
