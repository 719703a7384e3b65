"""What segmenting one large TIFF by tiles holds in memory, without a network.

    python benchmarks/large.py [--height 20000] [--width 20000] [--tile 256] [--overlap 32] [--kind contiguous]

The network's place is taken by a threshold, so the figures are those of reading, stitching and writing the mask and
the probability. The peak is that of the resident memory of a fresh process; "before" is what Python, PyTorch and the
imports had taken. ``contiguous`` is a TIFF as microscopes' software exports it, ``tiles`` a compressed and tiled one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make(path: Path, height: int, width: int, kind: str) -> None:
    """A picture of bright squares on dark ground, written a few rows at a time."""
    import numpy as np
    import tifffile

    period = 500
    row = np.arange(width) % period < period // 2
    shape = (height, width, 3)
    if kind == "tiles":

        def pieces():
            for y in range(0, height, 512):
                for x in range(0, width, 512):
                    inside = ((y + np.arange(512)) % period < period // 2)[:, None] & (
                        (x + np.arange(512)) % period < period // 2
                    )
                    yield np.repeat((40 + 180 * inside).astype(np.uint8)[..., None], 3, axis=2)

        tifffile.imwrite(path, pieces(), shape=shape, dtype=np.uint8, tile=(512, 512), compression="zlib")
        return
    tifffile.imwrite(path, shape=shape, dtype=np.uint8, photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(start)
        for y in range(height):
            file.write(
                np.repeat(
                    (40 + 180 * (row & (y % period < period // 2))).astype(np.uint8)[:, None], 3, axis=1
                ).tobytes()
            )


def measure(path: Path, folder: Path, tile: int, overlap: int) -> dict[str, float]:
    """Segments ``path`` in this process."""
    import numpy as np

    from textdiff.benchmarks.common import peak_memory
    from textdiff.images.tiles import Grid
    from textdiff.pipeline.prediction.in_parts import Streaming, segment_streamed
    from textdiff.pipeline.prediction.output_files import OutputFiles

    def threshold(pixels: np.ndarray) -> np.ndarray:
        bright = pixels[..., 0].astype(np.float32) / 255
        return np.stack([1 - bright, bright])[None]

    before, start = peak_memory(), time.perf_counter()
    asked = Streaming(
        name=path.stem,
        class_names=("bright",),
        grid=lambda h, w: Grid(h, w, tile, overlap),
        predict=threshold,
        together=lambda block: block[0],
        pictures=lambda block: OutputFiles(probabilities=True).pictures(block[0], block),
    )
    written, _ = segment_streamed(path, folder / path.stem, folder / "objects", asked)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "before_mb": round(before / 1e6),
        "peak_mb": round(peak_memory() / 1e6),
        "image_mb": round(path.stat().st_size / 1e6),
        "written_mb": round(sum(file.stat().st_size for file in written) / 1e6, 1),
    }


def main() -> None:
    """Makes the picture, measures in a process of its own, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=20000)
    parser.add_argument("--width", type=int, default=20000)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--kind", choices=("contiguous", "tiles"), default="contiguous")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.tile, options.overlap)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.tif"
        make(path, options.height, options.width, options.kind)
        command = [sys.executable, __file__, "--tile", str(options.tile), "--overlap", str(options.overlap)]
        result = subprocess.run([*command, "--measure", path, folder + "/out"], check=True, stdout=subprocess.PIPE)
    asked = {name: getattr(options, name) for name in ("height", "width", "tile", "overlap", "kind")}
    print(json.dumps(asked | json.loads(result.stdout)))


if __name__ == "__main__":
    main()
