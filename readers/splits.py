"""Which image is for training, validation or the test: as the data set says, or drawn by groups."""

__all__ = ["alike_groups", "draw_splits", "odd_groups", "parse_split", "settle_splits", "unknown_split"]

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.names import note
from textdiff.readers.sample import UNSPLIT, Problem, Sample, Split

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_ORDER = ("train", "val", "test")


def parse_split(name: str) -> Split | None:
    """The split that is called so, in any case; None if none is."""
    return _NAMES.get(name.strip().lower())


def unknown_split(name: str) -> tuple[str, str]:
    """What is said of a split that is none, and what mends it."""
    if not name:
        return "has no split", "use train, val or test"
    close = get_close_matches(name.strip().lower(), _NAMES, 1)
    meant = f"did you mean {_NAMES[close[0]]}?" if close else "use train, val or test"
    return f"has the split {name}", meant


def draw_splits(samples: Sequence[Sample], options: ReadOptions) -> list[Sample]:
    """Draws ``options.test`` and ``options.val`` of the annotated images; all others are for training.

    Images of one group stay together; an image without a group is one by itself. The order of drawing is that of the
    SHA-256 of seed and group: it depends on neither the order of the files nor the machine, and images that are added
    later move few of those there are. Groups without any mask cannot be scored and are left for training.

    Args:
        samples: of one pool; their splits are not looked at.
        options: the shares and the seed.

    Returns:
        The samples in their order, with splits.

    Raises:
        UserError: a split would stay empty.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        # An id and a group of the same name are not the same thing.
        groups.setdefault(f"group {sample.group}" if sample.group else f"image {sample.id}", []).append(sample)
    annotated = {name: count for name, group in groups.items() if (count := sum(s.mask is not None for s in group))}
    order = sorted(annotated, key=lambda name: hashlib.sha256(f"{options.seed}/{name}".encode()).hexdigest())
    chosen: dict[str, Split] = {}
    total = sum(annotated.values())
    shares: tuple[tuple[Split, float | None], ...] = (("test", options.test), ("val", options.val))
    for split, share in shares:
        if share is None:
            continue
        left = round(share * total)
        for name in order:
            # A group may overshoot the share by less than it would otherwise fall short of it.
            if name not in chosen and annotated[name] <= 2 * left:
                chosen[name] = split
                left -= annotated[name]
        if split not in chosen.values():
            raise UserError(
                f"--{split} {share:g}: of {total} annotated images in {len(annotated)} groups none can be drawn; "
                "give a larger share, or a split column"
            )
    if len(chosen) == len(annotated):
        raise UserError(f"--val, --test: nothing of {total} annotated images is left to train on; give smaller shares")
    by_id = {sample.id: split for name, split in chosen.items() for sample in groups[name]}
    return [replace(sample, split=by_id.get(sample.id, "train")) for sample in samples]


def alike_groups(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different groups whose names differ in capitals or spaces only, each with the first of its kind.

    A space between digits counts: plate 1 12 is not plate 11 2.
    """
    first: dict[str, str] = {}
    kinds = ((re.sub(r"(?<!\d) | (?!\d)", "", " ".join(name.casefold().split())), name) for name in names)
    pairs = dict.fromkeys((first.setdefault(kind, name), name) for kind, name in kinds)
    return [(one, other) for one, other in pairs if one != other]


def settle_splits(
    where: str, samples: list[Sample], problems: list[Problem], options: ReadOptions, given: bool | None = None
) -> list[Sample]:
    """Draws splits if asked to, says what is odd about those there are, and sorts the samples by split and id.

    Args:
        where: names the data set in messages.
        samples: with the splits that the data set gives, ``train`` where it gives none.
        problems: what is odd is added here.
        options: shares and seed of the draw.
        given: whether the data set gives splits; by default if one of them is not ``train``.

    Raises:
        UserError: splits are to be drawn and are there already, or cannot be drawn.
    """
    given = any(sample.split != "train" for sample in samples) if given is None else given
    if options.draws:
        if given:
            raise UserError(f"--val, --test: {where} has splits of its own; leave these options out, or its splits")
        samples = draw_splits(samples, options)
    elif samples and not given:
        problems.append(note(where, UNSPLIT, "draw some with --val 0.2 --test 0.2, or add a column split"))
    problems += odd_groups(samples)
    return sorted(samples, key=lambda sample: (_ORDER.index(sample.split), sample.id))


def odd_groups(samples: Iterable[Sample]) -> list[Problem]:
    """Groups that are in two splits, and those that may be one, as their names differ in capitals or spaces only."""
    problems: list[Problem] = []
    groups: dict[str, Sample] = {}
    for sample in samples:
        first = groups.setdefault(sample.group, sample)
        if sample.group and first.split != sample.split:
            what = f"is in {sample.split} and {first.id} of the same group {sample.group} in {first.split}"
            problems.append(note(sample.id, f"{what}: scores would be too good", "keep a group in one split"))
    # Also within a split, whose intervals would take one patient for two.
    for one, other in alike_groups(groups):
        first, second = groups[one], groups[other]
        what = f"is of the group {other} in {second.split}, and {first.id} of {one} in {first.split}"
        problems.append(note(second.id, what, "write them alike if they are one: only capitals or spaces differ"))
    return problems
