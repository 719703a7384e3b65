"""A small cache that the cache tests share, and processes that write to it and are killed."""

import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from textdiff.cache import FeatureCache, Row
from textdiff.cache.staging import staging

BLOCKS = {12: (5, 8, 8), 6: (8, 2, 2), 8: (6, 4, 4)}
STEPS = (50, 150, 250)
SIZE = 16
# Few files, so that a process can be killed at each of them in little time.
SMALL = {"blocks": {8: (6, 4, 4)}, "steps": (50, 150)}
TEXTS = ["one nucleus", "many nuclei, densely packed", "Läsionen: 3 µm"]
FINGERPRINT = {"dtype": "float16", "blocks": [6, 8, 12], "unet": {"heads": 4}, "weights": "ab" * 32, "size": SIZE}
TOKENS = np.random.default_rng(1).standard_normal((3, 5, 7), dtype=np.float32)
TOKEN_MASK = np.arange(5)[None] < np.array([[2], [5], [3]])


def make_rows() -> list[Row]:
    """Seven rows: an image in two views, one without a mask, one without a text, different sizes."""
    rows = []
    for number, (split, view, text, masked) in enumerate(
        [
            ("train", 0, 0, True),
            ("train", 1, 0, True),
            ("train", 0, 1, True),
            ("val", 0, 2, True),
            ("val", 0, 1, False),
            ("test", 0, -1, True),
            ("test", 0, 2, True),
        ]
    ):
        name = f"image {number - view}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        height, width = 20 + number - view, 33 - number + view
        rows.append(
            Row(name, split, view, text, f"{name}.png", digest, digest[::-1] if masked else None, height, width)
        )
    return rows


def make(path: Path, **changed) -> FeatureCache:
    options = {
        "fingerprint": FINGERPRINT,
        "rows": make_rows(),
        "blocks": BLOCKS,
        "steps": STEPS,
        "image_size": SIZE,
        "texts": TEXTS,
        "tokens": TOKENS,
        "token_mask": TOKEN_MASK,
        "about": {"dataset": "tiny"},
    }
    return FeatureCache.create(path, **(options | changed))


def arrays(cache: FeatureCache, row: int) -> dict:
    """The arguments of ``write`` for a row, always the same."""
    rng, entry, size = np.random.default_rng([7, row]), cache.rows[row], cache.image_size
    return {
        "features": {
            block: rng.standard_normal((len(cache.steps), *shape), dtype=np.float32)
            for block, shape in cache.blocks.items()
        },
        "image": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "mask": rng.integers(0, 2, (size, size), dtype=np.uint8) if entry.has_mask else None,
        "truth": rng.integers(0, 2, (entry.height, entry.width), dtype=np.uint8) if entry.has_truth else None,
    }


def fill(cache: FeatureCache, rows=None) -> FeatureCache:
    for row in cache.pending() if rows is None else rows:
        cache.write(row, **arrays(cache, row))
    return cache


def tree(path: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def in_child(function: Callable[[], object], kill_at: int | None = None) -> int:
    """Starts a process that calls ``function``; returns its id.

    With ``kill_at=n`` it kills itself at the n-th time it opens, makes, renames or removes a file of a cache.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if kill_at is not None:
            left = [kill_at]

            def hook(event: str, args: tuple) -> None:
                if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and ".zarr" in str(args[0]):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Waits for a process; 0 if it succeeded, -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left_by_the_dead(parent: Path, name: str) -> Path:
    """What a killed process leaves of ``staging``, which nothing holds."""
    with staging(parent, name) as path:
        pass
    (path / "new").mkdir(parents=True)
    return path
