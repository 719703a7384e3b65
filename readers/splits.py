"""Which image is for training, validation or the test: as the data set says, or drawn by groups."""

__all__ = ["draw_splits", "parse_split"]

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from textdiff.errors import UserError
from textdiff.pipeline.sample import Sample, Split
from textdiff.readers.options import ReadOptions

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def parse_split(name: str) -> Split | None:
    """The split that is called so, in any case; None if none is."""
    return _NAMES.get(name.strip().lower())


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
