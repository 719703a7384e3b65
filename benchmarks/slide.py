"""What segmenting a whole slide holds in memory, and how long it takes: a pyramid with real tissue in a sea of glass.

    python benchmarks/slide.py DIR [--height 80000] [--width 100000] [--mpp 0.25] [--images 16] [--margin 0]

DIR has the tissue: RGB images of one size, such as MoNuSeg's test images. The slide is one that OpenSlide takes for
Aperio's, of JPEG tiles, four levels and 0.25 µm per pixel; it is made in a temporary directory and removed. The
network's place is taken by a threshold on how dark red is, so the figures are those of finding the tissue, reading,
stitching, telling objects apart, and writing mask, GeoJSON and OME-Zarr. The peak is that of the resident memory of a
fresh process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TILE = 512


def make(path: Path, images: list[Path], height: int, width: int) -> None:
    """Writes the slide: the images lie in a square block, one after the other, a third of the way into the glass."""
    import numpy as np
    import tifffile
    from imagecodecs import jpeg_encode

    across = int(np.ceil(len(images) ** 0.5))
    pixels = [tifffile.imread(image)[..., :3] for image in images]
    rows = [np.concatenate(pixels[first : first + across], 1) for first in range(0, len(pixels), across)]
    tissue = np.concatenate([row for row in rows if row.shape == rows[0].shape])
    top, left = height // 3 // 64 * 64, width // 3 // 64 * 64
    glass = jpeg_encode(np.full((TILE, TILE, 3), 243, np.uint8), 80)
    said = f"Aperio Image Library v11\n{width}x{height} |AppMag = 40|MPP = 0.25"

    def pieces(step: int):
        for y in range(0, height // step, TILE):
            for x in range(0, width // step, TILE):
                y0, x0 = y - top // step, x - left // step
                if not (-TILE < y0 < len(tissue) // step and -TILE < x0 < tissue.shape[1] // step):
                    yield glass
                    continue
                piece = np.full((TILE, TILE, 3), 243, np.uint8)
                part = tissue[max(0, y0) * step : (y0 + TILE) * step, max(0, x0) * step : (x0 + TILE) * step]
                h, w = len(part) // step, part.shape[1] // step
                part = part[: h * step, : w * step].reshape(h, step, w, step, 3).mean((1, 3))
                piece[max(0, -y0) : max(0, -y0) + h, max(0, -x0) : max(0, -x0) + w] = part.round()
                yield jpeg_encode(piece, 80)

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4, 16, 64):
            tiff.write(
                pieces(step),
                shape=(height // step, width // step, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="jpeg",
                photometric="rgb",
                metadata=None,
                description=said,
            )


def measure(path: Path, folder: Path, mpp: float, margin: int) -> dict[str, float]:
    """Segments ``path`` in this process."""
    import numpy as np

    from textdiff.benchmarks.common import peak_memory
    from textdiff.images.scaled import Scaled
    from textdiff.images.tiles import Grid
    from textdiff.pipeline.prediction.in_parts import Streaming, segment_streamed

    def dark(pixels: np.ndarray) -> np.ndarray:
        probability = 1 / (1 + np.exp((pixels[..., 0].astype(np.float32) - 130) / 12))
        return np.stack([1 - probability, probability])[None]

    asked = Streaming(
        name=path.stem,
        class_names=("dark",),
        grid=lambda h, w: Grid(h, w, 256, 32, margin),
        predict=dark,
        together=lambda block: block[0],
        pictures=lambda block: {},
        formats=("geojson", "ome-zarr"),
        min_area=20,
        tissue=0.05,
    )
    before, start = peak_memory(), time.perf_counter()
    written, line = segment_streamed(Scaled(path, mpp), folder / path.stem, folder / "objects", asked)
    files = [file for one in written for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "before_mb": round(before / 1e6),
        "peak_mb": round(peak_memory() / 1e6),
        "slide_mb": round(path.stat().st_size / 1e6),
        "written_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "objects": line["objects"],
        "tissue_mm2": line["tissue_mm2"],
        "notes": line["notes"],
    }


def main() -> None:
    """Makes the slide, measures in a process of its own, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--height", type=int, default=80000)
    parser.add_argument("--width", type=int, default=100000)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--margin", type=int, default=0, help="pixels at the edges of tiles that are surroundings")
    parser.add_argument("--keep", type=Path, help="directory that slide and results stay in")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.mpp, options.margin)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "slide.svs"
        start = time.perf_counter()
        # What is not of the first one's size is left out.
        images = sorted(options.directory.glob("*.tif")) * options.images
        make(path, images[: options.images], options.height, options.width)
        made = round(time.perf_counter() - start, 1)
        command = [sys.executable, __file__, str(options.directory), "--mpp", str(options.mpp)]
        command += ["--margin", str(options.margin)]
        result = subprocess.run([*command, "--measure", path, folder / "out"], check=True, stdout=subprocess.PIPE)
    asked = {name: getattr(options, name) for name in ("height", "width", "mpp", "images", "margin")}
    print(json.dumps(asked | {"made_s": made} | json.loads(result.stdout)))


if __name__ == "__main__":
    main()
