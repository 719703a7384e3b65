"""Stage two: begins a run on what a cache holds and trains its network, or goes on with one that was stopped."""

__all__ = ["FitConfig", "begin", "fit", "fit_or_resume", "initial_network", "resume"]

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from textdiff import console
from textdiff.errors import UserError, quoted
from textdiff.files import sha256_file
from textdiff.models.device import choose_device
from textdiff.models.networks.models import get_model
from textdiff.models.networks.segmenter import Segmenter
from textdiff.options.fit import Fit, FitConfig
from textdiff.pipeline.evaluation.calibration import Calibration, calibrate
from textdiff.pipeline.runs import TEACHER, Run, new_run_dir, point_latest, write_config
from textdiff.pipeline.training.begin import begin
from textdiff.pipeline.training.self_training import forget_soft_labels
from textdiff.pipeline.training.train import train_many
from textdiff.places import Location, located
from textdiff.stopping import say_how_to_go_on


def fit(config: FitConfig, runs: Path) -> Path:
    """Fits a network and returns its run directory, ``runs/<cache>-<time>/``.

    Adam and cross-entropy + 1.5 x Dice; the rest is as the recipe says. Where there are no validation images the last
    weights are kept; test images are never looked at.

    Raises:
        UserError: bad options, or a cache that cannot be fitted.
        KeyboardInterrupt: stopped; :func:`resume` goes on from the last checkpoint.
    """
    return resume(_begin_latest(config, runs))


def fit_or_resume(options: Fit) -> Run:
    """Fits a network, or with ``resume`` goes on with a fit that was stopped.

    Returns:
        The finished run.

    Raises:
        UserError: bad options, a cache that cannot be fitted, or nothing to resume.
        KeyboardInterrupt: stopped; ``resume`` goes on from the last checkpoint.
    """
    if options.resume:
        cache = None if options.cache is None else located(options.cache)
        run = Run(options.directory())
        _check_own(options, run)
        return Run(resume(run, options.device if options.device != "auto" else None, cache))
    run = _begin_latest(options.part(FitConfig), Path(options.runs))
    say_how_to_go_on("with --resume, which goes on from the last checkpoint")
    return Run(resume(run))


def _begin_latest(config: FitConfig, runs: Path) -> Run:
    run = begin(config, partial(new_run_dir, runs))
    point_latest(run.path)
    return run


def _check_own(options: Fit, run: Run) -> None:
    """Refuses options that a resumed fit, which goes on with its own, would pass over in silence."""
    own, usual = run.config["fit"], FitConfig()
    for name in (field.name for field in fields(FitConfig) if field.name not in ("cache", "device")):
        given = getattr(options, name)
        # None and auto leave it to the program, which has chosen.
        if given in (None, "auto") or (given == getattr(usual, name) and name not in options.explicit):
            continue
        # This is how they are recorded.
        if name == "pretrained":
            kept: Any = str(Path(given).resolve())
        elif name == "window":
            kept = given or None
        else:
            kept = list(given) if isinstance(given, tuple) else given
        if kept != own.get(name):
            flag = f"--{name.replace('_', '-')}"
            begun = "without" if own.get(name) is None else f"with {own[name]}"
            raise UserError(
                f"{flag}: {run.path} was begun {begun}, and --resume goes on with its own options; leave {flag} out, "
                "or fit anew without --resume"
            )


def resume(run: Run, device: str | None = None, cache: Location | None = None) -> Path:
    """Continues a fit that was stopped or killed, to the weights it would have had without that.

    What validation images say of its probabilities comes last, and is all that is done for a run that lacks only that.

    Args:
        run: a run that is not finished.
        device: to compute on; by default the one it was begun on.
        cache: where the run's cache is now, if it was moved.

    Raises:
        UserError: the run is finished already, or its cache is not as it was.
    """
    finished = run.finished
    if finished and not Calibration.wanted(run):
        raise UserError(f"{run.path}: finished already; `textdiff score --run {quoted(run.path)}` scores it")
    device = device or run.config["fit"]["device"]
    if not finished:
        _finish(run, device, cache)
    calibrate(run, run.open_cache(cache), choose_device(device))
    return run.path


def _finish(run: Run, device: str, cache: Location | None) -> None:
    """Fits what is left of a run, those that it consists of or learns from included."""
    _fit_teacher(run, device, cache)
    if run.members:
        _fit_members(run, device, cache)
    else:
        opened = run.open_cache(cache)
        run.check_unchanged(opened)
        train_many([(run, initial_network(run))], opened, choose_device(device))
    if run.teacher == Run(run.path / TEACHER):  # the members of an ensemble share theirs
        forget_soft_labels(run)


def initial_network(run: Run) -> Segmenter:
    """The network of a run as it is before the first step: determined by the options and the seed."""
    torch.manual_seed(run.config["fit"]["seed"])
    network = get_model(run.config["model"])(**run.config["head"])
    if (path := run.config["fit"]["pretrained"]) and not (run.path / "last.pt").exists():
        if sha256_file(Path(path)) != run.config["pretrained_sha256"]:
            raise UserError(f"{path}: not the weights that {run.path} was begun with; put the file back, or fit again")
        network.load_pretrained(Path(path))
    return network


def _fit_teacher(run: Run, device: str, cache: Location | None) -> None:
    """Fits the run whose predictions another learns from, if it is not finished."""
    teacher = run.teacher
    if teacher is None or teacher.path != run.path / TEACHER:
        return
    if not (teacher.path / "config.json").is_file():
        teacher.path.mkdir(exist_ok=True)
        write_config(teacher, run.teacher_config())
    elif teacher.config != run.teacher_config():
        raise UserError(
            f"{teacher.path}: not the fit that {run.path} learns from, but another; remove it and run `textdiff fit "
            f"--resume --run {quoted(run.path)}`, which makes it again"
        )
    if not teacher.finished:
        console.info(f"{teacher.path}: is the fit that says something of the images without labels")
        _finish(teacher, device, cache)


def _fit_members(run: Run, device: str, cache: Location | None) -> None:
    """Fits the members of an ensemble that are not finished, each like a single fit with a seed of its own."""
    run.check_members()
    for number, member in enumerate(run.members):
        if not (member.path / "config.json").is_file():
            write_config(member, run.member_config(number))
        if not member.finished:
            console.info(f"{member.path}: is member {number + 1} of {len(run.members)}")
            _finish(member, device, cache)
