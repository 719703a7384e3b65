"""What the masks of a data set are beside each other: stored alike, with a foreground, and none of them inverted."""

__all__ = ["of_one_value", "of_other_shares", "require_foreground"]

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from textdiff.errors import UserError
from textdiff.readers.annotations import is_outlined
from textdiff.readers.inspection import Inspected
from textdiff.readers.sample import Problem, where_of

_FEW = 0.25
"""The share of its pixels below which a mask has little foreground."""


def require_foreground(inspected: Sequence[Inspected]) -> None:
    """Refuses whole masks of 0 and 255 of which ``--unlabelled-value`` has left background alone.

    Without this it would be seen after hours. Strokes in the background alone say something of few pixels, and may
    get others; images that are all for the test may be healthy, and void at their border.
    """
    masks = [
        (fact.sample.unlabelled, fact.mask)
        for fact in inspected
        if fact.mask and fact.sample.unlabelled and not fact.sample.classes
    ]
    said, pixels = sum(mask.said for _, mask in masks), sum(mask.height * mask.width for _, mask in masks)
    learned_from = any(fact.mask and fact.sample.split == "train" for fact in inspected)
    if not (learned_from and pixels / 2 <= said < pixels) or any(any(mask.counts[1:]) for _, mask in masks):
        return
    value = masks[0][0]
    held = f"the only mask holds 0 and {value} alone"
    if len(masks) > 1:
        held = f"all {len(masks)} masks hold 0 and {value} alone"
    raise UserError(
        f"--unlabelled-value {value}: {held}, so that no foreground is left; leave the option out if {value} is the "
        "foreground, else store the foreground as 1"
    )


def of_other_shares(inspected: Sequence[Inspected]) -> list[Problem]:
    """A note for each picture of a mask of two classes that is mostly foreground, where most masks are mostly not.

    Some programs invert the masks that they save, and nothing in one of them tells.
    """
    masks = [
        (fact.sample.mask, fact.mask.shares[0])
        for fact in inspected
        if fact.usable and fact.sample.mask and fact.mask and len(fact.mask.counts) == 2 and all(fact.mask.counts)
        if not is_outlined(fact.sample.mask)
    ]
    middle = median(share for _, share in masks) if masks else 1.0
    return [
        Problem(
            "note",
            where_of(source),
            f"is foreground in {share:.1%} of its pixels, and half of the masks in at most {middle:.1%}",
            "check that it is not inverted",
        )
        for source, share in masks
        if middle < _FEW and share > 1 - _FEW
    ]


def of_one_value(inspected: Sequence[Inspected]) -> tuple[list[Inspected], list[Problem]]:
    """``inspected``, and an error for each value of the foreground but the most common.

    They may be of different classes.

    {0, 1} beside {0, 255} is no exception: a map of classes whose border is void can hold nothing else.
    """
    found, problems = list(inspected), list[Problem]()
    # Outlines have a name for it and pictures a number: neither contradicts the other.
    for outlined in (False, True):
        alike = [fact for fact in found if fact.sample.mask and is_outlined(fact.sample.mask) == outlined]
        unlike, differing = _unlike_most(alike)
        problems += differing
        found = [replace(fact, usable=fact.usable and fact.sample.id not in unlike) for fact in found]
    return found, problems


def _unlike_most(inspected: Sequence[Inspected]) -> tuple[set[str], list[Problem]]:
    """The samples whose foreground is not stored as that of most, and an error for each value that they have."""
    masks: dict[str, list[Inspected]] = {}
    for fact in inspected:
        if fact.mask and fact.mask.value and fact.usable:
            masks.setdefault(fact.mask.value, []).append(fact)
    if len(masks) < 2:
        return set(), []
    usual, *others = sorted(masks, key=lambda value: -len(masks[value]))

    def named(value: str) -> str:
        count = len(masks[value])
        return f"the foreground {value} ({count} mask{'s' if count > 1 else ''})"

    problems = []
    for value in others:
        first, example = masks[value][0].sample.mask, masks[usual][0].sample.mask
        assert first is not None
        assert example is not None
        what = f"has {named(value)}, and {where_of(example)} has {named(usual)}"
        fix = "store one value in all masks, or name the values of classes with --classes"
        problems.append(Problem("error", where_of(first), what, fix))
    return {fact.sample.id for value in others for fact in masks[value]}, problems
