"""What the benchmarks share: caches and data sets of random numbers, and where results are kept."""

__all__ = ["STEPS", "keep", "monuseg_blocks", "peak_memory", "random_cache", "random_folder", "random_row"]

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textdiff.cache import FeatureCache, Row
from textdiff.files import write_json

STEPS = (50, 150, 250)
Shapes = Mapping[int, tuple[int, int, int]]


def monuseg_blocks(size: int, channels: int) -> dict[int, tuple[int, int, int]]:
    """The shapes of MoNuSeg's blocks for images of ``size`` pixels, with so many channels in the finest: 256 in adm."""
    shapes = ((6, 2, 8), (8, 2, 4), (12, 1, 2), (16, 1, 1))
    return {block: (wide * channels, size // factor, size // factor) for block, wide, factor in shapes}


def random_cache(
    path: Path, rows: int, size: int, blocks: Shapes, text_dim: int = 0, masks: bool = True
) -> FeatureCache:
    """A cache for so many training images, with a text of about twelve tokens each if these have a width.

    No row is written yet.
    """
    draw, tokens, texts = np.random.default_rng(0), 12, dict[str, Any]()
    if text_dim:
        texts["texts"] = [str(number) for number in range(rows)]
        texts["tokens"] = draw.standard_normal((rows, tokens, text_dim), dtype=np.float32)
        texts["token_mask"] = np.arange(tokens)[None] < draw.integers(tokens - 2, tokens + 1, (rows, 1))
    table = [
        Row(str(n), "train", 0, n if text_dim else -1, f"{n}.png", digest, digest if masks else None, size, size)
        for n, digest in ((n, f"{n:064x}") for n in range(rows))
    ]
    fingerprint, about = {"dtype": "float16"}, {"dataset": "random"}
    return FeatureCache.create(
        path, fingerprint=fingerprint, rows=table, blocks=blocks, steps=STEPS, image_size=size, about=about, **texts
    )


def random_row(
    cache: FeatureCache, draw: np.random.Generator
) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """What ``cache.write`` takes of a row: activations by block, an image, its mask and its truth."""
    size = cache.image_size
    grids = {b: draw.standard_normal((len(STEPS), *shape), dtype=np.float32) for b, shape in cache.blocks.items()}
    mask = draw.integers(2, size=(size, size), dtype=np.uint8)
    return grids, draw.integers(256, size=(size, size, 3), dtype=np.uint8), mask, mask


def random_folder(root: Path, count: int, size: int) -> None:
    """A data set in the layout of ``folder`` without texts: every other image is for testing."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        pixels = draw.integers(256, size=(size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number:06d}.png")
        Image.fromarray(((pixels[..., 0] > 128) * 255).astype(np.uint8)).save(root / f"masks/{number:06d}.png")
    lines = [f"{number:06d},,{'test' if number % 2 else 'train'}" for number in range(count)]
    (root / "texts.csv").write_text("\n".join(["image,text,split", *lines]) + "\n")


def peak_memory() -> int:
    """This process's largest resident set, in bytes; not its parent's, which Linux's ru_maxrss starts from."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    macos = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), macos)


def keep(name: str, value: Mapping[str, Any]) -> None:
    """Writes results where those of all benchmarks are."""
    write_json(Path(__file__).resolve().parent / "results" / f"{name}.json", value)
