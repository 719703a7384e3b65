"""What a data set of large TIFFs costs in time and memory, command by command.

    python benchmarks/large_dataset.py --source data/MoNuSeg [--side 20000] [--tile 1000] [--image-size 64]

Two mosaics of the source's images, one to fit and one to score: one TIFF as it comes, one compressed in tiles, masks
compressed in tiles. Then ``data check``, ``extract``, ``fit``, ``score``, ``report`` and ``predict`` as a user runs
them, each in a process of its own, whose largest resident memory is taken from the system. "start" is what Python and
the libraries take. The network is small on purpose: its memory does not depend on the images' size, and what does is
measured here. Prints JSON and keeps it in results/large_dataset.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from textdiff.benchmarks.common import keep
from textdiff.images.tiff_writer import PIECE, tiff_writer
from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_image, load_mask

TEXT = "The nuclei are densely packed."


class Mosaic:
    """A large picture of small ones, of which any part can be had."""

    def __init__(self, source: Path, split: str, side: int) -> None:
        samples = [sample for sample in read_dataset("monuseg", source)[0] if sample.split == split and sample.mask]
        images = [load_image(sample.image).pixels for sample in samples]
        self.cell = min(min(image.shape[:2]) for image in images)
        self.images = [image[: self.cell, : self.cell] for image in images]
        masks = [load_mask(sample, *image.shape[:2]).labels for sample, image in zip(samples, images, strict=True)]
        self.masks = [255 * mask[: self.cell, : self.cell] for mask in masks]
        self.side = side

    def part(self, pieces: list[np.ndarray], y: int, x: int, height: int, width: int) -> np.ndarray:
        """(height, width, ...) from (y, x) on, zeros beyond the end."""
        found = np.zeros((height, width, *pieces[0].shape[2:]), np.uint8)
        cell = self.cell
        for row in range(y // cell, -(-min(y + height, self.side) // cell)):
            for column in range(x // cell, -(-min(x + width, self.side) // cell)):
                top, left = max(y, row * cell), max(x, column * cell)
                end, right = (
                    min(y + height, (row + 1) * cell, self.side),
                    min(x + width, (column + 1) * cell, self.side),
                )
                piece = pieces[(7 * row + 3 * column) % len(pieces)]
                found[top - y : end - y, left - x : right - x] = piece[
                    top - row * cell : end - row * cell, left - column * cell : right - column * cell
                ]
        return found

    def write_image(self, path: Path, tiled: bool) -> None:
        """As RGB, without holding it."""
        shape, step = (self.side, self.side, 3), 512

        def pieces() -> Iterator[np.ndarray]:
            for y in range(0, self.side, step):
                for x in range(0, self.side, step):
                    yield self.part(self.images, y, x, step, step)

        if tiled:
            options: dict[str, Any] = {"tile": (step, step), "compression": "zlib", "compressionargs": {"level": 1}}
            tifffile.imwrite(path, pieces(), shape=shape, dtype=np.uint8, photometric="rgb", **options)
            return
        tifffile.imwrite(path, shape=shape, dtype=np.uint8, photometric="rgb")
        with tifffile.TiffFile(path) as tiff:
            start = tiff.pages.first.dataoffsets[0]
        with path.open("r+b") as file:
            file.seek(start)
            for y in range(0, self.side, step):
                file.write(self.part(self.images, y, 0, min(step, self.side - y), self.side).tobytes())

    def write_mask(self, path: Path) -> None:
        """As 0 and 255."""
        with tiff_writer(path, (self.side, self.side), np.uint8) as write:
            for y in range(0, self.side, PIECE):
                write(self.part(self.masks, y, 0, min(PIECE, self.side - y), self.side))


def make(root: Path, source: Path, side: int) -> None:
    """A folder data set of two mosaics."""
    (root / "images").mkdir(parents=True)
    for split in ("train", "test"):
        mosaic = Mosaic(source, split, side)
        mosaic.write_image(root / f"images/{split}.tif", tiled=split == "test")
        mosaic.write_mask(root / f"masks/{split}.tif")
    (root / "texts.csv").write_text(f"image,text,split\ntrain,{TEXT},train\ntest,{TEXT},test\n")


def measure(folder: Path, *arguments: str) -> dict[str, float]:
    """Runs Python in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: status {status}")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(usage.ru_maxrss * 1024 / 1e6)}


def main() -> None:
    """Makes the data, runs the commands, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="MoNuSeg, as `textdiff data get` makes it")
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--tile", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "data", options.source.resolve(), options.side)
        data = ("--dataset", "folder", "--data", "data")
        tile = ("--tile", str(options.tile))
        small = ("--image-size", str(options.image_size), "--blocks", "6,12", "--steps", "50", "--text-encoder", "none")
        image = "data/images/test.tif"
        stages = {
            "data check": ("data", "check", *data, *tile),
            "extract": ("extract", *data, *tile, *small, "--backbone", "nano-he"),
            "fit": ("fit", "--cache", "cache/data.zarr", "--variant", "no-text", "--epochs", "1"),
            "score": ("score",),
            "report": ("report",),
            "predict": ("predict", image, "--out", "masks"),
        }
        found = {"start": measure(folder, "-c", "import textdiff.pipeline.extract, textdiff.pipeline.score")}
        found |= {stage: measure(folder, "-m", "textdiff.cli", *arguments) for stage, arguments in stages.items()}
        scores = json.loads((folder / "runs/latest/scores.json").read_text())
        value = {
            "side": options.side,
            "tile": options.tile,
            "image_size": options.image_size,
            "image_mb": {file.stem: round(file.stat().st_size / 1e6) for file in (folder / "data/images").iterdir()},
            "dice_original": scores["images"][0]["dice_original"],
            "stages": found,
        }
    keep("large_dataset", value)
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
