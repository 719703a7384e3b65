"""One run made of several unlike ones: checked against each other, weighted, copied into a run directory."""

__all__ = ["combine"]

import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.files import atomic_path
from textdiff.models.device import choose_device, describe_device
from textdiff.options.run import Combine
from textdiff.pipeline.evaluation.calibration import calibrate
from textdiff.pipeline.fit import git_revision, versions
from textdiff.pipeline.mixture import Mixture
from textdiff.pipeline.mixture_weights import chosen_weights
from textdiff.pipeline.runs import Run, find_run, new_run_dir, point_latest, write_config
from textdiff.pipeline.training.image_digests import check_fitted, unlabelled_digests

_COPIED = ("config.json", "head.safetensors", "likeness.safetensors")


def combine(options: Combine) -> Run:
    """Makes a run of which each prediction is the mean of what several runs say of the image.

    They may be of caches that were made in different ways, of the same images: a row is known by its image and mask,
    not by its place. The directory holds copies of the runs, so that it stays what it is when these are gone; it
    becomes the latest.

    Returns:
        The run, which every command takes.

    Raises:
        UserError: a run is not finished, or a combined one itself; two differ in their classes, sizes or test images,
            or one was fitted on, or selected by, what another one's cache has in another split; there is no validation
            image, where weights are to be chosen by these.
    """
    device = choose_device(options.device)
    runs = [find_run(path, options.runs) for path in options.run]
    for run in runs:
        if run.combined:
            named = ", ".join(one["run"] for one in run.config["runs"])
            raise UserError(f"{run.path}: is combined of runs itself ({named}); name these")
        if not run.finished:
            raise UserError(f"{run.path}: not finished; finish it with `textdiff fit --resume --run {run.path}`")
    caches = [run.open_cache() for run in runs]
    _check_alike(runs, caches)
    if options.weights == "validation" and not any(entry.split == "val" and entry.has_mask for entry in caches[0].rows):
        raise UserError(
            f"--weights validation: {caches[0].path} has no annotated validation image; use --weights equal"
        )
    made = Run(new_run_dir(Path(options.runs), "combined"))
    try:
        for number, run in enumerate(runs):
            _copy(run, made.path / "members" / str(number))
        config = _config(runs) | {"device": describe_device(device)}
        write_config(made, config)
        if options.weights == "validation":
            weights, found = chosen_weights(Mixture(made, device), caches[0])
            weighed = [one | {"weight": weight} for one, weight in zip(config["runs"], weights, strict=True)]
            write_config(made, config | {"runs": weighed, "weighed": found})
            shown = ", ".join(f"{run.path.name} {weight:.3g}" for run, weight in zip(runs, weights, strict=True))
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
    point_latest(made.path)
    return made


def _check_alike(runs: Sequence[Run], caches: Sequence[FeatureCache]) -> None:
    """Refuses runs whose predictions are not of the same pixels, or of images that one of them was fitted on."""
    for run in runs:
        for cache in caches:
            check_fitted(run.config, cache, str(run.path))
    facts = [_facts(run, cache) for run, cache in zip(runs, caches, strict=True)]
    for (one, ours), (other, theirs) in combinations(zip(runs, facts, strict=True), 2):
        for what, value in ours.items():
            if value != theirs[what]:
                raise UserError(
                    f"{one.path} and {other.path}: differ in {what}, {_difference(value, theirs[what])}, so they have "
                    "no mean; combine runs of the same test images, classes and sizes"
                )


def _facts(run: Run, cache: FeatureCache) -> dict[str, Any]:
    """What runs must have in common, by its name."""
    made, entries = run.config["fingerprint"], [e for e in cache.rows if e.split == "test" and e.has_mask]
    return {
        "classes": ", ".join(run.classes),
        "the image size": made["image_size"],
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
