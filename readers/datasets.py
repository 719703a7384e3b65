"""Data sets -> samples: what there is, what is wrong with it, all said before any work is done."""

__all__ = [
    "Inspected",
    "Problem",
    "Remarks",
    "Sample",
    "alike",
    "inspect",
    "kind_of",
    "leaks",
    "read_dataset",
    "remarks",
    "report",
]

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from textdiff import console
from textdiff.errors import UserError
from textdiff.images.formats import BadImageError
from textdiff.images.scaled import Scaled
from textdiff.options.reading import ReadOptions
from textdiff.readers import READERS
from textdiff.readers.annotations import is_outlined
from textdiff.readers.inspection import Inspected, inspect_image, inspect_mask
from textdiff.readers.masks_together import of_one_value, of_other_shares, require_foreground
from textdiff.readers.sample import Problem, Sample, Slice, where_of
from textdiff.readers.slides import slide_mask_properties, slide_properties

_SHOWN = 20
_NO_CONTRAST = 10
"""Levels below which a picture shows nothing whatever is in it; what counts as blank has less contrast than that."""


def read_dataset(
    name: str, root: str | os.PathLike[str], options: ReadOptions | None = None
) -> tuple[list[Sample], list[Problem]]:
    """Lists a data set by the names of its files and its tables of texts, without opening any image.

    Args:
        name: one of ``READERS``.
        root: its directory or file.
        options: how to read it.

    Returns:
        The samples without an error, in the order train, val, test and by id, and all problems.

    Raises:
        UserError: an unknown name; no such directory; not the layout; a table of texts that is missing or unreadable.
    """
    if name not in READERS:
        raise UserError(f"{name}: unknown data set; known are {', '.join(sorted(READERS))}")
    options = options or ReadOptions()
    samples, problems = READERS[name](Path(root), options)
    if options.annotations is not None:
        _require_used(Path(options.annotations), samples, problems)
    classes, unlabelled = options.said()
    if unlabelled == 0 and options.classes and options.classes[0].lower() != "background":
        what = f"{options.classes[0]}, the first name, is taken for the background, because 0 says nothing"
        problems.append(Problem("note", "--classes", what, "if it is none, name the background before it"))
    return [
        replace(
            sample,
            image=_at(sample.image, options),
            classes=classes,
            named=tuple(options.classes),
            instances=sample.instances or options.instances,
            unlabelled=unlabelled,
        )
        for sample in samples
    ], problems


def _require_used(annotations: Path, samples: Sequence[Sample], problems: Sequence[Problem]) -> None:
    """Refuses ``--annotations`` that no sample has its mask from, unless the problems say why."""
    files = [mask.file if isinstance(mask, Slice) else mask for sample in samples if (mask := sample.mask)]
    if any(file == annotations or annotations in file.parents for file in files):
        return
    if not any(problem.severity == "error" for problem in problems):
        raise UserError(
            f"--annotations {annotations}: are of none of the images; they go with --dataset folder, and belong to the "
            "images of their names"
        )


def _at(image: Path | Slice | Scaled, options: ReadOptions) -> Path | Slice | Scaled:
    """An image at the resolution that is asked for."""
    if options.mpp is None:
        return image
    if not isinstance(image, Path):
        raise UserError(f"--mpp {options.mpp:g}: {image} says no size of a pixel; leave --mpp out")
    return Scaled(image, options.mpp, options.own_mpp)


def inspect(samples: list[Sample], *, tiled: bool = False) -> tuple[list[Inspected], list[Problem]]:
    """Decodes every image and mask once, in a few threads; at most one image or mask per thread is in memory.

    Args:
        samples: of ``read_dataset``.
        tiled: images are going to be cut into tiles, so that their shape is nothing to remark, and a large TIFF is
            looked at a few rows at a time.

    Returns:
        What is known of every sample, in the order of ``samples``, and what was found wrong.

    Raises:
        UserError: what is said to say nothing is the foreground of all masks.
    """
    inspected, problems = [], []
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        with console.Progress(len(samples), "check", "images") as progress:
            for fact, found in pool.map(partial(_inspect, tiled=tiled), samples):
                inspected.append(fact)
                problems += found
                progress.advance()
    finally:
        # After Ctrl-C the thousands of files that are still queued must not be read first.
        pool.shutdown(cancel_futures=True)
    require_foreground(inspected)
    inspected, differing = of_one_value(inspected)
    return inspected, problems + differing + of_other_shares(inspected) + leaks(inspected)


def report(problems: list[Problem]) -> None:
    """Says what was found: notes as warnings, then the errors, of either kind alike ones together.

    Raises:
        UserError: there are errors. A single one is the message itself; several are printed first (at most 20 lines).
    """
    for line in _first(alike([problem for problem in problems if problem.severity == "note"]), "remarks"):
        console.warn(line)
    errors = [problem for problem in problems if problem.severity == "error"]
    if len(errors) == 1:
        raise UserError(str(errors[0]))
    for line in _first([f"error: {line}" for line in alike(errors)], "kinds"):
        console.info(line)
    if errors:
        raise UserError(
            f"{len(errors)} errors in the data set: mend them (textdiff data check --json lists all), or leave those "
            "images out with --skip-bad"
        )


def _first(lines: list[str], what: str) -> list[str]:
    """At most ``_SHOWN`` of them, and how many more there are."""
    return lines[:_SHOWN] + ([f"... and {len(lines) - _SHOWN} more {what}"] if len(lines) > _SHOWN else [])


def alike(problems: Sequence[Problem]) -> list[str]:
    """One line for each kind of problem: the first of its kind, and how many others there are."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(kind_of(problem), []).append(problem)
    lines = []
    for kind in kinds.values():
        others = len(kind) - 1
        lines.append(str(kind[0]) + (f" (and {others} other{'s' if others > 1 else ''} like it)" if others else ""))
    return lines


def kind_of(problem: Problem) -> str:
    """What a problem is, whatever number (a size, a line) or file is in it."""
    return re.sub(r"(\S*[\d./]\S*\s*)+", "#", problem.what)


def remarks(
    height: int, width: int, levels: tuple[int, int], notes: Sequence[str], tiled: bool
) -> list[tuple[str, str]]:
    """What a user should know about an image, and what to do about it: the same whether it is extracted or predicted.

    Args:
        height: of the image, in pixels.
        width: the same.
        levels: its darkest and its brightest level.
        notes: what reading it gave.
        tiled: it is cut into tiles, so that its shape is nothing to remark.
    """
    found = [(note, "") for note in notes]
    if height != width and not tiled:
        found.append((f"is not square ({width}x{height}): it is squeezed to a square", ""))
    if levels[0] == levels[1]:
        found.append((f"is flat: every value is {levels[0]}", "check that it is an image"))
    elif levels[1] - levels[0] < _NO_CONTRAST:
        what = f"shows next to nothing: its levels are {levels[0]} to {levels[1]} of 255"
        found.append((what, "check its window, or the range of its numbers"))
    return found


def leaks(inspected: Sequence[Inspected]) -> list[Problem]:
    """The same picture in two splits: what was trained on would be tested on."""
    seen: dict[str, Sample] = {}
    problems = []
    for fact in inspected:
        first = seen.setdefault(fact.image.content, fact.sample)
        if fact.image.content and first.split != fact.sample.split:
            what = f"is the same image as {where_of(first.image)}: scores would be too good"
            problems.append(Problem("note", where_of(fact.sample.image), what, "keep it in one split"))
    return problems


def _inspect(sample: Sample, tiled: bool) -> tuple[Inspected, list[Problem]]:
    problems: list[Problem] = []
    known = Inspected(sample)

    def say(severity: Literal["error", "note"], source: Path | Slice | Scaled, what: str, fix: str = "") -> None:
        problems.append(Problem(severity, where_of(source), what, fix))

    try:
        image = (
            slide_properties(sample.image) if isinstance(sample.image, Scaled) else inspect_image(sample.image, tiled)
        )
        known = Inspected(sample, image)
        for what, fix in remarks(image.height, image.width, image.levels, image.notes, tiled):
            say("note", sample.image, what, fix)
    except BadImageError as error:
        say("error", sample.image, error.what, error.fix)
    if sample.mask is not None:
        known = _inspect_mask(known, sample.mask, tiled, say)
    return replace(known, usable=all(problem.severity != "error" for problem in problems)), problems


def _inspect_mask(known: Inspected, source: Path | Slice, tiled: bool, say: Callable[..., None]) -> Inspected:
    """What is known of an image, and of its mask; ``say(severity, source, what, fix)`` is told what is wrong."""
    image = known.image
    if not image.height and is_outlined(source):
        return known  # outlines mean nothing without the size of their image
    try:
        if image.finest is not None:
            mask = slide_mask_properties(known.sample, image.finest)
        elif isinstance(known.sample.image, Scaled):
            return known  # what is wrong with the slide has been said
        else:
            mask = inspect_mask(known.sample, image.height, image.width, tiled)
    except BadImageError as error:
        say("error", source, error.what, error.fix)
        return known
    for note in mask.notes:
        say("note", source, note)
    if image.height and (mask.height, mask.width) not in ((image.height, image.width), image.finest):
        size = f"{mask.width}x{mask.height}"
        what = f"is {size} pixels, but its image {where_of(known.sample.image)} is {image.width}x{image.height}"
        say("error", source, what, "export the mask at the image's size")
    elif not any(mask.counts):
        say("note", source, "says nothing of any pixel: it is neither fitted on nor scored", "annotate it")
    elif not any(mask.counts[1:]):
        say("note", source, "is an empty mask (no foreground)")
    elif not mask.counts[0] and sum(mask.counts) == mask.height * mask.width:
        say("note", source, "is all foreground", "check that it is not inverted")
    elif mask.single:
        say("note", source, f"numbers a single object {mask.objects}: it looks like a plain mask", "check --instances")
    return replace(known, mask=mask)


class Remarks:
    """Says the first remark of a kind at once, since the last image may be hours away, and counts the others."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[Problem]] = {}

    def say(self, source: Path | Slice | Scaled, what: str, fix: str = "") -> None:
        """Takes one remark on an image."""
        problem = Problem("note", str(source), what, fix)
        alike = self._kinds.setdefault(kind_of(problem), [])
        alike.append(problem)
        if len(alike) == 1:
            console.warn(str(problem))

    def close(self) -> None:
        """Says of which kinds there were others."""
        for line in alike([problem for kind in self._kinds.values() if len(kind) > 1 for problem in kind]):
            console.warn(line)
