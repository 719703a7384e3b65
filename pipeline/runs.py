"""Run directories: one fit each, with everything needed to use or repeat it."""

__all__ = [
    "IDENTITY",
    "SCHEMA",
    "TEACHER",
    "Run",
    "find_run",
    "new_run_dir",
    "of_split",
    "point_latest",
    "write_config",
]

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from textdiff.cache import FeatureCache
from textdiff.errors import UserError, explain, quoted
from textdiff.files import write_text
from textdiff.models.networks.ensemble import Ensemble
from textdiff.models.networks.models import get_model
from textdiff.models.networks.segmenter import Segmenter
from textdiff.models.networks.variants import assign_texts
from textdiff.models.tensor_files import load_tensors
from textdiff.options.option import AnyPath
from textdiff.options.shared import LATEST, Runs
from textdiff.pipeline.run_files import SCHEMA, TEACHER, RunFiles, of_split
from textdiff.pipeline.sealed import write_sealed
from textdiff.pipeline.training.image_digests import CONTROLS, changed_images, check_fitted, shortened
from textdiff.places import located

IDENTITY = "textdiff.run"
"""Under what name files of weights carry ``Run.identity``."""


@dataclass(frozen=True)
class Run(RunFiles):
    """A run directory, the network that was fitted in it, and the cache that this was fitted on."""

    def load_network(self) -> Segmenter:
        """The network with the weights selected, or the ensemble of them, in evaluation mode on the CPU.

        Raises:
            UserError: the fit has not finished, the file is damaged, or ``combine`` made the run.
        """
        if unfinished := self.unfinished():
            raise UserError(
                f"{unfinished[0]}: no head.safetensors, so this fit has not finished; "
                f"finish it with `textdiff fit --resume --run {quoted(self.path)}`"
            )
        if self.combined:
            named = " or ".join(str(member.path) for member in self.members)
            raise UserError(
                f"{self.path}: combines unlike runs, which are no single network; give one of them: {named}"
            )
        network: Segmenter
        config, file = self.config, self.path / "head.safetensors"
        if self.members:
            self.check_members()
            network = Ensemble([member.load_network() for member in self.members])
            network.blank_below = config["blank_below"]
            return network.eval()
        model = get_model(config["model"])
        with torch.device("meta"):
            network = model(**config["head"])
        if {name for name, _ in network.named_buffers()} - set(network.state_dict()):
            # What is computed instead of stored is not computed there.
            network = model(**config["head"])
        network.blank_below = config["blank_below"]
        try:
            weights, metadata = load_tensors(file)
            if metadata.get(IDENTITY) != self.identity:
                raise ValueError("it is of another run")
            network.load_state_dict(weights, assign=True)
        except Exception as error:  # safetensors has its own exception types, torch raises RuntimeError
            if explain(error):
                raise
            said = str(error).strip().split("\n")[0]
            raise UserError(
                f"{file}: damaged, or not of this run's configuration ({said}); remove it and run `textdiff fit "
                f"--resume --run {quoted(self.path)}`, which makes it again"
            ) from error
        return network.eval()

    def texts(self, cache: FeatureCache) -> dict[int, int]:
        """For every row of a cache the row whose text the run is given; see ``assign_texts``.

        Of a combined run it is the first one's, for the record: each of its runs is given its own.
        """
        if self.combined:
            return self.members[0].texts(cache)
        options = self.config["fit"]
        return assign_texts(cache, options["variant"], options["draw_seed"], self.shown_ids)

    def open_cache(self, path: AnyPath | None = None) -> FeatureCache:
        """The cache the run was fitted on, or the one at ``path`` if it was made the same way.

        Raises:
            UserError: it is not there, or its features were made otherwise; an image that the run was fitted on is a
                test image there.
        """
        where = located(path or self.config["cache"])
        if isinstance(where, Path) and not where.exists():
            raise UserError(f"{where}: the cache of {self.path} is not there; give its new place with --cache")
        cache = FeatureCache.open(where)
        if cache.fingerprint_hash != self.config["fingerprint_hash"]:
            raise UserError(
                f"{where}: its features were made otherwise than those that {self.path} was fitted on; "
                "give the run's own cache with --cache, or fit again"
            )
        self.check_images(cache)
        return cache

    def check_images(self, cache: FeatureCache) -> None:
        """Checks that the run can be scored on a cache's images.

        Raises:
            UserError: an image that it was fitted on is of another split there; of a control, has changed since.
        """
        check_fitted(self.config, cache, str(self.path))
        # The controls' texts depend on the images that the run was fitted on.
        if self.config["fit"].get("variant") in CONTROLS and not self.combined:
            self.check_unchanged(cache)

    def check_unchanged(self, cache: FeatureCache) -> None:
        """Checks that the images the run was fitted on are in the cache, and as they were when it was begun.

        Raises:
            UserError: they are not; names one.
        """
        options, ids = self.config["fit"], self.shown_ids
        own = "full" if not set(ids) <= {entry.id for entry in cache.rows} else options["variant"]
        if changed := changed_images(self.config, cache, assign_texts(cache, own, options["draw_seed"], ids)):
            raise UserError(
                f"{cache.path}: changed since {self.path} was begun ({shortened(changed)}), so it cannot go on as it "
                "began; fit again on this cache, or give one with the images of then with --cache"
            )


def find_run(run: AnyPath | None, runs: AnyPath) -> Run:
    """The run at ``run``, or the latest one in ``runs``.

    Raises:
        UserError: there is none.
    """
    return Run(Runs(run=run, runs=runs).directory())


def new_run_dir(runs: Path, name: str) -> Path:
    """Makes ``runs/name-<time>/``; a number is added when two runs start in one second."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in range(1000):
        path = runs / (f"{stem}-{attempt}" if attempt else stem)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise UserError(f"{runs}: a thousand runs were started in this second; start them more slowly")


def point_latest(run: Path) -> None:
    """Makes ``runs/latest`` mean ``run``: a symbolic link, or a text file where links are not to be had."""
    latest = run.parent / LATEST
    partial = run.parent / f".{LATEST}.{os.getpid()}.partial"
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(run.name, target_is_directory=True)
        partial.replace(latest)
    except OSError:
        write_text(latest, run.name + "\n")
    finally:
        partial.unlink(missing_ok=True)


def write_config(run: Run, config: Mapping[str, Any]) -> None:
    """Writes ``config.json``."""
    write_sealed(run.path / "config.json", config)
