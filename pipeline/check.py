"""Everything that is wrong with a data set, found in one pass before anything is computed."""

__all__ = ["Check", "check_dataset"]

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textdiff.console import counted
from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import Inspected, alike, inspect, leaks, read_dataset
from textdiff.readers.sample import Problem, Sample
from textdiff.tables import text_table

_SPLITS = ("train", "val", "test")
_SHOWN = 50


@dataclass(frozen=True)
class Check:
    """What ``check_dataset`` found.

    ``errors`` stop ``extract``; ``leaks`` do not, but the scores would be worth nothing; ``notes`` are for judging.
    """

    summary: dict[str, Any]
    """JSON-able: counts, sizes, levels, shares of the foreground, texts, and where masks are sparse what each says."""
    errors: list[Problem]
    leaks: list[Problem]
    notes: list[Problem]

    @property
    def sound(self) -> bool:
        """Whether there is neither an error nor a leak."""
        return not self.errors and not self.leaks

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        found = {name: [asdict(problem) for problem in getattr(self, name)] for name in ("errors", "leaks", "notes")}
        return {"sound": self.sound, **self.summary, **found}

    def table(self) -> str:
        """All of it, as text for a terminal."""
        splits, texts = self.summary["splits"], self.summary["texts"]
        rows = [(title, *(show(split) for split in splits.values())) for title, show in _ROWS.items()]
        for name in self.summary["classes"]:
            rows.append((f"{name} %, mean", *(_percent(split["share"].get(name)) for split in splits.values())))
        lines = [text_table(("", *splits), rows, "l" + "r" * len(splits))]
        if said := self.summary["said"]:
            lines += ["", _said_table(said)]
        longest = f"; the longest has {texts['longest']} {texts['unit']}" if texts["distinct"] else ""
        said = f"{texts['distinct']} distinct, {counted(texts['empty'], 'image')} with an empty one{longest}"
        lines += ["", f"texts: {'none' if texts['distinct'] == 1 and texts['empty'] else said}"]
        for title, said in (
            ("error", alike(self.errors)),
            ("leak", list(map(str, self.leaks))),
            ("note", alike(self.notes)),
        ):
            lines += [f"{title}: {line}" for line in said[:_SHOWN]]
            if len(said) > _SHOWN:
                lines.append(f"{title}: ... and {len(said) - _SHOWN} more (all with --json)")
        verdict = "sound" if self.sound else "not sound"
        counts = ", ".join(
            f"{len(found)} {title}{'' if len(found) == 1 else 's'}"
            for title, found in (("error", self.errors), ("leak", self.leaks), ("note", self.notes))
        )
        return "\n".join([*lines, "", f"{verdict}: {counts}"])


def check_dataset(
    name: str,
    root: Path,
    options: ReadOptions | None = None,
    text_encoder: str = "none",
    tile: int | None = None,
) -> Check:
    """Reads a data set and decodes every image and mask once.

    Args:
        name: as for ``read_dataset``.
        root: its directory or file.
        options: how to read it.
        text_encoder: whose tokens to count in the texts, if it is on this machine; words otherwise.
        tile: the side of the tiles that images are going to be cut into, if they are; then a TIFF may have any size.

    Raises:
        UserError: as ``read_dataset``: it is not even the layout.
    """
    samples, listed = read_dataset(name, root, options)
    inspected, found = inspect(samples, tiled=tile is not None)
    between = leaks(inspected)
    grouped = [problem for problem in listed if "of the same group" in problem.what]
    others = [problem for problem in [*listed, *found] if problem not in between and problem not in grouped]
    if not inspected and not others:
        raise UserError(f"{root}: holds no image; check --data")
    others += [*_within(inspected), *_empty_splits(samples), *_absent_classes(inspected)]
    texts, too_long = _texts(samples, text_encoder)
    summary = {
        "dataset": name,
        "data": str(root),
        "classes": list(samples[0].classes) or ["foreground"] if samples else [],
        "splits": {split: _numbers([one for one in inspected if one.sample.split == split]) for split in _SPLITS},
        "texts": texts,
        "said": _said(inspected) if any(one.sparse for one in inspected) else {},
    }
    return Check(
        summary,
        [problem for problem in others if problem.severity == "error"],
        between + grouped,
        [problem for problem in others if problem.severity == "note"] + too_long,
    )


def _numbers(inspected: Sequence[Inspected]) -> dict[str, Any]:
    """The numbers of one split; None where there is nothing to take them from."""
    read = [one.image for one in inspected if one.image.height]
    masks = [one.mask for one in inspected if one.mask and one.mask.said]
    names = (inspected[0].sample.classes or ("foreground",)) if inspected else ()
    sizes = Counter((image.width, image.height) for image in read)
    return {
        "images": len(inspected),
        "annotated": sum(one.sample.mask is not None for one in inspected),
        "groups": len({one.sample.group for one in inspected if one.sample.group}),
        "smallest": list(min(sizes, key=math.prod)) if sizes else None,
        "largest": list(max(sizes, key=math.prod)) if sizes else None,
        "levels": [min(image.levels[0] for image in read), max(image.levels[1] for image in read)] if read else None,
        "share": {
            name: float(np.mean([mask.shares[index] for mask in masks])) for index, name in enumerate(names) if masks
        },
        "faulty": sum(not one.usable for one in inspected),
    }


def _said(inspected: Sequence[Inspected]) -> dict[str, dict[str, int]]:
    """For each annotated image how many pixels it has, and of how many its mask says which class."""
    found = {}
    for one in inspected:
        if one.mask:
            names = ("background", *(one.sample.classes or ("foreground",)))
            counts = dict(zip(names, one.mask.counts, strict=True))
            found[one.sample.id] = {"pixels": one.image.height * one.image.width, "said": one.mask.said, **counts}
    return found


def _said_table(said: Mapping[str, Mapping[str, int]]) -> str:
    """``_said`` of the first images, as text."""
    names = [name for name in next(iter(said.values())) if name not in ("pixels", "said")]
    rows = [
        (name, f"{_digits(100 * own['said'] / own['pixels'])} %", *(f"{own[key]:,}" for key in ("said", *names)))
        for name, own in list(said.items())[:_SHOWN]
    ]
    table = text_table(("labelled", "share", "pixels", *names), rows, "l" + "r" * (2 + len(names)))
    return table + (f"\n... and {len(said) - _SHOWN} more (all with --json)" if len(said) > _SHOWN else "")


def _digits(percent: float) -> str:
    """Two digits, or all that are before the point: 0.18, 5.2, 90, 100."""
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def _texts(samples: Sequence[Sample], encoder: str) -> tuple[dict[str, Any], list[Problem]]:
    distinct = sorted({sample.text for sample in samples})
    lengths, unit, limit = _lengths(distinct, encoder)
    longest = max(range(len(distinct)), key=lengths.__getitem__, default=None)
    problems = []
    if limit is not None:
        for text, length in zip(distinct, lengths, strict=True):
            if length > limit:
                owner = next(sample.id for sample in samples if sample.text == text)
                problems.append(Problem("note", owner, f"has a text of {length} tokens; {limit} of them are read", ""))
    summary = {
        "distinct": len(distinct),
        "empty": sum(not sample.text for sample in samples),
        "longest": 0 if longest is None else lengths[longest],
        "unit": unit,
        "longest_of": None if longest is None else next(s.id for s in samples if s.text == distinct[longest]),
    }
    return summary, problems


def _lengths(texts: Sequence[str], encoder: str) -> tuple[list[int], str, int | None]:
    """The length of each text, its unit, and how much of it is read if that is known."""
    if encoder != "none":
        from textdiff.models.downloads.hub import locate
        from textdiff.models.text import count_tokens

        # Nothing is downloaded for a check.
        if locate(encoder) is not None:
            lengths, limit = count_tokens(encoder, texts)
            return lengths, f"tokens of {encoder}", limit
    return [len(text.split()) for text in texts], "words", None


def _within(inspected: Sequence[Inspected]) -> Iterator[Problem]:
    """The same picture twice in one split, which counts it twice."""
    seen: dict[tuple[str, str], Sample] = {}
    for one in inspected:
        first = seen.setdefault((one.sample.split, one.image.content), one.sample)
        if one.image.content and first.id != one.sample.id:
            yield Problem("note", one.sample.image.name, f"is the same image as {first.image.name}", "")


def _empty_splits(samples: Sequence[Sample]) -> list[Problem]:
    """Splits without any mask."""
    lost = {"train": "nothing can be fitted", "val": "the last epoch is kept", "test": "nothing can be scored"}
    masked = {sample.split for sample in samples if sample.mask is not None}
    return [
        Problem("error" if split == "train" else "note", split, f"has no image with a mask: {lost[split]}", "")
        for split in _SPLITS
        if split not in masked
    ]


def _absent_classes(inspected: Sequence[Inspected]) -> Iterator[Problem]:
    """Classes that no mask of a split holds, where there are masks."""
    for split in _SPLITS:
        shares = [one.mask.shares for one in inspected if one.sample.split == split and one.mask]
        for label, name in enumerate(inspected[0].sample.classes if shares else ()):
            if not any(share[label] for share in shares):
                yield Problem("note", split, f"has no pixel of the class {name}", "")


def _size(size: list[int] | None) -> str:
    return "" if size is None else f"{size[0]}x{size[1]}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "images": lambda split: str(split["images"]),
    "with a mask": lambda split: str(split["annotated"]),
    "groups": lambda split: str(split["groups"] or ""),
    "with an error": lambda split: str(split["faulty"] or ""),
    "smallest": lambda split: _size(split["smallest"]),
    "largest": lambda split: _size(split["largest"]),
    "levels (of 0-255)": lambda split: "-".join(map(str, split["levels"] or [])),
}
