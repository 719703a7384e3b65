"""Experiments: a directory with a list of jobs, each of them one run and its scores, in a run directory of its own."""

__all__ = [
    "FILE",
    "Experiment",
    "Job",
    "Plan",
    "check_plan",
    "fit_options",
    "make_job",
    "open_experiment",
    "plan_experiment",
]

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.evaluate import SCHEMA as SCORES_SCHEMA
from textdiff.files import write_json
from textdiff.models.networks.models import check_mean_teacher
from textdiff.pipeline.fit import FitConfig
from textdiff.pipeline.runs import Run
from textdiff.places import Location, located
from textdiff.readers.presets import name_of_data

SCHEMA = 1
FILE = "experiment.json"


@dataclass(frozen=True)
class Job:
    """One fit, or the mean of other runs. Its run directory is called like it."""

    name: str
    point: dict[str, Any]
    """Where its scores belong, as in ``{"variant": "full", "labels": 5}``; its runs differ by draw and seed."""
    group: str
    """Jobs of a group are done by one process, side by side where they see the same images in the same order."""
    fit: dict[str, Any]
    """The fields of its ``FitConfig``; of a mean they say only labels, draw, seed and device."""
    members: Sequence[str] = ()
    """The runs that it is the mean of, by their paths from the experiment's directory; none of a fit."""

    @property
    def config(self) -> FitConfig:
        """The options to fit with."""
        return FitConfig(**(self.fit | {"cache": located(self.fit["cache"])}))

    @property
    def draw(self) -> int:
        """Which draw of training images."""
        draw = self.fit["draw_seed"]
        return int(self.fit["seed"] if draw is None else draw)

    @property
    def seed(self) -> int:
        """The seed of the weights and the order."""
        return int(self.fit["seed"])


@dataclass(frozen=True)
class Plan:
    """What an experiment is to consist of."""

    kind: str
    """The command: ``ablate``, ``table1``, ``sweep`` or ``curve``."""
    options: dict[str, Any]
    """All that determines the jobs, JSON-able."""
    split: str
    """The images that every run is scored on."""
    jobs: list[Job]


@dataclass(frozen=True)
class Experiment:
    """A plan in its directory."""

    path: Path
    plan: Plan
    cache: Location
    fingerprint_hash: str
    dataset: str
    threads: int
    """The threads of each process: with another number the last digits of a fit would differ."""
    table_hash: str | None
    """The hash of the cache's samples and texts."""

    def run(self, job: Job) -> Run:
        """The run directory of a job."""
        return Run(self.path / job.name)

    def scores_file(self, job: Job) -> Path:
        """The job's scores image by image; a job is done once it is there, unless an earlier version made it."""
        return self.path / job.name / f"images-{self.plan.split}.json"

    def scored_before(self, job: Job) -> bool:
        """Whether a job's scores are of an earlier version, so that it is to be scored anew; its fit stays as it is."""
        try:
            with self.scores_file(job).open("rb") as file:
                # The schema comes first: hundreds of files are asked, again and again.
                schema = re.match(rb'\s*\{\s*"schema":\s*(\d+)', file.read(64))
        except FileNotFoundError:
            return False
        return schema is not None and int(schema[1]) < SCORES_SCHEMA

    def missing(self) -> list[Job]:
        """The jobs that are not done, in the order of the plan."""
        return [
            job
            for job in self.plan.jobs
            if not self.scores_file(job).is_file() or self.scored_before(job) or self.outdated(job)
        ]

    def outdated(self, job: Job) -> bool:
        """Whether a job is a mean, and one of its runs has been fitted anew since, to other weights."""
        mean = self.run(job)
        if not job.members or not mean.path.exists():
            return False
        made = (mean.path / "config.json").stat().st_mtime_ns
        for place, then in zip(job.members, mean.config["runs"], strict=True):
            member = Run(self.path / place)
            begun = member.path / "config.json"
            # Weights are read only where there is a reason to: there can be hundreds of files of 100 MB.
            if begun.is_file() and begun.stat().st_mtime_ns > made and member.digest != then["digest"]:
                return True
        return False

    def open_cache(self) -> FeatureCache:
        """The cache of all its runs.

        Raises:
            UserError: it is not there, or no longer the one the experiment was begun with.
        """
        cache = FeatureCache.open(self.cache)
        if cache.fingerprint_hash != self.fingerprint_hash:
            raise UserError(
                f"{self.cache}: its features were made otherwise than when {self.path} was begun; "
                "give the experiment another --name"
            )
        if self.table_hash not in (None, cache.table_hash):
            raise UserError(
                f"{self.cache}: its images, masks or texts have changed since {self.path} was begun: its runs would "
                "not be comparable; give the experiment another --name"
            )
        return cache


def make_job(name: str, point: Mapping[str, Any], group: str, config: FitConfig, members: Sequence[str] = ()) -> Job:
    """A job with its options in the form that is written down.

    Raises:
        UserError: options that no run could begin with.
    """
    check_mean_teacher(config)
    return Job(name, dict(point), group, asdict(config) | {"cache": str(config.cache)}, members)


def plan_experiment(path: Path, plan: Plan, cache: FeatureCache, threads: int, grow: bool = True) -> Experiment:
    """Writes the list of jobs at ``path``, or opens the one that is there.

    An experiment may grow: where all its jobs are in the plan as they are, those that the plan has beyond them (more
    draws or seeds, another variant) are added.

    Args:
        path: the experiment's directory.
        plan: what it is to consist of.
        cache: of all its runs.
        threads: of each process; an experiment that is there keeps its own.
        grow: whether jobs may be added; else a longer plan is refused like any other.

    Raises:
        UserError: an experiment with other options is there; names what differs.
    """
    if (path / FILE).exists():
        found, added = check_plan(path, plan, cache, grow)
        if not added:
            return found
        console.info(f"{path}: has {console.counted(len(added), 'job')} more than the {len(found.plan.jobs)} it had")
        threads, table_hash = found.threads, found.table_hash
    else:
        table_hash = cache.table_hash
    record = {
        "schema": SCHEMA,
        "kind": plan.kind,
        "options": plan.options,
        "split": plan.split,
        "cache": str(cache.path.resolve()),
        "fingerprint_hash": cache.fingerprint_hash,
        "table_hash": table_hash,
        "dataset": name_of_data(cache.about),
        "threads": threads,
        "jobs": [asdict(job) for job in plan.jobs],
    }
    write_json(path / FILE, record)
    return open_experiment(path)


def check_plan(path: Path, plan: Plan, cache: FeatureCache, grow: bool = True) -> tuple[Experiment, list[Job]]:
    """The experiment at ``path``, and the jobs that ``plan`` has beyond it; otherwise as ``plan_experiment``."""
    found = open_experiment(path)
    added = _added(found, plan) if grow else []
    # The options that say how many jobs there are, not what a job is.
    sizes = [name for name in plan.options if not name.startswith("fit.")] if added else []
    if differing := _differing(found, plan, cache, but=sizes):
        raise UserError(
            f"{path}: begun with other options ({'; '.join(differing)}); repeat them, or give another --name"
        )
    return found, added


def open_experiment(path: Path) -> Experiment:
    """The experiment at ``path``.

    Raises:
        UserError: there is none, or its list of jobs is damaged or of another version.
    """
    file = path / FILE
    if not file.is_file():
        raise UserError(f"{path}: no {FILE} there; name a directory that ablate, table1, sweep or curve made")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise UserError(f"{file}: of schema {record['schema']}, and this TextDiff reads {SCHEMA}")
        known = {field.name for field in fields(FitConfig)}
        jobs = [Job(**job) for job in record["jobs"]]
        strange = sorted({name for job in jobs for name in job.fit} - known)
        if strange:
            raise UserError(f"{file}: made by a newer TextDiff, it has the options {', '.join(strange)}")
        plan = Plan(record["kind"], record["options"], record["split"], jobs)
        return Experiment(
            path,
            plan,
            located(record["cache"]),
            record["fingerprint_hash"],
            record["dataset"],
            record["threads"],
            record.get("table_hash"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: damaged ({error}); restore it, or begin again with another --name") from None


def _added(found: Experiment, plan: Plan) -> list[Job]:
    """The jobs that ``plan`` has and ``found`` has not, if it has those of ``found`` as they are; otherwise none."""
    before = {job.name: _essence(job) for job in found.plan.jobs}
    now = {job.name: _essence(job) for job in plan.jobs}
    if any(now.get(name) != essence for name, essence in before.items()):
        return []
    return [job for job in plan.jobs if job.name not in before]


def _essence(job: Job) -> tuple[str, str, str, str]:
    """What makes a job the same as another one; that both are of the same cache is seen elsewhere."""
    # An option that is younger than the experiment had its default then.
    defaults = {field.name: field.default for field in fields(FitConfig)}
    return job.group, _shown(job.point), _shown(defaults | job.fit | {"cache": None}), _shown(job.members)


def _differing(found: Experiment, plan: Plan, cache: FeatureCache, but: Collection[str] = ()) -> list[str]:
    """``name: value before, now value`` of everything that is not as it was, ``but`` for these options."""
    defaults = {f"fit.{field.name}": field.default for field in fields(FitConfig)}
    # An option that is younger than the experiment had its default then.
    before = defaults | found.plan.options | {"kind": found.plan.kind, "split": found.plan.split}
    now = defaults | plan.options | {"kind": plan.kind, "split": plan.split}
    before |= {"cache": str(found.cache), "the cache's features": found.fingerprint_hash[:12]}
    now |= {"cache": str(cache.path.resolve()), "the cache's features": cache.fingerprint_hash[:12]}
    if found.table_hash is not None:
        before["the cache's images and texts"] = found.table_hash[:12]
        now["the cache's images and texts"] = cache.table_hash[:12]
    names = [name for name in dict.fromkeys([*before, *now]) if name not in but]
    # As JSON, in which a tuple and a list are the same.
    return [
        f"{name.removeprefix('fit.')}: {_shown(before.get(name))} before, now {_shown(now.get(name))}"
        for name in names
        if _shown(before.get(name)) != _shown(now.get(name))
    ]


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)


def fit_options(config: FitConfig, varied: Iterable[str]) -> dict[str, Any]:
    """The options all jobs share, as ``fit.<name>``: those of ``config`` but for the ones that vary between jobs."""
    left_out = {"cache", *varied}
    return {f"fit.{name}": value for name, value in asdict(config).items() if name not in left_out}
