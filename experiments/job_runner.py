"""Does the jobs of an experiment, in this process: what a worker runs, with what this machine has room for."""

__all__ = ["JobRunner", "available_memory", "cores", "groups_to_do", "take_weights", "trained_alike"]

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from textdiff import console
from textdiff.cache import FeatureCache, Loader
from textdiff.errors import UserError
from textdiff.experiments.evaluate import evaluate
from textdiff.experiments.experiment import Experiment, Job
from textdiff.files import write_text
from textdiff.models.device import choose_device
from textdiff.models.networks.models import get_model
from textdiff.models.networks.segmenter import Segmenter
from textdiff.models.tensor_files import save_tensors
from textdiff.pipeline.combine import combine_runs
from textdiff.pipeline.fit import begin, initial_network, resume
from textdiff.pipeline.runs import IDENTITY, Run, write_config
from textdiff.pipeline.training.train import train_many
from textdiff.tables import csv_table

MEMORY_SHARE = 0.5
"""The share of the available memory, of the GPU or the machine, divided between the processes, for rows that stay."""


def groups_to_do(experiment: Experiment) -> dict[str, list[Job]]:
    """The jobs that are not done by group, in the order of the plan."""
    groups: dict[str, list[Job]] = {}
    for job in experiment.missing():
        groups.setdefault(job.group, []).append(job)
    return groups


class JobRunner:
    """Does groups of jobs one after the other, and keeps the rows it has read for the groups to come.

    Args:
        experiment: whose jobs.
        processes: how many share the memory of the GPU, or of the machine.
    """

    def __init__(self, experiment: Experiment, processes: int = 1) -> None:
        self.experiment, self.processes = experiment, processes
        self.cache = experiment.open_cache()
        self._reads: tuple[list[int], list[int]] | None = None
        self._loader: Loader | None = None

    def do(self, jobs: Sequence[Job]) -> list[str]:
        """Fits and scores what is missing of a group, going on where a killed process left it; then means of runs.

        Returns:
            What went wrong, one line for each set of jobs side by side of which one could not be fitted, and for each
            mean that could not be made.
        """
        beside: dict[tuple[object, ...], list[Job]] = {}
        fits = [job for job in jobs if not job.members]
        for job in fits:
            beside.setdefault((job.config.model, job.config.labels, job.draw, job.seed), []).append(job)
        heads = [job for job in fits if get_model(job.config.model).reads.activations]
        failures = []
        for together in beside.values():
            loader = self._reader(heads) if together[0] in heads else None
            try:
                self._together(together, loader)
            except UserError as error:
                failures.append(str(error))
        for job in jobs:
            try:
                if job.members:
                    self._mean(job)
            except UserError as error:
                failures.append(str(error))
        return failures

    def _mean(self, job: Job) -> None:
        run, device = self.experiment.run(job), choose_device(job.config.device)
        if self.experiment.outdated(job):
            shutil.rmtree(run.path)
        if not run.path.exists():
            members = [Run(self.experiment.path / member) for member in job.members]
            if absent := [member for member in members if not (member.path / "config.json").is_file()]:
                raise UserError(
                    f"{run.path}: has no mean, as {absent[0].path.name} could not be fitted; mend what hindered it, "
                    "and repeat the command"
                )
            # Under another name until it is whole: a run that is there is what it is to be.
            partial = run.path.with_name(f"{run.path.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            combine_runs(members, lambda: partial, device).path.rename(run.path)
        evaluate([run], self.cache, device, self.experiment.plan.split)

    def _together(self, jobs: Sequence[Job], loader: Loader | None) -> None:
        experiment, cache = self.experiment, self.cache
        job_device = jobs[0].config.device
        device = choose_device(job_device)
        runs = [experiment.run(job) for job in jobs]
        for job, run in zip(jobs, runs, strict=True):
            if not (run.path / "config.json").is_file():
                begin(job.config, lambda _, path=run.path: path)  # type: ignore[misc]
        try:
            fresh = [run for run in runs if not run.finished]
            alike = {run: other for run in fresh if (other := trained_alike(run, self._begun(jobs[0].group)))}
            training = [run for run in fresh if run not in alike]
            # None gets a temperature: no table depends on it, and each run would read the validation images by itself.
            if plain := [run for run in training if not run.config["unlabelled"]]:
                train_many([(run, initial_network(run)) for run in plain], cache, device, loader)
            for run in training:
                if run.config["unlabelled"]:  # it sees other images than those beside it, or learns after another fit
                    resume(run, job_device, cache.path)
            for run, other in alike.items():
                take_weights(run, initial_network(run), other)
        finally:
            # One that failed does not keep the others from being scored.
            fitted = [run for run in runs if run.finished]
            if fitted:
                evaluate(fitted, cache, device, experiment.plan.split, loader)

    def _begun(self, group: str) -> list[Run]:
        """The runs of a group that have begun, finished ones included."""
        runs = [self.experiment.run(job) for job in self.experiment.plan.jobs if job.group == group]
        return [run for run in runs if (run.path / "config.json").is_file()]

    def _reader(self, jobs: Sequence[Job]) -> Loader:
        """A loader of all blocks and steps that these jobs read, or the one there is."""
        blocks = sorted({block for job in jobs for block in job.fit["blocks"] or self.cache.blocks})
        steps = [s for s in self.cache.steps if any(s in (job.fit["steps"] or self.cache.steps) for job in jobs)]
        if self._loader is None or self._reads != (blocks, steps):
            self._loader = None  # its memory goes before the next one takes its own
            device = choose_device(jobs[0].config.device)
            budget = self.budget(self.cache, blocks, device)
            self._loader = Loader(self.cache, device, blocks=blocks, steps=steps, budget_bytes=budget)
            self._reads = blocks, steps
        return self._loader

    def budget(self, cache: FeatureCache, blocks: Sequence[int], device: torch.device) -> int | None:
        """Memory for rows on the device: all that are ever asked for, if there is room."""
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
        if free is None:
            return None
        row = sum(cache.layout.block_nbytes(block) for block in blocks) + 8 * cache.image_size**2
        texts = (
            0 if cache.layout.tokens is None else 4 * len(cache.texts) * cache.layout.tokens[1] * (cache.text_dim or 0)
        )
        return int(min(len(cache.rows) * row + 2 * texts, free * MEMORY_SHARE / self.processes))


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that can still be used without swapping, a container's limit included; None where nobody says."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such files, or "max": no limit
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, min(limits)) if limits else None


def trained_alike(run: Run, others: Iterable[Run]) -> Run | None:
    """The run among ``others`` that is trained like ``run`` to the bit, and with batch normalisation; None without one.

    ``run`` is one that normalises each image by its own statistics only after training (``norms.OwnNorm``), and both
    keep their last weights: by the best validation Dice they would not keep those of the same epoch.
    """
    if run.config["head"].get("norm") != "own" or run.config["fit"]["select"] != "last":
        return None
    if run.config["unlabelled"]:
        return None  # its teacher says something else of images than the other's
    plain = (other for other in others if other.config["head"].get("norm") == "batch")
    return next((other for other in plain if _training(other) == _training(run)), None)


def take_weights(run: Run, network: Segmenter, other: Run) -> None:
    """Finishes ``run`` with the weights of ``other``, and says in its ``config.json`` whose they are.

    Its log has the other's losses, but no validation: that is of a network used otherwise.

    Args:
        run: one that :func:`trained_alike` gave ``other`` for.
        network: of ``run``; tells which of the other's tensors are weights and which are averages.
        other: a finished one.
    """
    weights = other.load_network().state_dict()
    write_config(run, run.config | {"weights_of": other.path.name})
    log = [{name: line[name] for name in ("lr", "loss", "seconds")} for line in other.log()]
    write_text(run.path / "log.csv", csv_table([{"epoch": epoch, **line} for epoch, line in enumerate(log, 1)]))
    # Last, because a run with weights is a finished one.
    own = {name: weights[name] for name in network.state_dict()}
    save_tensors(run.path / "head.safetensors", own, {IDENTITY: run.identity})
    (run.path / "last.pt").unlink(missing_ok=True)
    console.info(f"{run.path}: trained like {other.path.name}, so it has its weights")


def _training(run: Run) -> dict[str, Any]:
    """All that the weights depend on."""
    options = {name: value for name, value in run.config["fit"].items() if name != "recipe"}
    recipe = {name: value for name, value in run.config["recipe"].items() if name != "norm"}
    head = {name: value for name, value in run.config["head"].items() if name != "norm"}
    same = ("model", "cache", "fingerprint_hash", "train_ids", "val_ids", "images")
    return {"fit": options, "recipe": recipe, "head": head} | {name: run.config.get(name) for name in same}
