"""One run made of several unlike ones: checked against each other, weighted, copied into a run directory."""

__all__ = ["check_caches", "combine", "combine_runs"]

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.files import atomic_path
from textdiff.models.device import choose_device, describe_device
from textdiff.options.option import AnyPath
from textdiff.options.run import Combine
from textdiff.pipeline.evaluation.calibration import calibrate
from textdiff.pipeline.mixture import Mixture
from textdiff.pipeline.mixture_weights import chosen_weights
from textdiff.pipeline.program import git_revision, versions
from textdiff.pipeline.runs import Run, find_run, new_run_dir, point_latest, write_config
from textdiff.pipeline.training.image_digests import check_fitted, unlabelled_digests

_COPIED = ("config.json", "head.safetensors", "likeness.safetensors", "log.csv")


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
            raise UserError(f"{run.path}: not finished; finish it with `textdiff fit --resume --run {run.path}`")
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
            console.info(f"weights by {found['images']} validation images: {shown}")
        # Asked for anew, as the weights may be others than those that were read first.
        made = Run(made.path)
        try:
            calibrate(made, caches[0], device)
        except UserError as error:  # caches that differ in their validation images have nothing else against them
            console.warn(f"no temperature: {error}")
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
                    "combine what is of the same test images, classes and sizes"
                )


def _facts(cache: FeatureCache) -> dict[str, Any]:
    """What the caches of combined runs must have in common, by its name."""
    made, entries = cache.fingerprint, [e for e in cache.rows if e.split == "test" and e.has_mask]
    return {
        "classes": ", ".join(cache.classes),
        "the image size": cache.image_size,
        "the resolution": made.get("mpp"),
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
