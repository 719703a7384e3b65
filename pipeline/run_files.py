"""What a run directory says of a fit: its configuration, the runs that it consists of, its log and its scores."""

__all__ = ["SCHEMA", "SCORES_SCHEMA", "TEACHER", "RunFiles", "of_split"]

import csv
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from textdiff.cache.fingerprint import digest_of
from textdiff.errors import UserError, quoted
from textdiff.files import sha256_file
from textdiff.models.networks.models import get_model, method_name
from textdiff.models.networks.segmenter import Reads
from textdiff.pipeline.sealed import read_sealed

SCHEMA = 3
"""Version of ``config.json``; it goes up whenever what is in it changes."""
SCORES_SCHEMA = 3
TEACHER = "teacher"
"""The directory, in that of a run of self-training, of the run whose predictions it learns from."""
_IDENTITY = ("model", "head", "recipe", "fingerprint_hash", "train_ids", "val_ids", "images", "unlabelled")


@dataclass(frozen=True)
class RunFiles:
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
            return " + ".join(run["label"] for run in self.config["runs"] if run["weight"])
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
    def members(self) -> list[Self]:
        """The runs of an ensemble, or those that it combines, run directories below this one; otherwise none."""
        count = len(self.config["runs"]) if self.combined else self.config["fit"]["ensemble"] or 0
        return [type(self)(self.path / "members" / str(index)) for index in range(count)]

    def member_config(self, number: int) -> dict[str, Any]:
        """The ``config`` of an ensemble's member: that of a single fit with a seed of its own."""
        own = {"fit": self.config["fit"] | {"seed": self.config["fit"]["seed"] + number, "ensemble": None}}
        if self.teacher is not None:
            own["unlabelled"] = self.config["unlabelled"] | {"teacher": f"../../{TEACHER}"}
        return self.config | own

    @property
    def teacher(self) -> Self | None:
        """The run of the round before, whose predictions this one learns from; None without self-training."""
        teacher = (self.config["unlabelled"] or {}).get("teacher")
        return type(self)(self.path / teacher) if teacher else None

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
                    f"it and run `textdiff fit --resume --run {quoted(self.path)}`, which makes it again"
                )

    @property
    def finished(self) -> bool:
        """Whether the fit came to its end."""
        return not self.unfinished()

    @property
    def digest(self) -> str:
        """The SHA-256 of the weights selected, or of those of all members; empty while the fit has not finished."""
        if self.unfinished():
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
        return f"`textdiff score --run {quoted(self.path)}{'' if split == 'test' else f' --split {split}'}`"

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

    def unfinished(self) -> list[Path]:
        """The directories, its own or those of its members, of which the fit has not come to its end."""
        # A member that was never started has no config.json that could be asked.
        if self.combined:
            return [path for member in self.members for path in member.unfinished()]
        paths = [run.path for run in self.members or [self]]
        return [path for path in paths if not (path / "head.safetensors").exists()]


def of_split(split: str) -> str:
    """What follows in names of files that are of a split; nothing for the test images."""
    return "" if split == "test" else f"-{split}"
