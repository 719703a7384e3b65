"""From a folder of images to a report, by the other commands: each is printed, said why, and run.

It keeps no state and computes nothing of its own: what is there already, the commands themselves know.
"""

__all__ = ["start"]

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from textdiff.cache import FeatureCache
from textdiff.cache.stores import store_at
from textdiff.commands.start_advice import and_score, ask_for_masks, say, tell_how_to_score, tell_of_places
from textdiff.console import counted
from textdiff.errors import UserError
from textdiff.images.slide_files import is_slide, open_slide
from textdiff.options.reading import ReadOptions
from textdiff.options.tools import Start
from textdiff.pipeline.preset_choice import OF_STROKES, PresetChoice, choose_preset, strokes_of
from textdiff.pipeline.runs import Run, find_run
from textdiff.pipeline.training.begin import draw_images
from textdiff.pipeline.training.image_digests import changed_images
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.readers.names import IMAGES, visible
from textdiff.readers.objects import has_object_folders
from textdiff.readers.presets import get_preset
from textdiff.readers.sample import Sample

ENOUGH = 8
"""Annotated images from which on a quarter is kept for the test: two images at least, and six to learn from."""
_OF_MASKS = ("annotations", "classes", "unlabelled_value", "instances")
"""The options that say what masks hold."""
TWENTY_X = 0.5
"""Micrometres per pixel at which slides are looked at unless they are coarser."""


def start(options: Start) -> list[Path]:
    """Prints, explains and runs one command after the other, as far as the images and their masks allow.

    Nothing is downloaded, and nothing is written into the folder.

    Raises:
        UserError: the folder is not read as a data set, its check found errors, or a command failed.
    """
    root, dry = Path(options.dir), options.dry_run
    if get_preset(options.dataset).mask_place:
        _refuse_loose_images(root)
    stem = root.resolve().stem if root.is_file() else root.resolve().name
    usual, of_strokes = Path("cache") / f"{stem}.zarr", Path("cache") / f"{stem}-{OF_STROKES}.zarr"
    found = {usual: _made(usual, root)}
    with suppress(UserError):  # of another folder it matters only where it is needed, below
        found[of_strokes] = _made(of_strokes, root)
    caches = {where: made for where, made in found.items() if made is not None}
    asked = {name: value for name in _OF_MASKS if (value := getattr(options, name))}
    known = {name: made[name] for made in caches.values() for name in _OF_MASKS if name in made} | asked
    samples, _ = read_dataset(options.dataset, root, ReadOptions(**known))
    of_masks = _words(known)
    if not samples:
        _check(options, True, of_masks)
    strokes = strokes_of(samples)
    where = of_strokes if strokes.most and not (usual in caches and _has_filters(usual)) else usual
    made = _made(where, root)
    before = made or next(iter(caches.values()), None)
    masked = [sample for sample in samples if sample.mask is not None]
    learned_from = any(sample.split == "train" for sample in masked)
    draws = before is None and len(masked) >= ENOUGH and all(sample.split == "train" for sample in samples)
    # Images that are kept from one cache are kept from the other, too.
    kept = {name: one[name] for one in (*caches.values(), made or {}) for name in ("val", "test") if one.get(name)}
    split = ["--test", "0.25"] if draws else [word for name in kept for word in (f"--{name}", str(kept[name]))]
    tiles = (
        _tiles(samples)
        if before is None
        else [f"--{name}={before[name]}" for name in ("mpp", "tile") if name in before]
    )

    choice = choose_preset(samples, strokes.most) if made is None else None
    say(*(choice.why if choice else ()))
    say(*strokes.why(where, of_strokes in caches))
    if tiles and before is None:
        say(f"There are slides, so they are looked at in tiles, at {tiles[1]} µm per pixel (docs/slides.md).")
    _check(options, learned_from, [*of_masks, *split, *tiles])
    if dry and strokes.seen and not strokes.shown:
        inspect(samples, tiled=bool(tiles))  # what the check refuses then, with an --unlabelled-value
    side = options.image_size or (before or {}).get("image_size")
    size = ["--image-size", str(side)] if options.image_size or (side and made is None) else []
    if made is None:
        _extract(options, where, choice, [*size, *of_masks, *split, *tiles])
    else:
        # What it was made with it knows, but not what another cache was made with since.
        new = {name: value for name, value in known.items() if name in asked or made.get(name) != value}
        drawn = split if any(made.get(name) != value for name, value in kept.items()) else []
        _extract(options, where, None, [*_words(new), *size, *drawn])

    there = store_at(where).occupied()
    if not learned_from:
        ask_for_masks(options, samples, where if there else None, of_masks)
        return []
    encoder = choice.encoder if choice else FeatureCache.open(where).about["text_encoder"]
    trees = choice.preset == OF_STROKES if choice else _has_filters(where)
    _fit(where, there, trees, encoder, dry)
    tested = [row for row in FeatureCache.open(where).rows if row.split == "test"] if there and not dry else None
    if tested is not None:
        scored = any(row.has_mask for row in tested)
    else:
        scored = bool(split) or any(of.split == "test" for of in masked)
    if "unlabelled_value" in known and not trees and not strokes.seen:
        by_trees = ["textdiff", "fit", "--cache", str(where), "--model", "trees"]
        say("Of a few strokes boosted trees have learned more than this network. To see what they make of yours:")
        say(f"    {and_score(by_trees, scored)}")
    if scored:
        _do("Score. The test images, which were not learned from, tell how good it is.", ["score"], dry)
        _do("Report. One file to look at and to send, with every image and what to doubt.", ["report"], dry)
    else:
        tell_how_to_score(options, samples, where, tested or [], of_masks)
    if there and not (trees or tiles or encoder == "none"):
        tell_of_places(where, FeatureCache.open(where), scored)
    if len(masked) < len(samples):
        left = f"--dataset {options.dataset} --data {shlex.quote(str(root))}"
        all_of_them = "all images, as predict knows of no --annotations"
        which = all_of_them if "annotations" in known else "the images that have no mask"
        say("", f"Next. This segments {which}:", f"    textdiff predict {left} --out predictions")
        say("This tells which image to annotate next:", "    textdiff next")
    if there and not tiles and get_preset(options.dataset).mask_place:
        say(
            "To paint and correct masks and see the new result within seconds, napari has a plugin of TextDiff:",
            f"    pip install 'textdiff[napari]' && napari    # Plugins > Annotate (TextDiff), and give it {where}",
        )
    return []


def _words(options: Mapping[str, Any]) -> list[str]:
    """How options with their values stand in a command."""
    words = list[str]()
    for name, value in options.items():
        shown = str(value) if isinstance(value, str | Path) else ",".join(value) if value is not True else ""
        words += [f"--{name.replace('_', '-')}", *filter(None, [shown])]
    return words


def _tiles(samples: Sequence[Sample]) -> list[str]:
    """The options by which slides are looked at: at 20x, or as fine as the coarsest of them is; none without slides."""
    slides = [sample.image for sample in samples if isinstance(sample.image, Path) and is_slide(sample.image)]
    if not slides:
        return []
    mpp = TWENTY_X
    for path in slides:
        with open_slide(path) as slide:
            mpp = max(mpp, *(slide.pixel_size or ()))
    return ["--mpp", f"{mpp:g}", "--tile", "256"]


def _do(why: str, words: Sequence[str], dry: bool) -> bool:
    """Says why, prints the command, runs it as the command line would, and returns whether it found nothing wrong."""
    from textdiff.cli import STOPPED, app

    say("", why)
    command = ["textdiff", *words]
    print(f"    {shlex.join(command)}", flush=True)
    if dry:
        return True
    before, sys.argv = sys.argv, command  # a run records the command that made it
    try:
        status = app(args=list(words), prog_name="textdiff", standalone_mode=False)
    finally:
        sys.argv = before
    if status == STOPPED:  # Typer makes one of a KeyboardInterrupt, and what comes next must not begin
        raise KeyboardInterrupt
    return not status


def _check(options: Start, masked: bool, split: Sequence[str]) -> None:
    """Checks the data set; where there is no mask yet, that is an error to go on with, and others stop ``extract``."""
    words = ["data", "check", "--dataset", options.dataset, "--data", str(options.dir), *split]
    why = "Every file is read once, and what is wrong is named before anything is computed."
    if _do(f"Check. {why}", words, options.dry_run):
        return
    if masked:
        raise UserError(
            f"{options.dir}: is not sound, as said above; mend what is named and run the same command again"
        )
    say("That no training image has a mask is no reason to stop: below it is told which to annotate.")


def _refuse_loose_images(root: Path) -> None:
    """Says how to move images that lie in the folder itself.

    Raises:
        UserError: there are some, and no folder images.
    """
    if not root.is_dir() or has_object_folders(root):
        return
    if any((path / "images").is_dir() for path in (root, *visible(root))):
        return
    loose = [path.suffix for path in visible(root) if path.is_file() and path.name.lower().endswith(IMAGES)]
    if loose:
        place = shlex.quote(str(root))
        files = " ".join(f"{place}/*{suffix}" for suffix in sorted(set(loose)))
        raise UserError(
            f"{root}: has {counted(len(loose), 'image')}, but not in a folder images, where images are looked for; "
            f"`mkdir {place}/images && mv {files} {place}/images/`, then the same command again"
        )


def _made(where: Path, root: Path) -> dict[str, Any] | None:
    """The options that the cache was made with; None if there is none yet.

    Raises:
        UserError: it was made of another folder.
    """
    if not store_at(where).occupied():
        return None
    made: dict[str, Any] = FeatureCache.open(where).about["options"]
    of = Path(os.path.normpath(where.resolve().parent / str(made.get("data", ""))))
    if of.resolve() != root.resolve():
        raise UserError(f"{where}: was made of {of}, not of {root}; start in another directory, or rename one of them")
    if "annotations" in made:
        made["annotations"] = os.path.relpath(where.resolve().parent / str(made["annotations"]))
    return made


def _has_filters(where: Path) -> bool:
    """Whether a cache is one of filters, from which trees learn."""
    return bool(FeatureCache.open(where).about["backbone"] == OF_STROKES)


def _extract(options: Start, where: Path, choice: PresetChoice | None, more: Sequence[str]) -> None:
    """Fills the cache; without a ``choice`` it is there already."""
    if choice is None:
        why = f"{where} is there: it goes on with the options that it was made with, and takes in new images and masks."
        _do(f"Extract. {why}", ["extract", "--cache", str(where), "--update", *more], options.dry_run)
        return
    preset = ["--preset", choice.preset] if choice.preset != "paper" else []
    preset += ["--backbone", choice.backbone] if choice.backbone else []
    if choice.encoder != get_preset(options.dataset, choice.preset).text_encoder:
        preset += ["--text-encoder", choice.encoder]
    words = ["--dataset", options.dataset, "--data", str(options.dir), *preset, *more, "--cache", str(where)]
    what = "Filters look" if choice.preset == OF_STROKES else "The frozen network looks"
    why = f"{what} at every image once, and what comes of it is kept in a cache."
    _do(f"Extract. {why}", ["extract", *words], options.dry_run)


def _fit(where: Path, there: bool, trees: bool, encoder: str, dry: bool) -> None:
    run = _fitted(FeatureCache.open(where)) if there else None
    if run is None:
        chosen = ["--model", "trees"] if trees else ["--variant", "no-text"] if encoder == "none" else []
        learner = "Boosted trees learn" if trees else "A small network learns"
        why = f"{learner} from the images with masks, on what the cache holds."
        _do(f"Fit. {why}", ["fit", "--cache", str(where), *chosen], dry)
    elif not run.finished:
        _do(f"Fit. {run.path} was stopped, and goes on from its last checkpoint.", ["fit", "--resume"], dry)
    else:
        say("", f"Fit. {run.path} has learned from these images already, so it is not done again.")


def _fitted(cache: FeatureCache) -> Run | None:
    """The latest run, if it is of this cache and of the images and masks that are there now."""
    try:
        run = find_run(None, "runs")
        config = run.config
    except UserError:
        return None
    same = config["cache"] == str(cache.path.resolve()) and config["fingerprint_hash"] == cache.fingerprint_hash
    if not same or (config["train_ids"], config["val_ids"]) != draw_images(cache, None, 0):
        return None
    return None if changed_images(config, cache, run.texts(cache)) else run
