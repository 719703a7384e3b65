"""What ``start`` says of masks that are yet to be drawn, and of networks to try beside the one that it fits."""

__all__ = ["and_score", "ask_for_masks", "say", "tell_how_to_score", "tell_of_places"]

import shlex
from collections.abc import Sequence
from pathlib import Path

from textdiff import console
from textdiff.cache import FeatureCache, Row
from textdiff.images.directions import directions_of
from textdiff.options.tools import Start
from textdiff.pipeline.prediction.coverage import cover
from textdiff.readers.presets import get_preset
from textdiff.readers.sample import Sample

FIRST = 5
"""Images to annotate to begin with: as many as the paper's experiment has."""


def say(*lines: str) -> None:
    """Says each in a line of its own."""
    for line in lines:
        console.info(line)


def tell_how_to_score(
    options: Start, samples: Sequence[Sample], where: Path, kept: Sequence[Row], of_masks: Sequence[str]
) -> None:
    """Says how there comes to be a score; ``kept`` are the rows of the test images, none of which has a mask."""
    again = shlex.join([*_again(options), *of_masks])
    say("", "There is no score, because no image with a mask is kept for the test.")
    if kept:
        of = {sample.id: sample.image for sample in samples}
        names = list(dict.fromkeys(row.id for row in kept))[:FIRST]
        say(
            "Draw masks of some that are kept for it, such as these:",
            *(f"    {of.get(name, name)}" for name in names),
            "Then:",
            f"    {again}",
        )
    elif all(sample.split == "train" for sample in samples):
        draw = shlex.join(["textdiff", "extract", "--cache", str(where), "--update", "--test", "0.25"])
        say("Annotate more. This keeps a quarter of them for it, and scores:", f"    {draw} && {again}")
    else:
        column = "in texts.csv" if get_preset(options.dataset).mask_place else "(docs/data.md)"
        say(f"Annotate more, and write test into the column split of some {column}.")


def and_score(fit: Sequence[str], scored: bool) -> str:
    """A fit to be typed, and the score after it, unless there is no mask to score it by."""
    return shlex.join(fit) + (" && textdiff score" if scored else "")


def tell_of_places(where: Path, cache: FeatureCache, scored: bool) -> None:
    """Names the network that is given a map of places, if most texts of the images to learn from name one.

    Args:
        where: the cache, as commands name it.
        cache: the same one, open.
        scored: whether a test image has a mask.
    """
    learned = [
        row
        for row, entry in enumerate(cache.rows)
        if entry.split == "train" and entry.has_mask and not (entry.view or entry.tile)
    ]
    words = directions_of(cache.about)
    if words is None or 2 * sum(bool(words.places(cache.sentence(row))) for row in learned) <= len(learned):
        return
    fit = ["textdiff", "fit", "--cache", str(where), "--model", "text-unet", "--places"]
    say(
        "Most texts name a place. A U-Net that is given a map of it did best on chest X-rays (docs/texts.md). To see "
        "what it makes of yours:",
        f"    {and_score(fit, scored)}",
    )


def _again(options: Start) -> list[str]:
    """The command of now, without what is said of masks."""
    layout = [] if options.dataset == Start.dataset else ["--dataset", options.dataset]
    return ["textdiff", "start", str(options.dir), *layout]


def ask_for_masks(options: Start, samples: Sequence[Sample], cache: Path | None, of_masks: Sequence[str]) -> None:
    """Names the images to annotate first, and tells how."""
    say("", "Annotate. No training image has a mask yet, so there is nothing to learn from.")
    if cache is None:
        say(f"Once the cache is there, {FIRST} images are named that stand for the others.")
        return
    again = _again(options)
    opened = FeatureCache.open(cache)
    of = {sample.id: sample.image for sample in samples}
    # What is kept for the test would teach nothing.
    to_learn_from = {sample.id for sample in samples if sample.split == "train"} or of.keys()
    names = [one.id for one in cover(opened) if one.id in to_learn_from][:FIRST]
    say(
        f"Begin with these {len(names)}, which stand for the others in what the network sees:",
        *(f"    {of.get(name, name)}" for name in names),
    )
    if not get_preset(options.dataset).mask_place:
        say(
            "Draw a mask of each, as large as the image, and put it where this layout has its masks (docs/data.md). "
            "Then:",
            f"    {shlex.join([*again, *of_masks])}",
        )
        return
    say(
        "Draw a mask of each, as large as the image, and save it in a folder masks beside images, called as the image: "
        f"masks/{names[0]}.png. It is a PNG in grey, with 255 or 1 on what you look for, and 0 elsewhere.",
        "In napari: open the image, add a labels layer, paint with 1, and save that layer as PNG.",
        "In GIMP: add a black layer, paint on it in white, and export that layer alone as PNG.",
        "In Aperio ImageScope: draw outlines, and save the annotations, an XML called as the image.",
        "The page docs/data.md tells of several classes, numbered objects, and outlines of other programs. Then:",
        f"    {shlex.join([*again, *of_masks])}",
    )
    strokes = "--unlabelled-value" in of_masks
    if not any(row.tile for row in opened.rows) and not {"--instances", "--annotations"} & {*of_masks}:
        update = ["textdiff", "extract", "--cache", str(cache), "--update", "--unlabelled-value", "255"]
        say(
            "A few strokes in place of a whole mask are enough to begin with. In napari a plugin of TextDiff shows the "
            "mask that they give while you paint (docs/napari.md):",
            *([] if strokes else [f"    {shlex.join(update)}"]),
            f"    pip install 'textdiff[napari]' && napari    # Plugins > Annotate (TextDiff), and give it {cache}",
        )
    if not strokes:
        say(
            "Strokes of another program have 1 on what you look for, 0 on the background, and 255 where you say "
            "nothing. Then:",
            f"    {shlex.join([*again, *of_masks, '--unlabelled-value', '255'])}",
        )
