"""What it costs to verify a cache and to have rows outlast a loss of power, against the plain ways.

    python benchmarks/verify.py [--rows 24] [--size 256] [--rounds 5] [--folder DIR]

Makes a cache of random activations in the sizes of the paper's network, in proportion to ``--size``. Then, in turn in
each round: `cache verify`; `xargs -P cores sha256sum` and one `sha256sum` over the same files, which the round before
has left in memory; a row written with and without `--durable`. Times are ratios within one run. The best round counts.
Rows are written to ``--folder``, whose disk is the one that is measured. Prints Markdown and keeps the numbers in
results/verify.json.
"""

import argparse
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from textdiff import console
from textdiff.benchmarks.common import keep, monuseg_blocks, random_cache, random_row
from textdiff.cache import FeatureCache, verify_cache
from textdiff.tables import markdown_table

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(cache: FeatureCache, rows: range) -> float:
    """Writes rows of one row's random activations; seconds."""
    features, *pixels = random_row(cache, np.random.default_rng(0))
    halves = {block: grid.astype(np.float16) for block, grid in features.items()}
    start = time.perf_counter()
    for row in rows:
        cache.write(row, halves, *pixels)
    return time.perf_counter() - start


def verify(cache: FeatureCache) -> float:
    """Seconds that `cache verify` takes."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        assert verify_cache(cache.path) == []
    return time.perf_counter() - start


def sha256sum(files: list[Path], processes: int) -> float:
    """Seconds that ``sha256sum`` takes, with so many processes at a time."""
    command = ["xargs", "-0", "-n", str(max(1, len(files) // (8 * processes))), "-P", str(processes), "sha256sum"]
    start = time.perf_counter()
    subprocess.run(command, input="\0".join(map(str, files)).encode(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def openssl(files: list[Path]) -> float:
    """Seconds that SHA-256 takes as OpenSSL has it, which may use the processor's own instructions; a thread a core."""

    def digest(path: Path) -> None:
        with path.open("rb", buffering=0) as file:
            hashlib.file_digest(file, "sha256")

    start = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(digest, files))
    return time.perf_counter() - start


def main() -> None:
    """Prints the tables and writes them down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="height and width of the images in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="a directory on the disk that is to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # Blocks 6, 8, 12 and 16 of the 256x256 network at 256.
        blocks = monuseg_blocks(options.size, 256)
        cache = random_cache(Path(folder) / "cache.zarr", options.rows, options.size, blocks)
        part = max(1, options.rows // 4)
        fill(cache, range(options.rows))
        durable = FeatureCache.open(cache.path, writable=True)
        durable.make_durable()
        files = sorted(path for path in cache.path.rglob("c.*") if path.is_file())
        nbytes = sum(path.stat().st_size for path in files)
        ways: dict[str, Callable[[], float]] = {
            "cache verify": lambda: verify(cache),
            f"sha256sum, {CORES} at a time": lambda: sha256sum(files, CORES),
            "sha256sum, one": lambda: sha256sum(files, 1),
            f"SHA-256 by OpenSSL, {CORES} threads": lambda: openssl(files),
            "write": lambda: fill(cache, range(part)),
            "write, durable": lambda: fill(durable, range(part)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        verify(cache)  # brings the files into memory
        with console.Progress(options.rounds * len(ways), "measure", "passes") as progress:
            for _ in range(options.rounds):
                for name, way in ways.items():
                    seconds[name].append(way())
                    progress.advance()
        row = cache.row_nbytes
    best = {name: min(found) for name, found in seconds.items()}
    first = best["cache verify"]
    print(f"{options.rows} rows of {console.size(row)}, {len(files)} chunks, {CORES} cores\n")
    lines = [
        (name, f"{best[name]:.2f}", f"{console.size(nbytes / best[name])}/s", f"{best[name] / first:.2f}")
        for name in list(ways)[:4]
    ]
    print(markdown_table(("reading all, files in memory", "seconds", "speed", "times verify's seconds"), lines, "lrrr"))
    lines = [
        (name, f"{best[name]:.2f}", f"{part / best[name]:.2f}", f"{best['write'] / best[name]:.2f}")
        for name in list(ways)[4:]
    ]
    print("\n" + markdown_table((f"writing {part} rows", "seconds", "rows/s", "of not durable"), lines, "lrrr"))
    about = {"cores": CORES, "python": sys.version.split()[0], "options": vars(options), "row_bytes": row}
    keep("verify", about | {"bytes": nbytes, "seconds": seconds})


if __name__ == "__main__":
    main()
