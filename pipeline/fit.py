"""Stage two: draws the training images, makes a run directory and trains a head on the cached activations."""

__all__ = ["FitConfig", "fit", "resume"]

import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import textdiff
from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.files import write_json
from textdiff.pipeline.device import choose_device, describe_device, resolve_precision
from textdiff.pipeline.head import Head
from textdiff.pipeline.protocol import get_protocol
from textdiff.pipeline.runs import Run, new_run_dir, point_latest
from textdiff.pipeline.train import train
from textdiff.pipeline.variants import check_variant, head_variant

REFERENCE_WIDTH = 768


@dataclass(frozen=True)
class FitConfig:
    """The options of one fit. ``None`` means: from the protocol, the cache or the data."""

    cache: Path
    labels: int | None = None
    """Number of training images drawn; all of them by default."""
    seed: int = 0
    """Of the draw of training images, the initial weights, the order, the views and the shuffled texts."""
    variant: str = "full"
    protocol: str = "clean"
    epochs: int | None = None
    learning_rate: float = 1e-4
    decay_epoch: int = 60
    """The learning rate is divided by ten from this epoch on."""
    batch_size: int = 1
    dice_weight: float = 1.5
    width: int | None = None
    """Channels of the attention block: 768 for the paper's backbone, three times the narrowest level for small ones."""
    patience: int | None = None
    """Stop after this many epochs without a better validation Dice; never by default."""
    precision: str = "auto"
    device: str = "auto"


def fit(config: FitConfig, runs: Path) -> Path:
    """Fits a head and returns its run directory, ``runs/<dataset>-<time>/``.

    Adam at 1e-4, divided by ten from epoch 60; cross-entropy + 1.5 x Dice. The head that is kept is the best on the
    validation images, or the last where there are none; test images are never looked at.

    Raises:
        UserError: bad options, or a cache that cannot be fitted.
        KeyboardInterrupt: stopped; :func:`resume` goes on from the last checkpoint.
    """
    _check(config)
    cache = FeatureCache.open(config.cache)
    check_variant(config.variant, cache)
    device = choose_device(config.device)
    epochs = config.epochs or get_protocol(config.protocol).epochs
    config = replace(config, epochs=epochs, precision=resolve_precision(config.precision, device))
    channels = [c for c, _, _ in cache.blocks.values()]
    train_ids, val_ids = _draw(cache, config.labels, config.seed)
    torch.manual_seed(config.seed)
    head = Head(
        channels,
        len(cache.steps),
        cache.text_dim or REFERENCE_WIDTH,
        width=config.width or min(REFERENCE_WIDTH, len(cache.steps) * min(channels)),
        image_size=cache.image_size,
        variant=head_variant(config.variant),
    )
    run = Run(new_run_dir(runs, str(cache.about.get("dataset", "run"))))
    record = {
        "schema": 1,
        "fit": asdict(config) | {"cache": str(config.cache)},
        "head": head.config,
        "parameters": sum(parameter.numel() for parameter in head.parameters()),
        "cache": str(config.cache.resolve()),
        "about": cache.about,
        "fingerprint": cache.fingerprint,
        "fingerprint_hash": cache.fingerprint_hash,
        "train_ids": train_ids,
        "val_ids": val_ids,
        "device": describe_device(device),
        "versions": _versions(),
        "git": _git_revision(),
        "command": sys.argv,
    }
    write_json(run.path / "config.json", record)
    point_latest(run.path)
    return train(run, cache, head, device)


def resume(run: Run, device: str | None = None) -> Path:
    """Continues a fit that was stopped or killed, to the weights it would have had without that.

    Raises:
        UserError: the run is finished already, or its cache is not as it was.
    """
    if run.finished:
        raise UserError(f"{run.path}: finished already; `textdiff score --run {run.path}` scores it")
    cache = run.open_cache()
    torch.manual_seed(run.config["fit"]["seed"])
    head = Head(**run.config["head"])
    return train(run, cache, head, choose_device(device or run.config["fit"]["device"]))


def _draw(cache: FeatureCache, labels: int | None, seed: int) -> tuple[list[str], list[str]]:
    """The ids to train on and to select by: only images with a mask whose rows are in the cache."""
    done = cache.done()
    ids: dict[str, set[str]] = {"train": set(), "val": set()}
    missing: set[str] = set()
    for row, entry in enumerate(cache.rows):
        if entry.split in ids and entry.mask_sha256 is not None:
            (ids[entry.split] if done[row] else missing).add(entry.id)
    if missing:
        raise UserError(
            f"{cache.path}: not complete, {len(missing)} annotated train or val images have rows to do; "
            "run the same `textdiff extract` again to finish it"
        )
    available = sorted(ids["train"])
    if not available:
        raise UserError(f"{cache.path}: no training image has a mask, so there is nothing to fit")
    if labels is not None and labels > len(available):
        raise UserError(
            f"--labels {labels}: the cache has {len(available)} annotated training images; use 1..{len(available)}"
        )
    if labels is not None:
        drawn = np.random.default_rng([seed, 0xD4A]).choice(len(available), size=labels, replace=False)
        available = [available[index] for index in sorted(drawn)]
    return available, sorted(ids["val"])


def _check(config: FitConfig) -> None:
    get_protocol(config.protocol)
    for name, value in (
        ("labels", config.labels),
        ("epochs", config.epochs),
        ("batch-size", config.batch_size),
        ("width", config.width),
        ("patience", config.patience),
    ):
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be at least 1")
    if not 0 < config.learning_rate < 1:
        raise UserError(f"--learning-rate {config.learning_rate}: must be between 0 and 1; the paper's is 1e-4")


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "zarr", "transformers")
    return {
        "textdiff": textdiff.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _git_revision() -> str | None:
    """The revision of the checkout that TextDiff runs from, with ``+`` for uncommitted changes; none when installed."""
    where = Path(textdiff.__file__).parent
    if not (where / ".git").exists():
        return None
    try:
        revision, status = (
            subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        console.warn(f"{where}: git does not answer, so the run does not record the revision")
        return None
    return revision + ("+" if status else "")
