"""Data sets -> samples: what there is, what is wrong with it, all said before any work is done."""

__all__ = ["READERS", "Facts", "Problem", "Sample", "inspect", "read_dataset", "report"]

import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from textdiff import console
from textdiff.errors import UserError
from textdiff.pipeline.decode import decode, decode_mask
from textdiff.pipeline.formats import BadImageError, read_bytes
from textdiff.pipeline.lvit import read_lvit
from textdiff.pipeline.sample import Problem, Sample

READERS: dict[str, Callable[[Path], tuple[list[Sample], list[Problem]]]] = {
    "monuseg": read_lvit,
    "phantom": read_lvit,
    "qata": read_lvit,
}
"""How each data set is read. A reader lists and matches names and opens no image."""

_SHOWN = 20


@dataclass(frozen=True)
class Facts:
    """What decoding a sample's files has shown.

    ``height`` and ``width`` are those of the image file in pixels; ``usable`` is false if one of its problems is an
    error (sizes and digests are then 0 and empty where nothing could be read).
    """

    sample: Sample
    height: int
    width: int
    image_sha256: str
    mask_sha256: str | None
    usable: bool = True


def read_dataset(name: str, root: str | os.PathLike[str]) -> tuple[list[Sample], list[Problem]]:
    """Lists a data set by the names of its files and its tables of texts, without opening any image.

    Args:
        name: ``monuseg``, ``qata`` or ``phantom``, all in the LViT layout (see ``read_lvit``).
        root: its directory.

    Returns:
        The samples without an error, in the order train, val, test and by id, and all problems.

    Raises:
        UserError: an unknown name; no such directory; not the layout; a table of texts that is missing or unreadable.
    """
    if name not in READERS:
        raise UserError(f"{name}: unknown data set; known are {', '.join(sorted(READERS))}")
    return READERS[name](Path(root))


def inspect(
    samples: list[Sample], progress: Callable[[int], object] | None = None, *, tiled: bool = False
) -> tuple[list[Facts], list[Problem]]:
    """Decodes every image and mask once, in a few threads; at most one sample per thread is in memory.

    Args:
        samples: of ``read_dataset``.
        progress: is told 1 for each sample that is done.
        tiled: images are going to be cut into tiles, so that their shape is nothing to remark.

    Returns:
        The facts of every sample, in the order of ``samples``, and what was found wrong.
    """
    facts, problems = [], []
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        for fact, found in pool.map(partial(_inspect, tiled=tiled), samples):
            facts.append(fact)
            problems += found
            if progress is not None:
                progress(1)
    finally:
        # After Ctrl-C the thousands of files that are still queued must not be read first.
        pool.shutdown(cancel_futures=True)
    return facts, problems + _leaks(facts)


def report(problems: list[Problem]) -> None:
    """Says what was found: notes as warnings, alike ones together, then the errors.

    Raises:
        UserError: there are errors. A single one is the message itself; several are printed first (at most 20).
    """
    notes: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.severity == "note":
            # The same remark with another number in it (a largest value, a size) is still the same remark.
            notes.setdefault(re.sub(r"\d+", "#", problem.what), []).append(problem)
    lines = [_together(alike) for alike in notes.values()]
    for line in lines[:_SHOWN]:
        console.warn(line)
    if len(lines) > _SHOWN:
        console.warn(f"... and {len(lines) - _SHOWN} more remarks")
    errors = [problem for problem in problems if problem.severity == "error"]
    if len(errors) == 1:
        raise UserError(str(errors[0]))
    for problem in errors[:_SHOWN]:
        console.info(f"error: {problem}")
    if len(errors) > _SHOWN:
        console.info(f"... and {len(errors) - _SHOWN} more")
    if errors:
        raise UserError(f"{len(errors)} errors in the data set: mend them, or leave those images out with --skip-bad")


def _together(alike: list[Problem]) -> str:
    others = len(alike) - 1
    return str(alike[0]) + (f" (and {others} other{'s' if others > 1 else ''} like it)" if others else "")


def _inspect(sample: Sample, tiled: bool) -> tuple[Facts, list[Problem]]:
    problems: list[Problem] = []
    where = _where(sample.image)
    height = width = 0
    digest = ""

    def say(severity: Literal["error", "note"], path: Path, what: str, fix: str = "") -> None:
        problems.append(Problem(severity, _where(path), what, fix))

    try:
        # The bytes that are hashed are the bytes that are decoded, and the disk is asked once.
        data = read_bytes(sample.image)
        digest = hashlib.sha256(data).hexdigest()
        image, notes = decode(sample.image, data)
        height, width = image.shape[:2]
        for note in notes:
            say("note", sample.image, note)
        if height != width and not tiled:
            say("note", sample.image, f"is not square ({width}x{height}): it is squeezed to a square")
    except BadImageError as error:
        say("error", sample.image, error.what, error.fix)
    mask_digest = None
    if sample.mask is not None:
        try:
            data = read_bytes(sample.mask)
            mask_digest = hashlib.sha256(data).hexdigest()
            mask, notes = decode_mask(sample.mask, data)
            for note in notes:
                say("note", sample.mask, note)
            if height and mask.shape != (height, width):
                size = f"{mask.shape[1]}x{mask.shape[0]}"
                what = f"is {size} pixels, but its image {where} is {width}x{height}"
                say("error", sample.mask, what, "export the mask at the image's size")
            elif not mask.any():
                say("note", sample.mask, "is an empty mask (no foreground)")
            elif mask.all():
                say("note", sample.mask, "is all foreground", "check that it is not inverted")
        except BadImageError as error:
            say("error", sample.mask, error.what, error.fix)
    usable = all(problem.severity != "error" for problem in problems)
    return Facts(sample, height, width, digest, mask_digest, usable), problems


def _where(path: Path) -> str:
    """``Train_Folder/img/a.png``: enough to find it, short enough to read."""
    return "/".join(path.parts[-3:])


def _leaks(facts: list[Facts]) -> list[Problem]:
    """The same file in two splits: what was trained on would be tested on."""
    seen: dict[str, Sample] = {}
    problems = []
    for fact in facts:
        first = seen.setdefault(fact.image_sha256, fact.sample)
        if fact.image_sha256 and first.split != fact.sample.split:
            what = f"is the same image as {_where(first.image)}: scores would be too good"
            problems.append(Problem("note", _where(fact.sample.image), what, "keep it in one split"))
    return problems
