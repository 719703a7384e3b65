"""What heads side by side over one cache cost, against the same heads one after the other.

    python benchmarks/shared.py [--heads 5] [--epochs 2] [--rounds 3] [--size 64]

Makes a cache of random activations in the sizes of the nano network, fits the same heads (the variants of `ablate`, one
draw, one seed) in both ways, and checks that the weights are the same to the last bit. Bytes are counted, every one
that is read from the cache. Seconds are ratios within one run: the ways take turns, the fastest round of each counts.
"Rows stay" is a cache that fits into memory, "rows are read anew" one that does not. Prints Markdown and keeps the
numbers in results/shared.json.
"""

import argparse
import contextlib
import io
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from textdiff import console
from textdiff.benchmarks.common import keep, monuseg_blocks, random_cache, random_row
from textdiff.cache import FeatureCache, Loader, chunks
from textdiff.models.device import describe_device
from textdiff.models.networks.variants import VARIANTS
from textdiff.pipeline.fit import FitConfig, begin, initial_network
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.train import train_many
from textdiff.tables import markdown_table

TEXT_DIM, IMAGES = 384, 5
CPU = torch.device("cpu")


def make_cache(path: Path, size: int) -> FeatureCache:
    """Five training images with the native sizes of nano-he's blocks 6, 8, 12 and 16, in proportion to ``size``."""
    cache = random_cache(path, IMAGES, size, monuseg_blocks(size, 32), TEXT_DIM)
    draw = np.random.default_rng(0)
    for row in range(IMAGES):
        cache.write(row, *random_row(cache, draw))
    return FeatureCache.open(path)


@contextlib.contextmanager
def counting(counted: list[int]) -> Any:
    """Adds the size of everything that is read from a cache's files."""
    plain = chunks.read_into

    def read_into(path: Path, out: np.ndarray) -> bytes:
        counted.append(path.stat().st_size)
        return plain(path, out)

    chunks.read_into = read_into
    try:
        yield
    finally:
        chunks.read_into = plain


def fit_all(configs: list[FitConfig], cache: FeatureCache, root: Path, beside: bool, stays: bool) -> dict[str, float]:
    """Fits all heads in one of the ways; seconds, bytes and reads. Messages are left out."""
    runs = [begin(config, lambda _, name=str(i): root / name) for i, config in enumerate(configs)]
    groups = [runs] if beside else [[run] for run in runs]
    counted: list[int] = []
    start = time.perf_counter()
    with counting(counted), contextlib.redirect_stderr(io.StringIO()):
        for group in groups:
            loader = Loader(cache, CPU, resident="auto" if stays else "never")
            train_many([(run, initial_network(run)) for run in group], cache, CPU, loader)
    return {"seconds": time.perf_counter() - start, "bytes": sum(counted), "reads": len(counted)}


def reading_alone(cache: FeatureCache, passes: int) -> float:
    """Seconds to read all rows ``passes`` times, with nothing else to do."""
    start = time.perf_counter()
    for _ in range(passes):
        for _ in Loader(cache, CPU, resident="never").epoch(range(IMAGES)):
            pass
    return time.perf_counter() - start


def same(one: Path, other: Path) -> bool:
    """Whether two runs have the same weights to the last bit."""
    left, right = (load_file(Run(path).path / "head.safetensors") for path in (one, other))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def main() -> None:
    """Prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--heads", type=int, default=len(VARIANTS), help="how many, at most one of each variant")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cache = make_cache(root / "cache.zarr", options.size)
        base = FitConfig(cache=cache.path, epochs=options.epochs, device="cpu")
        configs = [replace(base, variant=variant) for variant in list(VARIANTS)[: options.heads]]
        ways = [(beside, stays) for stays in (True, False) for beside in (False, True)]
        identical = True
        with console.Progress(options.rounds * len(ways), "measure", "fits of all heads") as progress:
            for turn in range(options.rounds):
                for beside, stays in ways:
                    place = root / f"{turn}-{beside}-{stays}"
                    now = fit_all(configs, cache, place, beside, stays)
                    key = f"{'rows stay' if stays else 'rows are read anew'}, {'side by side' if beside else 'in turn'}"
                    before = found.get(key, now)
                    found[key] = now | {"seconds": min(now["seconds"], before["seconds"])}
                    identical &= all(same(root / "0-False-True" / str(i), place / str(i)) for i in range(len(configs)))
                    progress.advance()
        found["reading once per epoch, nothing else"] = {
            "seconds": min(reading_alone(cache, options.epochs) for _ in range(options.rounds)),
            "bytes": 0,
            "reads": 0,
        }
        row = cache.row_nbytes
    print(
        f"{len(configs)} heads, {options.epochs} epochs, {IMAGES} images of {options.size} px, "
        f"{console.size(row)} a row"
    )
    lines = []
    first = found["rows stay, in turn"]["seconds"]
    for name, values in found.items():
        against = first if "stay" in name else found["rows are read anew, in turn"]["seconds"]
        amount = console.size(values["bytes"]) if values["reads"] else ""
        reads = str(int(values["reads"]) or "")
        lines.append((name, amount, reads, f"{values['seconds']:.2f}", f"{values['seconds'] / against:.3f}"))
    print("\n" + markdown_table(("way", "bytes read", "reads", "seconds", "of in turn"), lines, "lrrrr"))
    print(f"\nweights of all ways the same to the last bit: {identical}")
    about = {"torch": torch.__version__, "device": describe_device(CPU), "options": vars(options), "row_bytes": row}
    keep("shared", about | {"identical": identical, "ways": found})


if __name__ == "__main__":
    main()
