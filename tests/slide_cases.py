"""Slides as their scanners write them, made from pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile


def halved(pixels: np.ndarray) -> np.ndarray:
    """The mean of 2 x 2 pixels, what is over left out."""
    height, width = (length // 2 for length in pixels.shape[:2])
    squares = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return squares.mean((1, 3)).round().astype(np.uint8)


def write_svs(
    path: Path, levels: Sequence[np.ndarray], mpp: float | None = 0.25, compression: str = "zlib", tile: int = 64
) -> Path:
    """A pyramid that OpenSlide takes for Aperio's, lossless by default."""
    size = f"{levels[0].shape[1]}x{levels[0].shape[0]}"
    said = f"Aperio Image Library v11\n{size} |AppMag = 40" + ("" if mpp is None else f"|MPP = {mpp}")
    with tifffile.TiffWriter(path) as tiff:
        for level in levels:
            tiff.write(
                level, tile=(tile, tile), compression=compression, photometric="rgb", metadata=None, description=said
            )
    return path


def write_ome(path: Path, levels: Sequence[np.ndarray], mpp: float | None = 0.25) -> Path:
    """An OME-TIFF whose smaller levels are SubIFDs."""
    metadata = {"axes": "YXS"}
    if mpp is not None:
        metadata |= {f"PhysicalSize{axis}": mpp for axis in "XY"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb"}
        tiff.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, metadata=None, **options)
    return path


def write_generic(path: Path, levels: Sequence[np.ndarray], mpp: float = 0.25) -> Path:
    """A tiled TIFF with levels in pages, and its calibration in the tags of the resolution."""
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            dots = (10000 / (mpp * 2**number),) * 2
            options = {"resolution": dots, "resolutionunit": "CENTIMETER", "subfiletype": int(number > 0)}
            tiff.write(level, tile=(64, 64), compression="zlib", photometric="rgb", metadata=None, **options)
    return path


def tissue(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pink tissue with dark discs in the middle of glass, and the discs' mask (H, W) bool."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.zeros((height, width), bool)
    place = (np.abs(y / height - 0.5) < 0.3) & (np.abs(x / width - 0.5) < 0.3)
    for _ in range(40):
        cy, cx = draw.uniform(0.2, 0.8) * height, draw.uniform(0.2, 0.8) * width
        inside |= ((y - cy) ** 2 + (x - cx) ** 2 < draw.uniform(4, 12) ** 2) & place
    image = np.where(place[..., None], (225, 170, 205), (244, 243, 244)).astype(np.float64)
    image[inside] = (90, 50, 130)
    return (image + draw.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8), inside
