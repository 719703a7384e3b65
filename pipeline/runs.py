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

import csv
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from textdiff.cache import FeatureCache
from textdiff.cache.fingerprint import digest_of
from textdiff.errors import UserError, explain
from textdiff.files import sha256_file, write_text
from textdiff.models.networks.ensemble import Ensemble
from textdiff.models.networks.models import get_model, method_name
from textdiff.models.networks.segmenter import Reads, Segmenter
from textdiff.models.networks.variants import assign_texts
from textdiff.models.tensor_files import load_tensors
from textdiff.options.option import AnyPath
from textdiff.options.shared import LATEST, Runs
from textdiff.pipeline.sealed import read_sealed, write_sealed
from textdiff.pipeline.training.image_digests import CONTROLS, changed_images, check_fitted, shortened
from textdiff.places import located

SCHEMA = 3
"""Version of ``config.json``; it goes up whenever what is in it changes."""
SCORES_SCHEMA = 3
IDENTITY = "textdiff.run"
"""Under what name files of weights carry ``Run.identity``."""
TEACHER = "teacher"
"""The directory, in that of a run of self-training, of the run whose predictions it learns from."""
_IDENTITY = ("model", "head", "recipe", "fingerprint_hash", "train_ids", "val_ids", "images", "unlabelled")


@dataclass(frozen=True)
class Run:
    """A run directory: ``config.json``, ``log.csv``, ``last.pt`` for resuming, ``head.safetensors`` once finished.

    An ensemble's has a ``config.json`` and, below ``members/``, a run directory for each of its networks. So has one
    that ``combine`` made, of copies of the runs. One of self-training has the run that it learns from as ``teacher/``.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved options, versions, device, cache fingerprint and ids used.

        Raises:
            UserError: the directory is not a run, or its ``config.json`` is damaged or of another version.
        """
        file = self.path / "config.json"
        if not file.exists():
            raise UserError(
                f"{self.path}: not a run directory, it has no config.json; give one that `textdiff fit` made"
            )
        try:
            config = read_sealed(file)
        except ValueError:
            raise UserError(
                f"{file}: damaged, or changed by hand: it is not what `textdiff fit` wrote; restore it from a copy, or "
                "fit again"
            ) from None
        if config.get("schema") != SCHEMA:
            raise UserError(f"{file}: made by another version of TextDiff; fit again with this one")
        return config

    @property
    def label(self) -> str:
        """What was fitted, in a few words, for tables: the variant of the method, or the rival and its recipe."""
        if self.combined:
            return " + ".join(run["label"] for run in self.config["runs"])
        options = self.config["fit"]
        facts = (options[name] for name in ("model", "recipe", "variant", "unlabelled", "places"))
        name = method_name(*facts)
        return f"{name}, mean of {options['ensemble']}" if options["ensemble"] else name

    @property
    def reads(self) -> Reads:
        """What its network reads, or any of the runs that it combines."""
        if self.combined:
            return Reads(*map(any, zip(*(member.reads for member in self.members), strict=True)))
        reads = get_model(self.config["model"]).reads
        return reads._replace(text=reads.text and self.config["fit"]["variant"] != "no-text")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes 1, 2, ...; one, ``foreground``, where the data set names none."""
        return tuple(self.config["fingerprint"].get("classes", ("foreground",)))

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the weights depend on, which the files of weights carry too.

        Not of where the cache is and on what device: a fit goes on elsewhere.
        """
        options = {name: value for name, value in self.config["fit"].items() if name not in ("cache", "device")}
        rest = {name: self.config[name] for name in _IDENTITY}
        return digest_of(rest | {"fit": options})

    @property
    def combined(self) -> bool:
        """Whether ``combine`` made it of unlike runs, which read each their own inputs."""
        return "runs" in self.config

    @property
    def weights(self) -> list[float]:
        """How much each of the runs that it combines counts; they add up to 1."""
        return [run["weight"] for run in self.config["runs"]]

    @property
    def members(self) -> "list[Run]":
        """The runs of an ensemble, or those that it combines, run directories below this one; otherwise none."""
        count = len(self.config["runs"]) if self.combined else self.config["fit"]["ensemble"] or 0
        return [Run(self.path / "members" / str(index)) for index in range(count)]

    def member_config(self, number: int) -> dict[str, Any]:
        """The ``config`` of an ensemble's member: that of a single fit with a seed of its own."""
        own = {"fit": self.config["fit"] | {"seed": self.config["fit"]["seed"] + number, "ensemble": None}}
        if unlabelled := self.config["unlabelled"]:
            own["unlabelled"] = unlabelled | {"teacher": f"../../{TEACHER}"}
        return self.config | own

    @property
    def teacher(self) -> "Run | None":
        """The run of the round before, whose predictions this one learns from; None without self-training."""
        unlabelled = self.config["unlabelled"]
        return Run(self.path / unlabelled["teacher"]) if unlabelled else None

    def teacher_config(self) -> dict[str, Any]:
        """The ``config`` of ``teacher``: the same fit with one round less."""
        rounds = self.config["unlabelled"]["rounds"] - 1
        return self.config | {
            "fit": self.config["fit"] | {"unlabelled": rounds or None},
            "unlabelled": self.config["unlabelled"] | {"rounds": rounds} if rounds else None,
        }

    @property
    def shown_ids(self) -> list[str]:
        """The ids of the images that it was fitted on, with labels and without."""
        return [*self.config["train_ids"], *(self.config["unlabelled"] or {"images": ()})["images"]]

    def check_members(self) -> None:
        """Checks that the members begun are those of this ensemble, each in its place.

        Raises:
            UserError: one is another run.
        """
        if self.combined:
            for member, then in zip(self.members, self.config["runs"], strict=True):
                if member.digest != then["digest"]:
                    raise UserError(
                        f"{member.path}: not as it was when {self.path} was combined of it; combine the runs again"
                    )
            return
        for number, member in enumerate(self.members):
            own = self.member_config(number)
            if (member.path / "config.json").is_file() and member.config != own:
                raise UserError(
                    f"{member.path}: not this ensemble's member of seed {own['fit']['seed']}, but another run; remove "
                    f"it and run `textdiff fit --resume --run {self.path}`, which makes it again"
                )

    @property
    def finished(self) -> bool:
        """Whether the fit came to its end."""
        return not self._unfinished()

    @property
    def digest(self) -> str:
        """The SHA-256 of the weights selected, or of those of all members; empty while the fit has not finished."""
        if self._unfinished():
            return ""
        if not self.members:
            return sha256_file(self.path / "head.safetensors")
        parts = [member.digest for member in self.members] + (list(map(str, self.weights)) if self.combined else [])
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def log(self) -> list[dict[str, float]]:
        """The lines of ``log.csv``, one mapping per epoch; empty before the first has ended.

        An epoch that was not validated has no ``val_dice``.

        Raises:
            UserError: the file is damaged.
        """
        file = self.path / "log.csv"
        if not file.exists():
            return []
        try:
            text = file.read_text(encoding="utf-8")
            log = [
                {name: float(value) for name, value in line.items() if value}
                for line in csv.DictReader(text.splitlines())
            ]
            # A line that was cut off has its epoch, but not its end.
            sound = all({"epoch", "loss", "seconds"} <= line.keys() for line in log) and text.endswith("\n")
            if not sound or [line["epoch"] for line in log] != list(range(1, len(log) + 1)) or not log:
                raise ValueError
        except (ValueError, TypeError, AttributeError, csv.Error, IsADirectoryError):
            raise UserError(
                f"{file}: damaged; remove it: the run is used without it, and only the curves of its fit are lost"
            ) from None
        return log

    def scores_file(self, split: str = "test") -> Path:
        """Where ``score`` stores its summary of a split."""
        return self.path / f"scores{of_split(split)}.json"

    def score_command(self, split: str) -> str:
        """How it is scored on a split."""
        return f"`textdiff score --run {self.path}{'' if split == 'test' else f' --split {split}'}`"

    def scores(self, split: str = "test") -> dict[str, Any]:
        """What ``score`` stored of a split: its summary, with the per-image scores under ``images``.

        Raises:
            UserError: it was not scored on that split, or the file is damaged or of another version.
        """
        file, again = self.scores_file(split), self.score_command(split)
        if not file.exists():
            _ = self.config  # raises of what is no run, which cannot be scored either
            raise UserError(f"{file}: not there, so this run is not scored on the {split} split; run {again} first")
        try:
            scores: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(scores, dict) or scores.get("schema") != SCORES_SCHEMA:
                raise UserError(f"{file}: made by another version of TextDiff; run {again}")
            if not {"scores", "images", "labels", "published"} <= scores.keys():
                raise ValueError
        except (ValueError, IsADirectoryError, RecursionError):
            raise UserError(f"{file}: damaged; remove it and run {again}") from None
        return scores

    def load_network(self) -> Segmenter:
        """The network with the weights selected, or the ensemble of them, in evaluation mode on the CPU.

        Raises:
            UserError: the fit has not finished, the file is damaged, or ``combine`` made the run.
        """
        if unfinished := self._unfinished():
            raise UserError(
                f"{unfinished[0]}: no head.safetensors, so this fit has not finished; "
                f"finish it with `textdiff fit --resume --run {self.path}`"
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
                f"--resume --run {self.path}`, which makes it again"
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

    def _unfinished(self) -> list[Path]:
        # A member that was never started has no config.json that could be asked.
        if self.combined:
            return [path for member in self.members for path in member._unfinished()]
        paths = [run.path for run in self.members or [self]]
        return [path for path in paths if not (path / "head.safetensors").exists()]

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


def of_split(split: str) -> str:
    """What follows in names of files that are of a split; nothing for the test images."""
    return "" if split == "test" else f"-{split}"


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
