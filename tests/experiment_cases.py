"""A cache of random activations that heads are fitted on in seconds, and an experiment whose scores are made up."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from textdiff.cache import FeatureCache, Row
from textdiff.experiments.experiment import Plan, make_job, plan_experiment
from textdiff.pipeline.fit import FitConfig

BLOCKS = {6: (6, 8, 8), 8: (4, 16, 16)}
STEPS = (50, 150)
SIZE = 32
SPLITS = {"train": 5, "val": 1, "test": 4}
FITS = ("--epochs", "2", "--learning-rate", "1e-3", "--batch-size", "2", "--set", "width=8", "--device", "cpu")


def make_cache(path: Path, silent: bool = False) -> FeatureCache:
    """Five training, one validation and four test images of 32 x 32, with texts or ``silent``; features know some."""
    rng = np.random.default_rng(0)
    names = [(split, f"{split} {number}") for split, count in SPLITS.items() for number in range(count)]
    rows = []
    for number, (split, name) in enumerate(names):
        digest = hashlib.sha256(name.encode()).hexdigest()
        text = -1 if silent else number % 3
        rows.append(Row(name, split, 0, text, f"{name}.png", digest, digest[::-1], SIZE, SIZE))
    tokens = rng.standard_normal((3, 4, 8), dtype=np.float32)
    token_mask = np.arange(4)[None] < np.array([[2], [4], [3]])
    texts = {"texts": ["few", "some", "many"], "tokens": tokens, "token_mask": token_mask}
    cache = FeatureCache.create(
        path,
        fingerprint={"dtype": "float16", "made": "up"},
        rows=rows,
        blocks=BLOCKS,
        steps=STEPS,
        image_size=SIZE,
        **({"texts": ()} if silent else texts),
        about={"dataset": "made-up", "backbone": "none", "text_encoder": "none"},
    )
    for row in range(len(rows)):
        mask = np.kron(rng.random((4, 4)) < 0.4, np.ones((8, 8))).astype(np.uint8)
        features = {
            block: rng.normal(size=(len(STEPS), C, h, w)) + np.kron(mask[:: SIZE // h, :: SIZE // w], np.ones((1, 1)))
            for block, (C, h, w) in BLOCKS.items()
        }
        image = (200 - 100 * mask[..., None] + rng.integers(0, 20, (SIZE, SIZE, 3))).astype(np.uint8)
        cache.write(row, features, image, mask, mask)
    return FeatureCache.open(path)


def fake_experiment(path: Path, cache: FeatureCache, methods=("full", "no-text", "a_b&c"), draws=3, seeds=2):
    """An experiment of ``ablate`` without fits: ``no-text`` is 5 points below ``full``, the last is noise."""
    config = FitConfig(cache=cache.path, labels=2)
    jobs = [
        make_job(
            f"{method}-d{draw}-s{seed}",
            {"method": method, "labels": 2},
            f"d{draw}-s{seed}",
            FitConfig(cache=cache.path, labels=2, draw_seed=draw, seed=seed),
        )
        for seed in range(seeds)
        for draw in range(draws)
        for method in methods
    ]
    plan = Plan("ablate", {"labels": 2, "fit.epochs": config.epochs}, "test", jobs)
    experiment = plan_experiment(path, plan, cache, 1)
    rng = np.random.default_rng(3)
    base = {(draw, seed): 0.7 + rng.normal(0, 0.05, 6) for draw in range(draws) for seed in range(seeds)}
    for job in jobs:
        values = base[job.draw, job.seed]
        if job.point["method"] == "no-text":
            values = values - 0.05
        elif job.point["method"] != "full":
            values = values + rng.normal(0, 0.05, 6)
        scores = {
            f"{metric}_{truth}": list(values)
            for metric in ("dice", "iou", "dice_present", "iou_present", "area")
            for truth in ("clean", "paper", "original")
        }
        file = experiment.scores_file(job)
        file.parent.mkdir(parents=True)
        record = {"schema": 3, "split": "test", "classes": ["foreground"], "views": 1, "ids": list("abcdef")}
        facts = {name: [name, name, None, 1] for name in "abcdef"}
        file.write_text(json.dumps(record | {"groups": [""] * 6, "facts": facts, "scores": scores}))
    return experiment


def ablate_options(variants: str = "full,shuffled-text") -> list[str]:
    """Two draws and two seeds of heads that are fitted in a moment."""
    return ["--labels", "2", "--draws", "2", "--seeds", "2", "--variants", variants, "--no-unet", *FITS]


def ablate(root: Path, cache: FeatureCache, options: list[str], textdiff_once: Callable) -> Path:
    """An experiment below ``root``, in one process of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    textdiff_once(root, "ablate", "--cache", str(cache.path), *options, "--jobs", "1")
    torch.set_num_threads(threads)
    return root / f"runs/ablate-{cache.path.stem}"


def assert_equal_runs(one: Path, other: Path) -> None:
    """They have the same weights to the bit."""
    left, right = (load_file(path / "head.safetensors") for path in (one, other))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
