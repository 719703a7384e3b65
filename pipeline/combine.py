"""One run made of several unlike ones: checked against each other, weighted, copied into a run directory."""

__all__ = ["check_caches", "chosen_weights", "combine", "combine_runs", "convex_grid"]

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import combinations, groupby, pairwise
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError, quoted
from textdiff.files import atomic_path
from textdiff.metrics.pixels import Confusion
from textdiff.models.device import choose_device, describe_device
from textdiff.options.option import AnyPath
from textdiff.options.run import Combine
from textdiff.pipeline.evaluation.calibration import calibrate
from textdiff.pipeline.evaluation.class_scores import class_confusions, scores_of_counts
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.mixture import Mixture, mixed
from textdiff.pipeline.predictions import cached_predictions, mean_of_views
from textdiff.pipeline.program import git_revision, versions
from textdiff.pipeline.runs import Run, find_run, new_run_dir, point_latest, write_config
from textdiff.pipeline.training.image_digests import check_fitted, unlabelled_digests

_COPIED = ("config.json", "head.safetensors", "likeness.safetensors", "log.csv")
STEPS = 10
"""Weights are multiples of one over this, for three runs 66 of them."""
MOST = 500
"""Points of the grid at most: of many runs the steps are wider."""
_ALIKE = {
    "classes": "with the same --classes",
    "the image size": "with the same --image-size",
    "the resolution": "with the same --mpp",
    "tiles": "with the same --tile and --overlap",
    "test images": "of the same test images and masks",
    "views of test images": "with the same --test-views",
}
"""How to make caches that have the same ``_facts``."""


def combine(options: Combine) -> Run:
    """Makes a run of which each prediction is the mean of what several runs say of the image.

    They may be of caches that were made in different ways, of the same images: a row is known by its image and mask,
    not by its place. The directory holds copies of the runs, so that it stays what it is when these are gone; it
    becomes the latest.

    Returns:
        The run, which every command takes.

    Raises:
        UserError: as ``combine_runs``; a run is not there.
    """
    runs = [find_run(path, options.runs) for path in options.run]
    device = choose_device(options.device)
    made = combine_runs(runs, lambda: new_run_dir(Path(options.runs), "combined"), device, options.weights)
    point_latest(made.path)
    return made


def combine_runs(
    runs: Sequence[Run],
    place: Callable[[], Path],
    device: torch.device,
    weights: Literal["equal", "validation"] = "equal",
) -> Run:
    """What ``combine`` makes, in a directory of its own.

    Args:
        runs: at least two.
        place: names the directory once nothing is against the mean, as ``begin`` asks for a fit's.
        device: to compute on.
        weights: as the option is.

    Raises:
        UserError: a run is not finished, or a combined one itself; two differ in their classes, sizes or test images,
            or one was fitted on, or selected by, what another one's cache has in another split; there is no validation
            image, where weights are to be chosen by these.
    """
    for run in runs:
        if run.combined:
            named = ", ".join(one["run"] for one in run.config["runs"])
            raise UserError(f"{run.path}: is combined of runs itself ({named}); name these")
        if not run.finished:
            raise UserError(
                f"{run.path}: not finished; finish it with `textdiff fit --resume --run {quoted(run.path)}`"
            )
    caches = [run.open_cache() for run in runs]
    _check_alike(runs, caches)
    if weights == "validation" and not any(entry.split == "val" and entry.has_mask for entry in caches[0].rows):
        raise UserError(
            f"--weights validation: {caches[0].path} has no annotated validation image; use --weights equal"
        )
    made = Run(place())
    try:
        for number, run in enumerate(runs):
            _copy(run, made.path / "members" / str(number))
        config = _config(runs) | {"device": describe_device(device)}
        write_config(made, config)
        if weights == "validation":
            chosen, found = chosen_weights(Mixture(made, device), caches[0])
            weighed = [one | {"weight": weight} for one, weight in zip(config["runs"], chosen, strict=True)]
            write_config(made, config | {"runs": weighed, "weighed": found})
            shown = ", ".join(f"{run.path.name} {weight:.3g}" for run, weight in zip(runs, chosen, strict=True))
            console.info(f"weights by {console.counted(found['images'], 'validation image')}: {shown}")
        # Asked for anew, as the weights may be others than those that were read first.
        made = Run(made.path)
        try:
            calibrate(made, caches[0], device)
        except UserError as error:  # caches that differ in their validation images have nothing else against them
            console.warn(f"there is no temperature: {error}")
    except BaseException:
        shutil.rmtree(made.path, ignore_errors=True)
        raise
    return made


def _check_alike(runs: Sequence[Run], caches: Sequence[FeatureCache]) -> None:
    """Refuses runs whose predictions are not of the same pixels, or of images that one of them was fitted on."""
    for run in runs:
        for cache in caches:
            check_fitted(run.config, cache, str(run.path))
    check_caches([(run.path, cache) for run, cache in zip(runs, caches, strict=True)])


def check_caches(named: Sequence[tuple[AnyPath, FeatureCache]]) -> None:
    """Refuses caches, by the names of what is of them, if predictions of their images have no mean.

    Raises:
        UserError: two differ in their classes, sizes or test images.
    """
    facts = [(name, _facts(cache)) for name, cache in named]
    for (one, ours), (other, theirs) in combinations(facts, 2):
        for what, value in ours.items():
            if value != theirs[what]:
                raise UserError(
                    f"{one} and {other}: differ in {what}, {_difference(value, theirs[what])}, so they have no mean; "
                    f"make both caches {_ALIKE[what]}, and fit again"
                )


def _facts(cache: FeatureCache) -> dict[str, Any]:
    """What the caches of combined runs must have in common, by its name."""
    made, entries = cache.fingerprint, [e for e in cache.rows if e.split == "test" and e.has_mask]
    return {
        "classes": ", ".join(cache.classes),
        "the image size": cache.image_size,
        "the resolution": f"{made['mpp']:g} µm" if "mpp" in made else "that of each image",
        "tiles": f"{made['tile']} px, {made['overlap']} px overlap" if "tile" in made else "none",
        "test images": {entry.id: (entry.image_sha256, entry.mask_sha256) for entry in entries},
        "views of test images": len({entry.view for entry in entries}),
    }


def _difference(ours: Any, theirs: Any) -> str:
    if not isinstance(ours, Mapping):
        return f"{ours} and {theirs}"
    if missing := sorted(ours.keys() ^ theirs.keys()):
        return f"{len(ours)} and {len(theirs)}, of which only one has {missing[0]}"
    name = next(name for name in ours if ours[name] != theirs[name])
    return f"{name} has another {'image' if ours[name][0] != theirs[name][0] else 'mask'}"


def _copy(run: Run, to: Path) -> None:
    """What a run is used by, without what was made of it."""
    to.mkdir(parents=True)
    for name in _COPIED:
        if (run.path / name).is_file():
            # What cannot be written is named, which shutil.copyfile would not: it names what it reads.
            with (run.path / name).open("rb") as source, atomic_path(to / name) as partial, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    for member in run.members:
        _copy(member, to / "members" / member.path.name)


def _config(runs: Sequence[Run]) -> dict[str, Any]:
    """``config.json``: that of the first run where there can be one value only, and what is of all of them."""
    first = runs[0].config
    models = "+".join(run.config["model"] for run in runs)
    unlabelled = {name: facts for run in runs[::-1] for name, facts in unlabelled_digests(run.config).items()}
    variants = list(dict.fromkeys(run.config["fit"]["variant"] for run in runs if run.reads.activations))
    return {
        **first,
        "model": models,
        "fit": first["fit"]
        | {"model": models, "variant": "+".join(variants) or "full", "ensemble": None, "unlabelled": None},
        "parameters": sum(run.config["parameters"] for run in runs),
        "train_ids": sorted({name for run in runs for name in run.config["train_ids"]}),
        "val_ids": sorted({name for run in runs for name in run.config["val_ids"]}),
        "images": {name: facts for run in runs[::-1] for name, facts in run.config["images"].items()},
        "unlabelled": {"images": unlabelled} if unlabelled else None,
        "likeness_sha256": None,
        "versions": versions(),
        "git": git_revision(),
        "command": sys.argv,
        "runs": [
            {"run": run.path.resolve().name, "label": run.label, "digest": run.digest, "weight": 1 / len(runs)}
            for run in runs
        ],
        "weighed": None,
    }


def convex_grid(count: int) -> list[tuple[float, ...]]:
    """Weights that add up to 1, in even steps: equal ones first, and then those that are nearest to these.

    Args:
        count: of runs, two or more.
    """
    steps = next((steps for steps in range(STEPS, 1, -1) if comb(steps + count - 1, count - 1) <= MOST), 1)
    points = []
    for bars in combinations(range(steps + count - 1), count - 1):
        ends = (-1, *bars, steps + count - 1)
        points.append(tuple(right - left - 1 for left, right in pairwise(ends)))
    # Whole numbers, so that no rounding decides on the order.
    points.sort(key=lambda point: (sum(share**2 for share in point), point))
    equal = (1 / count,) * count
    return [equal, *(tuple(share / steps for share in point) for point in points if len(set(point)) > 1)]


def chosen_weights(fitted: Mixture, cache: FeatureCache) -> tuple[list[float], dict[str, Any]]:
    """The weights on ``convex_grid`` with the best mean Dice over the validation images, and how they were found.

    Of weights that do equally well the first are taken. Dice is that of the mask at the cache's image size, per image;
    of an image in tiles that of all pixels of its tiles, so that those in two tiles count twice.

    Args:
        fitted: the runs.
        cache: the first one's.

    Raises:
        UserError: no validation mask says anything, or another run's cache has not the same images.
    """
    grid, classes = convex_grid(fitted.member_count), cache.classes
    counts: dict[str, NDArray[np.int64]] = {}
    with closing(cached_predictions(fitted, cache, scored_rows(cache, "val"), "weigh", each=True)) as predicted:
        for _, views in groupby(predicted, lambda found: cache.rows[found[0]].key[:-1]):
            pairs = list(views)
            members = mean_of_views((cache.rows[row].view, found) for row, found in pairs)
            entry, mask = cache.rows[pairs[0][0]], cache.mask(pairs[0][0])
            assert mask is not None
            found = [class_confusions(mixed(members, weights).argmax(0), mask, len(classes)) for weights in grid]
            counts[entry.id] = counts.get(entry.id, np.int64(0)) + np.array(found, np.int64)
    ids = sorted(counts)
    dice = [float(np.mean([_dice(counts[name][point], classes) for name in ids])) for point in range(len(grid))]
    best = int(np.argmax(np.round(dice, 9)))
    facts = {"images": len(ids), "ids": ids, "grid": len(grid), "dice": dice[best], "dice_equal": dice[0]}
    return list(grid[best]), facts


def _dice(counts: NDArray[np.int64], classes: list[str] | tuple[str, ...]) -> float:
    """The mean over classes of an image's pixels, counted (classes, 4)."""
    dice = scores_of_counts([Confusion(*map(int, count)) for count in counts], classes, "clean")["dice_clean"]
    assert dice is not None
    return dice
