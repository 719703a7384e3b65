"""What the cache's guards cost: rows written, read and verified, against plain files of the same numbers.

    python benchmarks/write.py [--rounds 5] [--threads 1,2] [--scale 1] [--folder DIR]

A row has the sizes of adm-256's blocks on MoNuSeg, 141.6 MB in half precision. Plain is what one would write oneself:
PyTorch's cast and ``np.save``, ``np.load``, and for verifying SHA-256 over the files. Ours casts too, refuses what is
not finite, computes a crc32c of every chunk and an xxh3 of the row, and puts all in place in one step. The ways take
turns, the fastest round of each counts, and what is compared are ratios within the run: of the time that passed, and of
the processor's, which says more on a machine that others use. Prints Markdown and keeps the numbers in
results/write.json.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textdiff import console
from textdiff.benchmarks.common import STEPS, monuseg_blocks, random_cache
from textdiff.cache import FeatureCache
from textdiff.files import write_json
from textdiff.models.backbones.outbox import Outbox
from textdiff.models.device import describe_device
from textdiff.tables import markdown_table

HERE = Path(__file__).resolve().parent
SIZE = 256
CPU = torch.device("cpu")


def at_once(threads: int, work: Callable[[int], object]) -> None:
    """Does ``work`` on as many rows as there are threads, each in one."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


class Ways:
    """The same rows written, read and verified in our way and in the plain one."""

    def __init__(self, folder: Path, threads: int, scale: int) -> None:
        self.threads, self.plain = threads, folder / "plain"
        self.cache = random_cache(folder / "cache.zarr", threads, SIZE, monuseg_blocks(SIZE, 256 // scale), masks=False)
        grids = {block: torch.randn(1, len(STEPS), *shape) for block, shape in self.cache.blocks.items()}
        self.grids, self.image = grids, np.zeros((SIZE, SIZE, 3), np.uint8)
        one, many = (self.cache.blocks, len(STEPS), 1, torch.float16, CPU), range(threads)
        self.outboxes, self.casting = [Outbox(*one) for _ in many], [Outbox(*one, cast=True) for _ in many]
        for outbox in self.casting:
            outbox.send(grids)
        self.halves = {block: grid[0].half().numpy() for block, grid in grids.items()}
        self.read = [
            {block: np.empty(grid.shape[1:], np.float16) for block, grid in grids.items()} for _ in range(threads)
        ]

    def clear(self) -> None:
        """So that every round makes new files, which is what ``extract`` does."""
        self.cache.forget(range(self.threads))
        for block in self.cache.blocks:
            for file in (self.cache.path / f"features/b{block:02d}").glob("c.*"):
                file.unlink()
        shutil.rmtree(self.plain, ignore_errors=True)
        self.plain.mkdir()

    def write_ours(self) -> None:
        """As ``extract`` writes on a CPU."""

        def work(row: int) -> None:
            self.outboxes[row].send(self.grids)
            self.cache.write(row, self.outboxes[row].image(0), self.image)

        at_once(self.threads, work)

    def write_ours_cast_before(self) -> None:
        """What comes from another device, which has cast it and looked at it."""
        at_once(self.threads, lambda row: self.cache.write(row, self.casting[row].image(0), self.image))

    def write_plain_cast_before(self) -> None:
        """The same numbers."""

        def work(row: int) -> None:
            np.save(self.plain / f"{row}-image.npy", self.image)
            for block, grid in self.halves.items():
                for step, values in enumerate(grid):
                    np.save(self.plain / f"{row}-{block}-{step}.npy", values)

        at_once(self.threads, work)

    def write_plain(self) -> None:
        """PyTorch's cast, a file for every block and step."""

        def work(row: int) -> None:
            np.save(self.plain / f"{row}-image.npy", self.image)
            for block, grid in self.grids.items():
                for step, values in enumerate(grid[0]):
                    np.save(self.plain / f"{row}-{block}-{step}.npy", values.half().numpy())

        at_once(self.threads, work)

    def read_ours(self) -> None:
        """Every chunk and its checksum, as the loader reads, by a reader that has seen nothing yet."""
        cache = FeatureCache.open(self.cache.path)
        at_once(self.threads, lambda row: [cache.features(row, block, out) for block, out in self.read[row].items()])

    def read_plain(self) -> None:
        """The same numbers, into the same memory."""

        def work(row: int) -> None:
            for block, out in self.read[row].items():
                for step, grid in enumerate(out):
                    grid[...] = np.load(self.plain / f"{row}-{block}-{step}.npy", mmap_mode="r")

        at_once(self.threads, work)

    def verify_ours(self) -> None:
        """All rows; it must find them sound."""
        if faults := FeatureCache.open(self.cache.path).verify():
            raise SystemExit(str(faults[0]))

    def verify_plain(self) -> None:
        """SHA-256 over the files, one after the other as ``sha256sum`` does."""
        for file in self.plain.glob("*.npy"):
            hashlib.sha256(file.read_bytes()).hexdigest()


COMPARED = {
    "write, as extract does on a CPU": ("write_ours", "write_plain"),
    "write, cast by another device": ("write_ours_cast_before", "write_plain_cast_before"),
    "read": ("read_ours", "read_plain"),
    "verify": ("verify_ours", "verify_plain"),
}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that passed, and the processor's in all threads."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def measure(folder: Path, threads: int, rounds: int, scale: int) -> list[dict[str, Any]]:
    """A line for each comparison."""
    ways = Ways(folder, threads, scale)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for _ in range(rounds + 1):  # the first one allocates
        for what, (ours, plain) in COMPARED.items():
            if what.startswith("write"):
                ways.clear()
            for name in (ours, plain):
                now = timed(getattr(ways, name))
                before = best.get((what, name), (float("inf"),) * 2)
                best[what, name] = (min(now[0], before[0]), min(now[1], before[1]))
    nbytes = threads * ways.cache.row_nbytes
    lines = []
    for what, (ours, plain) in COMPARED.items():
        mine, theirs = best[what, ours], best[what, plain]
        lines.append(
            {
                "what": what,
                "threads": threads,
                "bytes": nbytes,
                "seconds": {"ours": mine[0], "plain": theirs[0]},
                "processor": {"ours": mine[1], "plain": theirs[1]},
                "speed_of_plain": theirs[0] / mine[0],
                "speed_of_plain_by_processor": theirs[1] / mine[1],
            }
        )
    return lines


def main() -> None:
    """Prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2", help="how many rows are written at once")
    parser.add_argument("--scale", type=int, default=1, help="divides the channels: smaller rows")
    parser.add_argument("--folder", type=Path, help="where to write; by default where temporary files are")
    parser.add_argument("--out", type=Path, default=HERE / "results/write.json")
    options = parser.parse_args()
    lines = []
    for threads in map(int, options.threads.split(",")):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            lines += measure(Path(folder), threads, options.rounds, options.scale)
    cells = [
        (
            f"{line['what']}, {line['threads']} at once",
            *(f"{console.size(line['bytes'] / line['seconds'][way])}/s" for way in ("ours", "plain")),
            f"{line['speed_of_plain']:.2f}",
            f"{line['speed_of_plain_by_processor']:.2f}",
        )
        for line in lines
    ]
    print(markdown_table(("what", "ours", "plain", "ratio", "by processor's time"), cells, "lrrrr"))
    about = {"torch": torch.__version__, "device": describe_device(CPU), "cores": os.cpu_count()}
    write_json(options.out, about | {"rounds": options.rounds, "scale": options.scale, "lines": lines})


if __name__ == "__main__":
    main()
